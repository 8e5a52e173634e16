"""Everything that is scored through one backbone: probes on small sets, and what all real images give."""

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset, IterableDataset

from . import classifiers
from .augmentation import ViewSettings
from .backbone import FrozenBackbone
from .baselines import select_baseline
from .data import LabelledImages
from .distilled_set import DistilledSet
from .features import extract_features
from .loading import align_classes
from .probe import ProbeProtocol, ViewFeatures, probe_logits, train_probes
from .result_cache import cached_result
from .results import EvalFeatures, ProbeResult
from .streaming import StreamEncoder
from .zero_shot import PROMPT, NoTextError, zero_shot_head

logger = logging.getLogger(__name__)

# What is known of all real images, from the weakest to the strongest; zero-shot heads see none of them.
REFERENCES = (
    "zero-shot text",
    "nearest class mean",
    "probe on class means",
    "k nearest neighbours",
    "ridge regression",
    "discriminant analysis",
    "all real images",
)

# So that some can be held out to choose by, and what is left has a covariance within classes.
_MIN_PER_CLASS = 3


@dataclass(frozen=True)
class Evaluation:
    """Scores of training sets and references through one backbone. Real images are encoded once, results are kept.

    Args:
        backbone ([`FrozenBackbone`]): What is seen through.
        real ([`LabelledImages`]): What is scored on; nothing is chosen by it.
        train ([`LabelledImages`], *optional*): All real training images, for the references.
        protocol ([`ProbeProtocol`], *optional*): How probes are trained.
        accelerator (`accelerate.Accelerator`, *optional*): Shares out the encoding of real images.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
        cache (`bool`, *optional*, defaults to `False`): Keep results under the Hugging Face assets cache, and take
            from there what was found before, for the same pixels, weights and protocol.
    """

    backbone: FrozenBackbone
    real: LabelledImages
    train: LabelledImages | None = None
    protocol: ProbeProtocol = field(default_factory=ProbeProtocol)
    accelerator: Accelerator = field(default_factory=Accelerator)
    batch_size: int = 64
    num_workers: int = 0
    cache: bool = False

    def __post_init__(self) -> None:
        if self.train is not None and self.train.class_names != self.real.class_names:
            raise ValueError("The training images and those to score on number their classes differently.")

    def probe(self, name: str, sets: Sequence[DistilledSet], views: ViewSettings) -> ProbeResult:
        """Accuracy of linear probes that are trained on small sets, one set per seed, on views of the given kind."""

        def compute() -> ProbeResult:
            features = ViewFeatures(self.backbone, sets, views, self.batch_size)
            targets = y
            if any(images.has_soft_labels for images in sets):
                targets = torch.stack([images.targets_as(self.real.class_names) for images in sets])
            W, b = train_probes(features, targets.to(self.scored.y.device), self.real.num_classes, self.protocol)
            return self.scored.result(name, self.backbone.name, protocol, probe_logits(W, b))

        y = sets[0].labels_as(self.real.class_names)
        if any(not torch.equal(images.labels_as(self.real.class_names), y) for images in sets):
            raise ValueError(f"'{name}': sets for several seeds need the same classes in the same order.")
        views = views.without_noise()
        low, high = views.crop_scale
        protocol = f"{self.protocol.description}, crops of {low:g} to {high:g}{', flips' if views.flip else ''}"
        described = {"sets": [images.fingerprint for images in sets], "views": asdict(views)}
        return self._result(name, {**described, "protocol": asdict(self.protocol)}, compute)

    def reference(self, name: str) -> ProbeResult | None:
        """What one of `REFERENCES` scores; `None` where it has no meaning for this backbone.

        Raises:
            ValueError: If there is no such reference, or there are no training images.
        """
        if name not in REFERENCES:
            raise ValueError(f"A reference is one of {', '.join(REFERENCES)}; found '{name}'.")
        described: dict[str, Any] = {"reference": name, "train": _identity(self.training_images)}
        if name == "probe on class means":
            described["protocol"] = asdict(self.protocol)
        if name == "zero-shot text":
            if not self.backbone.has_text:
                return None
            described["train"] = [self.real.class_names, PROMPT]
        if name in _CHOSEN and len(self.training_images) < _MIN_PER_CLASS * self.real.num_classes:
            logger.warning("Too few training images to hold some out: no row '%s'", name)
            return None

        def compute() -> ProbeResult:
            protocol, logits = self._fit(name)
            return self.scored.result(name, self.backbone.name, protocol, logits)

        try:
            return self._result(name, described, compute)
        except NoTextError as error:
            logger.warning("No row '%s': %s", name, error)
            return None

    def baseline(self, kind: str, images_per_class: int, **kwargs: Any) -> DistilledSet:
        """Real training images, chosen through this backbone; see [`select_baseline`]."""
        return select_baseline(
            kind,
            self.backbone,
            self.training_images,
            images_per_class,
            accelerator=self.accelerator,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            **kwargs,
        )

    @functools.cached_property
    def z(self) -> torch.Tensor:
        """Features of the training images, of shape (N, D)."""
        return self._extract(self.training_images).float()

    @functools.cached_property
    def y(self) -> torch.Tensor:
        """Their classes, of shape (N,)."""
        return self.training_images.labels.to(self.z.device)

    @functools.cached_property
    def scored(self) -> EvalFeatures:
        """Features, classes and groups of the images to score on."""
        return EvalFeatures.of(self.real, self._extract(self.real))

    @property
    def training_images(self) -> LabelledImages:
        """All real training images.

        Raises:
            ValueError: If they were not given.
        """
        if self.train is None:
            raise ValueError("References are of all real training images: give Evaluation its `train`.")
        return self.train

    def release(self) -> None:
        """Let go of the training features, which are many, and of the backbone's place on the device."""
        for name in ("z", "y"):
            self.__dict__.pop(name, None)
        self.backbone.to("cpu")

    def _extract(self, images: LabelledImages) -> torch.Tensor:
        self.backbone.to(self.accelerator.device)
        z = extract_features(self.backbone, images, self.accelerator, self.batch_size, self.num_workers)
        return z.to(self.accelerator.device)

    def _fit(self, name: str) -> tuple[str, classifiers.Logits]:
        """How a reference was found, and its logits of shape (1, M, C)."""
        num_classes = self.real.num_classes
        if name == "zero-shot text":
            head = zero_shot_head(self.backbone, self.real.class_names)
            return f"cosine with '{PROMPT}'", lambda z: torch.nn.functional.normalize(z, dim=1)[None] @ head.to(z).T
        z, y = self.z, self.y
        if name == "probe on class means":
            means = classifiers.class_means(z, y, num_classes)
            labels = torch.arange(num_classes, device=y.device)
            sets = means.expand(self.protocol.seeds, *means.shape)
            W, b = train_probes(lambda view: sets, labels, num_classes, self.protocol)
            return self.protocol.training, probe_logits(W, b)
        if name == "nearest class mean":
            how, logits = "no training", classifiers.nearest_class_mean(z, y, num_classes)
        elif name == "k nearest neighbours":
            how, logits = "20 nearest by cosine, temperature 0.07", classifiers.nearest_neighbours(z, y, num_classes)
        else:
            fit, strengths, word = _CHOSEN[name]
            logits, strength = classifiers.chosen(fit, strengths, z, y, num_classes)
            how = f"{word} {strength:g}, chosen on held-out training images"
        return how, lambda z: logits(z)[None]

    def _result(self, name: str, described: dict[str, Any], compute: Callable[[], ProbeResult]) -> ProbeResult:
        if not self.cache:
            return compute()
        key = {
            **described,
            "backbone": self.backbone.fingerprint,
            "real": _identity(self.real),
            "device": self.accelerator.device.type,
        }
        return cached_result(key, compute, self.accelerator).named(name, self.backbone.name)


_CHOSEN = {
    "ridge regression": (classifiers.ridge_regression, classifiers.RIDGES, "ridge"),
    "discriminant analysis": (classifiers.discriminant_analysis, classifiers.SHRINKAGES, "shrinkage"),
    "all real images": (classifiers.logistic_regression, classifiers.WEIGHT_DECAYS, "converged probe, weight decay"),
}


def evaluate_probe(
    backbone: FrozenBackbone | str,
    train_set: DistilledSet | str | Path | Sequence[DistilledSet],
    eval_dataset: LabelledImages | Dataset | IterableDataset,
    *,
    name: str = "distilled",
    protocol: ProbeProtocol | str = "fast",
    views: ViewSettings | None = None,
    accelerator: Accelerator | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> ProbeResult:
    """Accuracy of linear probes that are trained on a small set of images.

    Args:
        backbone ([`FrozenBackbone`] or `str`): What the probe sees through.
        train_set ([`DistilledSet`], `str`, or one [`DistilledSet`] for each seed): What it is trained on.
        eval_dataset ([`LabelledImages`], `datasets.Dataset` or `datasets.IterableDataset`): Real images to score on,
            with the same classes.
        name (`str`, *optional*, defaults to `"distilled"`): What tables call the set.
        protocol ([`ProbeProtocol`] or `str`, *optional*, defaults to `"fast"`): How it is trained.
        views ([`ViewSettings`], *optional*): Views to train on; defaults to those that the set was made with.
        accelerator (`accelerate.Accelerator`, *optional*): Shares out the encoding of the real images.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.

    Raises:
        ValueError: If the classes of the two differ, or there is no image to score on.
    """
    protocol = ProbeProtocol.named(protocol) if isinstance(protocol, str) else protocol
    accelerator = accelerator or Accelerator()
    if isinstance(train_set, (str, Path)):
        train_set = DistilledSet.from_pretrained(train_set)
    sets = [train_set] * protocol.seeds if isinstance(train_set, DistilledSet) else list(train_set)
    backbone = FrozenBackbone.wrap(backbone).to(accelerator.device)
    encoder = StreamEncoder([backbone], accelerator, batch_size, pictures_per_class=0)
    real = align_classes(LabelledImages.wrap(eval_dataset, encoder), sets[0].class_names)
    evaluation = Evaluation(backbone, real, None, protocol, accelerator, batch_size, num_workers)
    return evaluation.probe(name, sets, views or sets[0].views)


def _identity(images: LabelledImages) -> str:
    """What identifies images together with their classes and groups."""
    names = f"{images.image_column} {images.class_names} {images.group_names}"
    digest = hashlib.sha256(f"{images.fingerprint} {names}".encode())
    for numbers in (images.labels, images.groups):
        digest.update(b"" if numbers is None else numbers.numpy().tobytes())
    return digest.hexdigest()
