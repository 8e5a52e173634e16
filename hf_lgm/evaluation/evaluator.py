"""Everything that is scored through one backbone: probes on small sets, and what all real images give."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..backbones.backbone import FrozenBackbone
from ..data.labelled_images import LabelledImages
from ..features.cache import assets_folder
from ..features.extraction import FeatureExtractor
from ..features.streaming import StreamEncoder
from ..publishing.distilled_set import DistilledSet
from ..publishing.files import write_json
from ..publishing.provenance import library_versions
from ..publishing.results import ProbeResult
from ..settings import ProbeProtocol, ViewSettings
from ..whole_files import remove_abandoned
from .baselines import select_baseline
from .classifiers import Logits
from .probe import ViewFeatures, probe_logits, train_probes
from .references import PROMPT, REFERENCES, NoTextError, RealImages
from .scoring import EvalFeatures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluator:
    """Scores training sets and references through one backbone. Real images are encoded once, results are kept.

    Args:
        backbone ([`FrozenBackbone`]): What is seen through.
        eval_images ([`LabelledImages`]): What is scored on; nothing is chosen by it.
        train_images ([`LabelledImages`], *optional*): All real training images, for the references.
        protocol ([`ProbeProtocol`], *optional*): How probes are trained.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        cache (`bool`, *optional*, defaults to `False`): Keep results under the Hugging Face assets cache, and take
            from there what was found before, for the same pixels, weights and protocol.

    Raises:
        ValueError: If the two number their classes differently.
    """

    backbone: FrozenBackbone
    eval_images: LabelledImages
    train_images: LabelledImages | None = None
    protocol: ProbeProtocol = field(default_factory=ProbeProtocol)
    extractor: FeatureExtractor = field(default_factory=FeatureExtractor)
    cache: bool = False

    def __post_init__(self) -> None:
        if self.train_images is not None and self.train_images.class_names != self.eval_images.class_names:
            raise ValueError("The training images and those to score on number their classes differently.")

    def probe(self, name: str, sets: Sequence[DistilledSet], views: ViewSettings) -> ProbeResult:
        """Accuracy of linear probes that are trained on small sets, one set per seed, on views of the given kind."""
        class_names = self.eval_images.class_names
        y = sets[0].labels_as(class_names)
        if any(not torch.equal(images.labels_as(class_names), y) for images in sets):
            raise ValueError(f"'{name}': sets for several seeds need the same classes in the same order.")
        views = views.without_noise()

        def compute() -> ProbeResult:
            return self.scored.result(name, self.backbone.name, how, probe_logits(*self.train_probes(sets, views)))

        low, high = views.crop_scale
        beyond = "" if views.bounded_crops else " and beyond the image"
        how = f"{self.protocol.description}, crops of {low:g} to {high:g}{beyond}{', flips' if views.flip else ''}"
        described = {"sets": [images.fingerprint for images in sets], "views": asdict(views)}
        return self._result(name, {**described, "protocol": asdict(self.protocol)}, compute)

    def train_probes(self, sets: Sequence[DistilledSet], views: ViewSettings) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (seeds, C, D) and biases (seeds, C) of probes trained on small sets, one set per seed."""
        class_names, device = self.eval_images.class_names, self.extractor.accelerator.device
        self.backbone.to(device)
        features = ViewFeatures(self.backbone, sets, views, self.extractor.batch_size)
        targets = sets[0].labels_as(class_names)
        if any(images.has_soft_labels for images in sets):
            targets = torch.stack([images.targets_as(class_names) for images in sets])
        return train_probes(features, targets.to(device), len(class_names), self.protocol)

    def fit(self, name: str) -> tuple[str, Logits]:
        """How one of `REFERENCES` is found, and its logits of shape (seeds, M, C) of features (M, D)."""
        real = RealImages(self.backbone, self.eval_images.class_names, self.protocol, lambda: self.training_features)
        return REFERENCES[name].fit(real)

    def reference(self, name: str) -> ProbeResult | None:
        """What one of `REFERENCES` scores; `None` where it has no meaning for this backbone.

        Raises:
            ValueError: If there is no such reference, or there are no training images.
        """
        if name not in REFERENCES:
            raise ValueError(f"A reference is one of {', '.join(REFERENCES)}; found '{name}'.")
        wanted, class_names = REFERENCES[name], self.eval_images.class_names
        if wanted.needs_text and not self.backbone.has_text:
            return None
        images = self.eval_images if wanted.needs_text else self.training_images  # for the names of the classes alone
        if len(images) < wanted.min_per_class * images.num_classes:
            logger.warning("Too few training images to hold some out: no row '%s'", name)
            return None
        described = {
            "reference": name,
            "train": [class_names, PROMPT] if wanted.needs_text else _identity(images),
            "protocol": asdict(self.protocol) if wanted.needs_protocol else None,
        }

        def compute() -> ProbeResult:
            return self.scored.result(name, self.backbone.name, *self.fit(name))

        try:
            return self._result(name, described, compute)
        except NoTextError as error:
            logger.warning("No row '%s': %s", name, error)
            return None

    def baseline(self, kind: str, images_per_class: int, **kwargs: Any) -> DistilledSet:
        """Real training images, chosen through this backbone; see [`select_baseline`]."""
        kwargs |= {"extractor": self.extractor}
        return select_baseline(kind, self.backbone, self.training_images, images_per_class, **kwargs)

    @functools.cached_property
    def training_features(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Features (N, D) of the training images, their classes (N,), and the number of classes."""
        images, device = self.training_images, self.extractor.accelerator.device
        z = self.extractor.extract(self.backbone, images).to(device).float()
        return z, images.labels.to(device), images.num_classes

    @functools.cached_property
    def scored(self) -> EvalFeatures:
        """Features, classes and groups of the images to score on."""
        z = self.extractor.extract(self.backbone, self.eval_images)
        return EvalFeatures.of(self.eval_images, z.to(self.extractor.accelerator.device))

    @property
    def training_images(self) -> LabelledImages:
        """All real training images.

        Raises:
            ValueError: If they were not given.
        """
        if self.train_images is None:
            raise ValueError("References are of all real training images: give the Evaluator its `train_images`.")
        return self.train_images

    def release(self) -> None:
        """Let go of the training features, which are many, and of the backbone's place on the device."""
        self.__dict__.pop("training_features", None)
        self.backbone.to("cpu")

    def _result(self, name: str, described: dict[str, Any], compute: Callable[[], ProbeResult]) -> ProbeResult:
        accelerator = self.extractor.accelerator

        def on_device() -> ProbeResult:
            self.backbone.to(accelerator.device)
            return compute()

        if not self.cache:
            return on_device()
        key = {
            **described,
            "backbone": self.backbone.fingerprint,
            "eval": _identity(self.eval_images),
            "device": accelerator.device.type,
        }
        return cached_result(key, on_device, accelerator).named(name, self.backbone.name)


def evaluate_probe(
    backbone: Any,
    train_set: Any,
    eval_dataset: Any,
    *,
    name: str = "distilled",
    protocol: ProbeProtocol | str = "fast",
    views: ViewSettings | None = None,
    extractor: FeatureExtractor | None = None,
    **loading: Any,
) -> ProbeResult:
    """Accuracy of linear probes that are trained on a small set of images.

    Args:
        backbone ([`FrozenBackbone`], `str` or `torch.nn.Module`): What the probe sees through: also an id, a folder,
            or a live model of Transformers or timm.
        train_set ([`DistilledSet`], `str`, `datasets.Dataset`, or a list with one for each seed): What it is trained
            on: a set, its folder or Hub id, or a plain dataset of a few images.
        eval_dataset ([`LabelledImages`], `datasets.Dataset` or `datasets.IterableDataset`): Real images to score on,
            with the same classes. Also what [`LabelledImages.wrap`] takes besides: lists of pairs `(image, label)`,
            pairs of arrays, torch datasets.
        name (`str`, *optional*, defaults to `"distilled"`): What tables call the set.
        protocol ([`ProbeProtocol`] or `str`, *optional*, defaults to `"fast"`): How it is trained.
        views ([`ViewSettings`], *optional*): Views to train on; defaults to those that the set was made with.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ValueError: If the classes of the two differ, or there is no image to score on.
    """
    protocol = ProbeProtocol.named(protocol) if isinstance(protocol, str) else protocol
    extractor = FeatureExtractor.given(extractor, loading)
    if isinstance(train_set, (list, tuple)):
        sets = [DistilledSet.wrap(each) for each in train_set]
    else:
        sets = [DistilledSet.wrap(train_set)] * protocol.seeds
    backbone = FrozenBackbone.wrap(backbone)
    encoder = StreamEncoder([backbone], extractor.accelerator, extractor.batch_size)
    eval_images = LabelledImages.wrap(eval_dataset, encoder, keep_images=False).aligned(sets[0].class_names)
    evaluator = Evaluator(backbone, eval_images, protocol=protocol, extractor=extractor)
    return evaluator.probe(name, sets, views or sets[0].views)


def _identity(images: LabelledImages) -> str:
    """What identifies images together with their classes and groups."""
    names = f"{images.image_column} {images.class_names} {images.group_names}"
    digest = hashlib.sha256(f"{images.fingerprint} {names}".encode())
    for numbers in (images.labels, images.groups):
        digest.update(b"" if numbers is None else numbers.numpy().tobytes())
    return digest.hexdigest()


def cached_result(key: dict[str, Any], compute: Callable[[], ProbeResult], accelerator: Accelerator) -> ProbeResult:
    """The result that was kept under this key, or else the one that `compute` gives, which is kept.

    Args:
        key (`dict`): All that decides the result; the versions of the libraries and our own code are added.
        compute (`Callable`): May have all processes work together: all of them call it, or none.
        accelerator (`accelerate.Accelerator`): The first process reads and writes.
    """
    text = json.dumps({**key, "versions": library_versions(), "code": _code()}, sort_keys=True)
    path = assets_folder("results") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    [found] = broadcast_object_list([_read(path) if accelerator.is_main_process else None])
    if found is not None:
        return found
    result = compute()
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        write_json(path, {"sha256": _digest(result.to_dict()), **result.to_dict()})
    return result


@functools.cache
def _code() -> str:
    """A digest of this package: a number that was found by other code is not found again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> ProbeResult | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("sha256") != _digest(found):
            raise ValueError("it is not as it was written")
        return ProbeResult(**found)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        logger.warning("Computing the damaged result %s again (%s)", path, error)
        return None


def _digest(result: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
