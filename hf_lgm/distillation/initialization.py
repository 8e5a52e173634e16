"""What synthetic images begin as: noise, real images, or those of an earlier set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator

from ..backbones.backbone import FrozenBackbone
from ..backbones.fingerprint import model_fingerprint
from ..config import LGMConfig
from ..data.labelled_images import LabelledImages
from ..distributed import owned_range
from ..features.coresets import centroid_rows, random_rows
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import beginning_of
from .learned import Learned, SoftLabels
from .real_images import StayingImages
from .synthetic import SyntheticImages


@dataclass(frozen=True)
class Start:
    """What a run begins with. It is loaded and checked before any work.

    Args:
        args ([`LGMConfig`]): The settings.
        images ([`LabelledImages`]): The real images to distil.
        backbones (`Sequence[FrozenBackbone]`): What they are distilled through.
        earlier ([`DistilledSet`], *optional*): The set to go on from.
        autoencoder (*optional*): What draws the images, where latents are learned.
    """

    args: LGMConfig
    images: LabelledImages
    backbones: Sequence[FrozenBackbone]
    earlier: DistilledSet | None = None
    autoencoder: Any = None

    @classmethod
    def load(cls, args: LGMConfig, images: LabelledImages, backbones: Sequence[FrozenBackbone]) -> "Start":
        """With the set and the autoencoder that the settings name.

        Raises:
            ValueError: If either is not what is needed.
        """
        earlier = earlier_set(args.init, images.class_names, args.learned_per_class) if args.begins_with_set else None
        autoencoder = None
        if args.vae:
            from .latents import load_autoencoder  # here, since it loads diffusers

            autoencoder = load_autoencoder(args.vae)
        return cls(args, images, backbones, earlier, autoencoder)

    def new(self, accelerator: Accelerator) -> Learned:
        """What one process learns: its images as noise, sorted by class, one-hot labels, and a new optimizer."""
        labels = torch.arange(self.images.num_classes).repeat_interleave(self.args.learned_per_class)
        owned = owned_range(len(labels), accelerator.process_index, accelerator.num_processes)
        size, seed = max(backbone.preprocessing.synthetic_size for backbone in self.backbones), self.args.seed
        if self.autoencoder is not None:
            from .latents import LatentImages

            images: SyntheticImages = LatentImages(owned, size, seed, self.autoencoder)
        else:
            images = SyntheticImages(owned, size, seed, [size] if self.args.parameterization == "pixel" else None)
        mean, are_learned = self.backbones[0].mean, self.args.label_learning_rate > 0
        soft_labels = SoftLabels(labels[owned.start : owned.stop], self.images.num_classes, are_learned)
        return Learned(images.to(mean), soft_labels.to(mean.device), self.args, owned, len(labels), accelerator)

    def apply(self, learned: Learned, staying: StayingImages) -> None:
        """Let images and labels begin as real ones or an earlier set's, where that is asked for; Adam starts anew.

        Args:
            learned ([`Learned`]): What begins.
            staying ([`StayingImages`]): The real images of the set, which no learned one begins as.
        """
        if self.earlier:
            learned.images.start_from(self.earlier.pixels()[learned.rows])
            if learned.soft_labels.are_learned:
                learned.soft_labels.start_from(self.earlier.targets_as(self.images.class_names)[learned.rows])
        elif self.args.init != "noise":
            learned.images.start_from(self._real_pixels(learned.rows, staying))
        learned.restart_optimizer()

    @property
    def beginning(self) -> str:
        """What the images began as: `noise`, `real`, or `unknown` where an earlier set does not say."""
        if self.earlier:
            return beginning_of(self.earlier.config, self.earlier.has_real_images)
        return "noise" if self.args.init == "noise" else "real"

    def identity(self) -> dict[str, Any]:
        """Everything that has to be the same for a resumed run to give the same bits."""
        backbones = " ".join(backbone.fingerprint for backbone in self.backbones)
        labels = hashlib.sha256(self.images.labels.numpy().tobytes()).hexdigest()
        data = {"images": self.images.fingerprint, "labels": labels, "class_names": self.images.class_names}
        if self.earlier:
            data["init_images"] = self.earlier.fingerprint
        if self.autoencoder is not None:
            from .latents import own_config

            data["autoencoder"] = model_fingerprint(self.autoencoder, own_config(self.autoencoder))
        return {**self.args.own_settings(), "backbone": backbones, **data}

    def _real_pixels(self, own: slice, staying: StayingImages) -> torch.Tensor:
        """Random or central real images, whole squares, of shape (m, 3, size, size) with values in [0, 1]."""
        images, first, per_class = self.images, self.backbones[0], self.args.learned_per_class
        if self.args.init == "random":
            others = staying.other_rows()
            rows = others[random_rows(images.labels[others], images.num_classes, per_class, self.args.seed)]
        elif staying.total:
            rows = staying.next_rows()
        else:
            z = staying.extractor.extract(first, images)
            rows = centroid_rows(z, images.labels, images.num_classes, per_class)
        return images.select(rows[own]).centre_crops(first.preprocessing.synthetic_size, resize_ratio=1.0) / 255


def earlier_set(name: str, class_names: list[str], images_per_class: int) -> DistilledSet:
    """The first images of each class of an earlier set, by class; learned ones before real ones.

    Args:
        name (`str`): Its folder or Hub id.
        class_names (`list[str]`): The classes to distil, in their order.
        images_per_class (`int`): How many are needed of each.

    Raises:
        ValueError: If it has other classes, fewer images, or none.
    """
    earlier = DistilledSet.from_pretrained(name)
    y = earlier.labels_as(class_names, f"init: '{name}' has")
    fewest = int(torch.bincount(y, minlength=len(class_names)).min())
    if fewest < images_per_class:
        raise ValueError(
            f"init: '{name}' has {fewest} image(s) of a class, and {images_per_class} of each are to be distilled: "
            "give fewer as images_per_class, or another set."
        )
    order = earlier.real_rows.int().argsort(stable=True)  # what was learned before is what is learned now
    rows = torch.cat([order[y[order] == label][:images_per_class] for label in range(len(class_names))])
    earlier = replace(earlier, dataset=earlier.dataset.select(rows.tolist()))
    if not earlier.has_images:
        raise ValueError(
            f"init: '{name}' has rows of real images and not the images themselves: give init='centroid' or 'random', "
            "or a set with images."
        )
    return earlier
