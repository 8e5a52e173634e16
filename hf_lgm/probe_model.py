"""A former place, which published cards name: the class is at the front door, `from hf_lgm import ProbeModel`."""

from .evaluation.probe_model import ProbeModel

__all__ = ["ProbeModel"]
