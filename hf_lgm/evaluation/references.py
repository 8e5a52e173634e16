"""What all real images give through one backbone: one table of titles, how each is fitted, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import transformers

from ..backbones.backbone import FrozenBackbone
from ..features.coresets import class_means
from ..hub import first_line
from ..publishing.results import ALL_REAL_IMAGES, CLASS_MEAN
from ..settings import ProbeProtocol
from . import classifiers
from .classifiers import Logits, OfStrength
from .probe import probe_logits, train_probes

# The first of CLIP's templates (arXiv 2103.00020); ensembles of 80 give a few points more.
PROMPT = "a photo of a {}."
_BATCH = 256


@dataclass(frozen=True)
class RealImages:
    """What is known of all real training images through one backbone.

    Args:
        backbone ([`FrozenBackbone`]): The backbone.
        class_names (`list[str]`): Length C.
        protocol ([`ProbeProtocol`]): How probes are trained.
        features (`Callable`): Gives features (N, D), classes (N,) and C when it is asked, since they are many.
    """

    backbone: FrozenBackbone
    class_names: list[str]
    protocol: ProbeProtocol
    features: Callable[[], tuple[torch.Tensor, torch.Tensor, int]]


# From real images to how a classifier was found, and its logits of shape (seeds, M, C).
Fit = Callable[[RealImages], tuple[str, Logits]]


@dataclass(frozen=True)
class Reference:
    """One way to use all real images.

    Args:
        fit (`Callable`): See `Fit`.
        needs_text (`bool`, *optional*, defaults to `False`): Whether it reads class names in place of images.
        needs_protocol (`bool`, *optional*, defaults to `False`): Whether the probes' protocol decides it.
        min_per_class (`int`, *optional*, defaults to 0): Training images that a class needs on average.
    """

    fit: Fit
    needs_text: bool = False
    needs_protocol: bool = False
    min_per_class: int = 0


class NoTextError(ValueError):
    """A model of images and text without a tokenizer that tells class names apart."""


@torch.no_grad()
def zero_shot_head(backbone: FrozenBackbone, class_names: list[str]) -> torch.Tensor:
    """Normalised text features of shape (C, D), of `PROMPT` with each class name.

    Of a name with synonyms, such as ImageNet's "tench, Tinca tinca", the first is taken.

    Args:
        backbone ([`FrozenBackbone`]): One that has text, in the space that images and text share.
        class_names (`list[str]`): Length C.

    Raises:
        NoTextError: If there is no tokenizer beside the model, or it does not know the words.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(backbone.source, revision=backbone.revision)
    except (OSError, ValueError, ImportError) as error:
        raise NoTextError(f"'{backbone.name}' has no tokenizer: {first_line(error)}") from error
    prompts = [PROMPT.format(name.split(",")[0].replace("_", " ")) for name in class_names]
    model: Any = backbone.model
    # Padded to the full length, as SigLIP was trained; CLIP masks what is padded.
    padding = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    length, features = model.config.text_config.max_position_embeddings, []
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        tokens = tokenizer(batch, max_length=length, **padding)
        if len(tokens["input_ids"].unique(dim=0)) < len(set(batch)):  # a tokenizer without files has no words
            raise NoTextError(f"the tokenizer of '{backbone.name}' does not tell the class names apart.")
        output = model.get_text_features(**tokens.to(backbone.mean.device))
        features.append(getattr(output, "pooler_output", output).float())
    return F.normalize(torch.cat(features), dim=1)


def _zero_shot(real: RealImages) -> tuple[str, Logits]:
    head = zero_shot_head(real.backbone, real.class_names)
    return f"cosine with '{PROMPT}'", lambda z: F.normalize(z, dim=1)[None] @ head.to(z).T


def _class_mean(real: RealImages) -> tuple[str, Logits]:
    z, y, num_classes = real.features()
    return "no training", _of_one_seed(classifiers.nearest_class_mean(z, y, num_classes))


def _probe_on_class_means(real: RealImages) -> tuple[str, Logits]:
    z, y, num_classes = real.features()
    means = class_means(z, y, num_classes)
    sets = means.expand(real.protocol.seeds, *means.shape)
    W, b = train_probes(lambda view: sets, torch.arange(num_classes, device=y.device), num_classes, real.protocol)
    return real.protocol.training, probe_logits(W, b)


def _neighbours(real: RealImages) -> tuple[str, Logits]:
    z, y, num_classes = real.features()
    how = "20 nearest by cosine, temperature 0.07"
    return how, _of_one_seed(classifiers.nearest_neighbours(z, y, num_classes))


def _chosen(fit: Callable[..., OfStrength], strengths: tuple[float, ...], word: str) -> Fit:
    """A classifier whose strength is chosen on held-out training images."""

    def fitted(real: RealImages) -> tuple[str, Logits]:
        logits, strength = classifiers.chosen(fit, strengths, *real.features())
        return f"{word} {strength:g}, chosen on held-out training images", _of_one_seed(logits)

    return fitted


def _of_one_seed(logits: Logits) -> Logits:
    return lambda z: logits(z)[None]


_ridge = _chosen(classifiers.ridge_regression, classifiers.RIDGES, "ridge")
_discriminant = _chosen(classifiers.discriminant_analysis, classifiers.SHRINKAGES, "shrinkage")
_converged = _chosen(classifiers.logistic_regression, classifiers.WEIGHT_DECAYS, "converged probe, weight decay")

# From the weakest to the strongest; zero-shot heads see no real image. Where a strength is chosen, a class needs three
# images: one to choose by, and two that have a covariance.
REFERENCES = {
    "zero-shot text": Reference(_zero_shot, needs_text=True),
    CLASS_MEAN: Reference(_class_mean),
    "probe on class means": Reference(_probe_on_class_means, needs_protocol=True),
    "k nearest neighbours": Reference(_neighbours),
    "ridge regression": Reference(_ridge, min_per_class=3),
    "discriminant analysis": Reference(_discriminant, min_per_class=3),
    ALL_REAL_IMAGES: Reference(_converged, min_per_class=3),
}
