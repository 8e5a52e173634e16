"""A former place, which the README of 0.1 names; the code is in `hf_lgm.evaluation.metrics`."""

from .evaluation.metrics import MacroAccuracy, TopKAccuracy, WorstGroupAccuracy

__all__ = ["MacroAccuracy", "TopKAccuracy", "WorstGroupAccuracy"]
