"""Image classifiers of Transformers, to hold a probe on the features of a backbone of the same architecture."""

import copy

import transformers
from PIL import Image
from torch import nn

from ..backbones.preprocessing import Preprocessing


def image_processor(p: Preprocessing) -> "transformers.BitImageProcessorPil":
    """Our preprocessing as Transformers saves it: resize the shortest side, crop, normalise."""
    return transformers.BitImageProcessorPil(
        size={"shortest_edge": round(p.image_size * p.resize_ratio)},
        crop_size={"height": p.image_size, "width": p.image_size},
        image_mean=list(p.mean),
        image_std=list(p.std),
        resample=Image.Resampling[p.resample.upper()],
    )


def own_classifier(model: nn.Module, class_names: list[str]) -> "transformers.PreTrainedModel | None":
    """The image classifier of a model's architecture with its weights and a new head; `None` where there is none."""
    if not isinstance(model, transformers.PreTrainedModel):
        return None
    config = copy.deepcopy(model.config)
    config.architectures = []  # not one with two heads (DeiT)
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: number for number, name in enumerate(class_names)}
    try:
        classifier = transformers.AutoModelForImageClassification.from_config(config).eval()
    except (ValueError, ImportError):
        return None
    inner = getattr(classifier, classifier.base_model_prefix, None)
    if inner is None:
        return None
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    try:
        missing, _ = inner.load_state_dict(state, strict=False)  # it may leave out a pooler
    except RuntimeError:  # parts of the same names in other shapes
        return None
    return None if missing else classifier


def head_of(classifier: "transformers.PreTrainedModel", num_classes: int) -> nn.Linear | None:
    """The one linear layer outside the backbone that gives the classes."""
    inside = f"{classifier.base_model_prefix}."
    found = [
        module
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes and not name.startswith(inside)
    ]
    return found[0] if len(found) == 1 else None
