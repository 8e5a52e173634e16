"""What synthetic images begin as: noise, real images, or those of an earlier set."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list

from ..backbones.backbone import FrozenBackbone
from ..backbones.fingerprint import model_fingerprint
from ..config import LGMConfig
from ..data.grey import are_grey
from ..data.labelled_images import LabelledImages
from ..distributed import owned_range
from ..features.coresets import centroid_rows, joint_features, random_rows
from ..features.extraction import FeatureExtractor
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import beginning_of
from .learned import Learned, SoftLabels
from .real_features import shared_clusters
from .real_images import StayingImages
from .synthetic import SyntheticImages, resized

logger = logging.getLogger(__name__)

# Parts of a run at whose beginnings, but the first, images go back towards what they began as.
_FIFTHS = 5


@dataclass(frozen=True)
class Start:
    """What a run begins with. It is loaded and checked before any work.

    Args:
        args ([`LGMConfig`]): The settings.
        images ([`LabelledImages`]): The real images to distil.
        backbones (`Sequence[FrozenBackbone]`): What they are distilled through.
        earlier ([`DistilledSet`], *optional*): The set to go on from.
        autoencoder (*optional*): What draws the images, where latents are learned.
        channels (`int`, *optional*, defaults to 3): Of the images to make: 1 for grey ones.
        given (`dict[str, str]`, *optional*): What files call what is used in place of a setting: a set as `init`, a
            function as `objective`.
    """

    args: LGMConfig
    images: LabelledImages
    backbones: Sequence[FrozenBackbone]
    earlier: DistilledSet | None = None
    autoencoder: Any = None
    channels: int = 3
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        args: LGMConfig,
        images: LabelledImages,
        backbones: Sequence[FrozenBackbone],
        init: DistilledSet | None = None,
        objective: str | None = None,
    ) -> "Start":
        """With the set and the autoencoder that the settings name, or the set and the objective that are given.

        Args:
            args ([`LGMConfig`]): The settings.
            images ([`LabelledImages`]): The real images to distil.
            backbones (`Sequence[FrozenBackbone]`): What they are distilled through.
            init ([`DistilledSet`], *optional*): The set to go on from, in place of `args.init`.
            objective (`str`, *optional*): What files call the objective in place of `args.objective`.

        Raises:
            TypeError: If `init` is something else.
            ValueError: If the set or the autoencoder is not what is needed.
        """
        earlier, given = None, {"objective": objective} if objective else {}
        if init is not None and not isinstance(init, DistilledSet):
            found = type(init).__name__
            raise TypeError(f"Expected as init a DistilledSet, found {found}: names go into LGMConfig(init=…).")
        if init is not None or args.begins_with_set:
            earlier = earlier_set(args.init if init is None else init, images.class_names, args.learned_per_class)
        if init is not None and earlier:
            given["init"] = f"DistilledSet {earlier.fingerprint[:12]}"
        autoencoder = None
        if args.vae:
            from .latents import load_autoencoder  # here, since it loads diffusers

            autoencoder = load_autoencoder(args.vae)
        return cls(args, images, backbones, earlier, autoencoder, resolved_channels(args, images), given)

    @property
    def size(self) -> int:
        """Side of the images in pixels: what the largest input asks for."""
        return max(backbone.preprocessing.synthetic_size for backbone in self.backbones)

    def new(self, accelerator: Accelerator) -> Learned:
        """What one process learns: its images as noise, sorted by class, one-hot labels, and a new optimizer."""
        labels = torch.arange(self.images.num_classes).repeat_interleave(self.args.learned_per_class)
        owned = owned_range(len(labels), accelerator.process_index, accelerator.num_processes)
        size, seed = self.size, self.args.seed
        if self.autoencoder is not None:
            from .latents import LatentImages

            images: SyntheticImages = LatentImages(owned, size, seed, self.autoencoder)
        else:
            sides = [size] if self.args.parameterization == "pixel" else None
            images = SyntheticImages(owned, size, seed, sides, self.channels)
        mean, are_learned = self.backbones[0].mean, self.args.label_learning_rate > 0
        soft_labels = SoftLabels(labels[owned.start : owned.stop], self.images.num_classes, are_learned)
        return Learned(images.to(mean), soft_labels.to(mean.device), self.args, owned, len(labels), accelerator)

    def apply(self, learned: Learned, pixels: torch.Tensor | None) -> None:
        """Let images and labels begin as real ones or an earlier set's, where that is asked for; Adam starts anew."""
        if pixels is not None:
            learned.images.start_from(pixels)
        if self.earlier and learned.soft_labels.are_learned:
            learned.soft_labels.start_from(self.earlier.targets_as(self.images.class_names)[learned.rows])
        learned.restart_optimizer()

    def pixels(self, rows: slice, staying: StayingImages) -> torch.Tensor | None:
        """What some of the images begin as, of shape (m, 3, side, side) with values in [0, 1]; `None` for noise.

        Args:
            rows (`slice`): Which of the learned images.
            staying ([`StayingImages`]): The real images of the set, which no learned one begins as.
        """
        if self.earlier:
            return resized(self.earlier.pixels()[rows], self.size)
        return None if self.args.init == "noise" else self._real_pixels(rows, staying)

    def returns_at(self, step: int) -> bool:
        """Whether the images go back towards what they began as, before this step: at every fifth of the run."""
        return self.args.init_weight > 0 and step in {self.args.max_steps * i // _FIFTHS for i in range(1, _FIFTHS)}

    @property
    def beginning(self) -> str:
        """What the images began as: `noise`, `real`, or `unknown` where an earlier set does not say."""
        if self.earlier:
            return beginning_of(self.earlier.config, self.earlier.has_real_images)
        return "noise" if self.args.init == "noise" else "real"

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as it goes into files, with what was found where it was left open."""
        return {**self.args.own_settings(), "channels": self.channels, **self.given}

    def changed_settings(self) -> list[str]:
        """Which of these are not at their defaults."""
        return list(dict.fromkeys([*self.args.changed_settings(), *self.given]))

    def identity(self) -> dict[str, Any]:
        """Everything that has to be the same for a resumed run to give the same bits."""
        backbones = " ".join(backbone.fingerprint for backbone in self.backbones)
        labels = hashlib.sha256(self.images.labels.numpy().tobytes()).hexdigest()
        data = {"images": self.images.fingerprint, "labels": labels, "class_names": self.images.class_names}
        if self.earlier:
            data["init_images"] = self.earlier.fingerprint
        is_real = not self.earlier and self.args.init in ("centroid", "random")
        if self.images.is_streamed and is_real:  # they are of those that are kept
            kept = self.images.with_images().rows.numpy().tobytes()
            data["kept_images"] = hashlib.sha256(kept).hexdigest()
        if self.autoencoder is not None:
            from .latents import own_config

            data["autoencoder"] = model_fingerprint(self.autoencoder, own_config(self.autoencoder))
        return {**self.settings(), "backbone": backbones, **data}

    def _real_pixels(self, own: slice, staying: StayingImages) -> torch.Tensor:
        """Random or central real images, whole squares, of shape (m, 3, size, size) with values in [0, 1]."""
        images, per_class = self.images.with_images(), self.args.learned_per_class
        fewest = int(torch.bincount(images.labels, minlength=images.num_classes).min())
        if self.images.is_streamed and fewest < per_class:
            raise ValueError(
                f"init='{self.args.init}': of a class of the stream {fewest} image(s) are kept, and {per_class} are "
                "needed: give the StreamEncoder a larger kept_per_class, or init='noise'."
            )
        if self.args.init == "random":
            others = staying.other_rows(len(images))
            rows = others[random_rows(images.labels[others], images.num_classes, per_class, self.args.seed)]
        elif staying.total:
            rows = staying.next_rows()
        else:
            rows = self._central_rows(images, staying.extractor)
        return images.select(rows[own]).centre_crops(self.size, resize_ratio=1.0) / 255

    def _central_rows(self, images: LabelledImages, extractor: FeatureExtractor) -> torch.Tensor:
        """The real images nearest to their class mean; to those of their clusters, where images stand for these."""
        z, args = [extractor.extract(backbone, images) for backbone in self.backbones], self.args
        groups, count, each = images.labels, images.num_classes, args.images_per_class
        cluster = None if images.is_streamed else shared_clusters(self.backbones[0], images, args, extractor)
        if cluster is not None:
            groups, count, each = cluster.cpu(), count * each, 1
        rows = centroid_rows(joint_features(z), groups, count, each)
        return broadcast(rows.to(extractor.accelerator.device)).cpu()  # sums may differ between machines


def resolved_channels(args: LGMConfig, images: LabelledImages) -> int:
    """How many channels the images to make have; every process must ask, and each is told what the first one found.

    Args:
        args ([`LGMConfig`]): The settings.
        images ([`LabelledImages`]): The real images to distil.

    Raises:
        UnreadableImage: If a real image that is looked at can't be decoded.
    """
    if args.channels != "auto":
        return args.channels
    if args.parameterization == "latent":
        return 3
    [grey] = broadcast_object_list([are_grey(images)])
    if grey:
        logger.info("The real images are grey, and so are those to make: channels=3 makes coloured ones")
    return 1 if grey else 3


def earlier_set(init: str | DistilledSet, class_names: list[str], images_per_class: int) -> DistilledSet:
    """The first images of each class of an earlier set, by class; learned ones before real ones.

    Args:
        init (`str` or [`DistilledSet`]): The set, its folder or its Hub id.
        class_names (`list[str]`): The classes to distil, in their order.
        images_per_class (`int`): How many are needed of each.

    Raises:
        ValueError: If it has other classes, fewer images, or none.
    """
    earlier = init if isinstance(init, DistilledSet) else DistilledSet.from_pretrained(init)
    name = "the DistilledSet" if isinstance(init, DistilledSet) else f"'{init}'"
    y = earlier.labels_as(class_names, f"init: {name} has")
    fewest = int(torch.bincount(y, minlength=len(class_names)).min())
    if fewest < images_per_class:
        raise ValueError(
            f"init: {name} has {fewest} image(s) of a class, and {images_per_class} of each are to be distilled: "
            "give fewer as images_per_class, or another set."
        )
    order = earlier.real_rows.int().argsort(stable=True)  # what was learned before is what is learned now
    rows = torch.cat([order[y[order] == label][:images_per_class] for label in range(len(class_names))])
    earlier = replace(earlier, dataset=earlier.dataset.select(rows.tolist()))
    if not earlier.has_images:
        raise ValueError(
            f"init: {name} has rows of real images and not the images themselves: give init='centroid' or 'random', "
            "or a set with images."
        )
    return earlier
