"""Distil a labelled image dataset into a few synthetic images through any frozen vision backbone."""

from .backbone import FrozenBackbone
from .config import LGMConfig
from .data import LabelledImages
from .distilled_set import DistilledSet
from .distiller import LGMDistiller
from .loading import load_images
from .preprocessing import Preprocessing
from .probe import ProbeProtocol, ProbeResult, evaluate_probe
from .streaming import StreamEncoder

__all__ = [
    "DistilledSet",
    "FrozenBackbone",
    "LGMConfig",
    "LGMDistiller",
    "LabelledImages",
    "Preprocessing",
    "ProbeProtocol",
    "ProbeResult",
    "StreamEncoder",
    "evaluate_probe",
    "load_images",
]
