"""Real images that stay in the set: which ones they are, and what they add to each step beside the learned ones."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..data.labelled_images import LabelledImages
from ..distributed import gather_rows, owned_range
from ..features.coresets import herding_rows, joint_features
from ..features.extraction import FeatureExtractor
from .encoding import encode_views


@dataclass(frozen=True)
class StayingImages:
    """The r real images of each class that stay as they are, in a set of k of which the others are learned.

    They are herding ones: one after the other, so that their mean stays near the class mean. Nothing is encoded before
    it is needed, and nothing at all where r is 0. Each process decodes and encodes its share of them.

    Args:
        args ([`LGMConfig`]): Says how many there are, and how their views are made.
        images ([`LabelledImages`]): The real images they are chosen from.
        backbones (`Sequence[FrozenBackbone]`): What they are chosen through.
        extractor ([`FeatureExtractor`]): Encodes real images; its accelerator connects the processes.
    """

    args: LGMConfig
    images: LabelledImages
    backbones: Sequence[FrozenBackbone]
    extractor: FeatureExtractor

    @property
    def total(self) -> int:
        """C * r."""
        return self.images.num_classes * self.args.real_images_per_class

    @functools.cached_property
    def rows(self) -> torch.Tensor:
        """Which of the real images they are, by class, of shape (C * r,); every process must ask for it."""
        return self._herding(self.args.real_images_per_class).flatten() if self.total else torch.empty(0).long()

    def next_rows(self) -> torch.Tensor:
        """The k - r images of each class that herding takes next, of shape (C * (k - r),); likewise."""
        return self._herding(self.args.images_per_class)[:, self.args.real_images_per_class :].flatten()

    def other_rows(self, count: int) -> torch.Tensor:
        """All of so many real images but these, in their order; likewise."""
        return torch.tensor(sorted(set(range(count)) - set(self.rows.tolist())))

    @property
    def labels(self) -> torch.Tensor:
        """Their one-hot labels, of shape (C * r, C)."""
        num_classes = self.images.num_classes
        classes = torch.arange(num_classes).repeat_interleave(self.args.real_images_per_class)
        return F.one_hot(classes, num_classes).float().to(self.extractor.accelerator.device)

    @torch.no_grad()
    def features(self, backbone: FrozenBackbone, step: int, side: int, chunk_size: int | None) -> torch.Tensor:
        """Features of shape (C * r * K, D) of their random views in one step, which want no gradient; likewise.

        Args:
            backbone ([`FrozenBackbone`]): What they are seen through.
            step (`int`): Decides the views, which are others than the learned images'.
            side (`int`): Of the views, in pixels.
            chunk_size (`int`, *optional*): Images encoded at a time; all of them where not given.
        """
        size = chunk_size or max(1, len(self._own_pixels))
        chunks = zip(self._own_pixels.split(size), torch.tensor(self._owned).split(size), strict=True)
        encode = functools.partial(encode_views, backbone, self.args, step, side, purpose="views of staying images")
        z = [encode(pixels.to(backbone.mean) / 255, ids) for pixels, ids in chunks]
        return gather_rows(self.extractor.accelerator, torch.cat(z), self.total).flatten(0, 1)

    def all_pixels(self, learned: torch.Tensor) -> torch.Tensor:
        """Images of the whole set, by class and these first, of shape (C * k, 3, size, size) with values in [0, 1].

        Every process must ask for it.

        Args:
            learned (`torch.Tensor`): Shape (C * (k - r), 3, size, size), the learned ones.
        """
        if not self.total:
            return learned
        return self._before(gather_rows(self.extractor.accelerator, self._own_pixels, self.total) / 255, learned)

    def all_labels(self, learned: torch.Tensor) -> torch.Tensor:
        """Distributions over classes of the whole set, of shape (C * k, C), from those of the learned images."""
        return self._before(self.labels, learned) if self.total else learned

    def source_index(self) -> list[int | None] | None:
        """The row in the source of each image of the set, `None` for a learned one; `None` where all are learned."""
        if not self.total:
            return None
        learned = torch.full((self.images.num_classes * self.args.learned_per_class,), -1)
        return [row if row >= 0 else None for row in self._before(self.images.rows[self.rows], learned).tolist()]

    @property
    def _owned(self) -> range:
        accelerator = self.extractor.accelerator
        return owned_range(self.total, accelerator.process_index, accelerator.num_processes)

    @functools.cached_property
    def _own_pixels(self) -> torch.Tensor:
        """Those of this process, 8-bit, of shape (m, 3, size, size) on the device."""
        side = max(backbone.preprocessing.synthetic_size for backbone in self.backbones)
        own = self.images.select(self.rows[self._owned.start : self._owned.stop])
        return own.centre_crops(side, resize_ratio=1.0).to(self.extractor.accelerator.device)

    def _before(self, own: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
        """What belongs to these images (C * r, …) and to the learned ones (C * (k - r), …), class by class."""
        parts = [rows.unflatten(0, (self.images.num_classes, -1)) for rows in (own.to(learned.device), learned)]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def _herding(self, count: int) -> torch.Tensor:
        """The first images of each class that herding takes by the features of all backbones, of shape (C, count)."""
        z = joint_features([self.extractor.extract(each, self.images) for each in self.backbones]).float()
        rows = herding_rows(z, self.images.labels, self.images.num_classes, count)
        rows = broadcast(rows.to(self.extractor.accelerator.device)).cpu()  # sums may differ between machines
        return rows.view(self.images.num_classes, count)
