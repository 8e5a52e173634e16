"""Images to vectors: extracted once, cached, streamed; rows that stand for their class."""

from typing import Any


def extract_features(backbone: Any, images: Any, accelerator: Any, *args: Any, **kwargs: Any) -> Any:
    """The former name of [`~hf_lgm.features.extraction.FeatureExtractor.extract`], until 0.3."""
    from .extraction import FeatureExtractor

    return FeatureExtractor(accelerator, *args, **kwargs).extract(backbone, images)
