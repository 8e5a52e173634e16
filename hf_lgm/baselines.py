"""A short name, which messages say; the code is in `hf_lgm.evaluation.baselines`."""

from .evaluation.baselines import select_baseline, with_source_images

__all__ = ["select_baseline", "with_source_images"]
