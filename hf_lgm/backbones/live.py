"""Live models that are more than a backbone: the part of a classifier that gives the features."""

import copy
import logging
from typing import Any

import transformers
from torch import nn

logger = logging.getLogger(__name__)


def without_classifier(model: nn.Module) -> nn.Module:
    """The base of one of Transformers' image classifiers; any other module as it is."""
    if not isinstance(model, transformers.PreTrainedModel) or "ForImageClassification" not in type(model).__name__:
        return model
    base = model.base_model
    if base is model:
        return model
    base = without_timm_head(base) if is_timm(base) else base
    logger.info("%s is an image classifier: features are those of its base, %s", *map(_kind, (model, base)))
    return base


def is_timm(model: Any) -> bool:
    """Whether a module is one of timm's, which say themselves what they take."""
    return bool(getattr(model, "pretrained_cfg", None)) and hasattr(model, "reset_classifier")


def without_timm_head(model: Any) -> nn.Module:
    """A timm model that ends in its features: itself, or a copy where it has classes, for it is its owner's too."""
    if not getattr(model, "num_classes", 0):
        return model
    logger.info("%s is an image classifier: its last layer is left out", _kind(model))
    model = copy.deepcopy(model)
    model.reset_classifier(0)
    return model


def _kind(model: nn.Module) -> str:
    return type(model).__name__
