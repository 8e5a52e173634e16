"""The real side of each step: all real features, cached, or a batch of random views as in the paper."""

import logging
from collections.abc import Iterator, Sequence
from itertools import repeat

import PIL
import torch
from accelerate.utils import broadcast
from torch.utils.data import DataLoader, Dataset

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..data.augmentation import random_views
from ..data.images import to_tensor
from ..data.labelled_images import LabelledImages
from ..data.threads import in_threads
from ..distributed import gather_rows, owned_range
from ..features.cache import check_finite
from ..features.coresets import class_clusters
from ..features.extraction import FeatureExtractor
from ..randomness import seeded_generator
from .objectives import LabelledFeatures, balanced_weights, uniform_weights

logger = logging.getLogger(__name__)

# Rows of layers that are summed at a time.
_SUMMED = 65_536


def real_features(
    backbones: Sequence[FrozenBackbone],
    images: LabelledImages,
    args: LGMConfig,
    extractor: FeatureExtractor,
    first_step: int,
) -> list[Iterator[Sequence[LabelledFeatures]]]:
    """For each backbone, the real features of every step that it is drawn for, from `first_step` to the last.

    They are those of each of its feature spaces: its features, and of its layers.

    Args:
        backbones (`Sequence[FrozenBackbone]`): On the accelerator's device.
        images ([`LabelledImages`]): The real images.
        args ([`LGMConfig`]): Says whether they are cached or online.
        extractor ([`FeatureExtractor`]): Encodes them.
        first_step (`int`): The first that is still to do.
    """
    if args.real_features == "online":
        steps: list[list[int]] = [[] for _ in backbones]
        for step in range(first_step, args.max_steps):
            for number in drawn_backbones(len(backbones), args, step):
                steps[number].append(step)
        return [
            OnlineFeatures(each, images, args, extractor).batches(of_it)
            for each, of_it in zip(backbones, steps, strict=True)
        ]
    cluster = shared_clusters(backbones[0], images, args, extractor)
    return [repeat(_cached(each, images, args, extractor, cluster)) for each in backbones]


def drawn_backbones(count: int, args: LGMConfig, step: int) -> list[int]:
    """The numbers of those backbones that a step is made through, in their order: all, or as many as are asked for."""
    if not args.backbones_per_step or args.backbones_per_step >= count:
        return list(range(count))
    drawn = torch.randperm(count, generator=seeded_generator(args.seed, "backbones", step))
    return sorted(drawn[: args.backbones_per_step].tolist())


def _cached(
    backbone: FrozenBackbone,
    images: LabelledImages,
    args: LGMConfig,
    extractor: FeatureExtractor,
    cluster: torch.Tensor | None,
) -> list[LabelledFeatures]:
    """All real features through one backbone, with the clusters that all backbones share, and its layers' means."""
    z = _placed(extractor.extract(backbone, images), extractor.accelerator.device)
    y, cluster = images.labels.to(z.device), None if cluster is None else cluster.to(z.device)
    weight = balanced_weights(y if cluster is None else cluster) if args.balance_classes else uniform_weights(y)
    logger.debug("%d real features of size %d on %s, all of them in every step", *z.shape, z.device)
    real = LabelledFeatures(z, y, weight, cluster)
    if not backbone.layers:
        return [real]
    spaces = extractor.extract(backbone, images, with_layers=True).split(backbone.widths, dim=1)
    return [real, *(_means(layer, real) for layer in spaces[1:])]  # all that stays of them


def _means(z: torch.Tensor, real: LabelledFeatures) -> LabelledFeatures:
    """A layer's mean answer to each class, or each cluster of real images, which is all that is matched of it.

    Summed on the CPU, where all processes and devices find the same bits.
    """
    group, weight = (real.y if real.cluster is None else real.cluster).cpu(), real.weight.cpu().double()
    count = int(group.max()) + 1
    total, share = torch.zeros(count, z.shape[1], dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for rows in torch.arange(len(z)).split(_SUMMED):
        total.index_add_(0, group[rows], z[rows].double() * weight[rows, None])
        share.index_add_(0, group[rows], weight[rows])
    label = torch.arange(count, device=real.z.device)
    means = (total / share[:, None]).to(label.device, torch.promote_types(z.dtype, torch.float32))
    of_class = label * (int(real.y.max()) + 1) // count  # there are as many clusters of each class
    return LabelledFeatures(means, of_class, share.to(real.weight), None if real.cluster is None else label)


def shared_clusters(
    backbone: FrozenBackbone, images: LabelledImages, args: LGMConfig, extractor: FeatureExtractor
) -> torch.Tensor | None:
    """What the images of a class stand for, by the features of one backbone, for all; `None` without clusters.

    Every process must ask, and is told what the first one found.
    """
    if not args.has_clusters:
        return None
    z = extractor.extract(backbone, images)
    cluster = class_clusters(z, images.labels, images.num_classes, args.images_per_class, args.seed)
    return broadcast(cluster.to(extractor.accelerator.device))  # k-means may differ in its last bits


def _placed(features: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Features on a device, unless they would take more than half of a GPU's free memory: then they come in blocks."""
    if device.type == "cuda" and features.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return features
    return features.to(device)


class OnlineFeatures:
    """The paper's real side: for each step a batch of real images, one random view of each.

    Real images are resized (bilinear) and randomly cropped to the side of the synthetic ones, then viewed like them.
    Every image is used once per epoch, and the last, incomplete batch is dropped.

    Args:
        backbone ([`FrozenBackbone`]): On the accelerator's device.
        images ([`LabelledImages`]): N images.
        args ([`LGMConfig`]): Its views, its seed, and the size of a batch: as many as synthetic views, at most N.
        extractor ([`FeatureExtractor`]): Says how images are decoded; processes share each batch.
    """

    def __init__(
        self, backbone: FrozenBackbone, images: LabelledImages, args: LGMConfig, extractor: FeatureExtractor
    ) -> None:
        self.backbone, self.images, self.extractor = backbone, images, extractor
        self.views, self.seed = args.views, args.seed
        self.batch_size = min(images.num_classes * args.images_per_class * args.views_per_step, len(images))
        self._order = (-1, torch.empty(0))  # of one epoch

    def rows(self, step: int) -> torch.Tensor:
        """The rows of one step's batch, of shape (batch_size,)."""
        epoch, batch = divmod(step, len(self.images) // self.batch_size)
        if self._order[0] != epoch:
            generator = seeded_generator(self.seed, "order", epoch)
            self._order = epoch, torch.randperm(len(self.images), generator=generator)
        return self._order[1][batch * self.batch_size : (batch + 1) * self.batch_size]

    @torch.no_grad()
    def batches(self, steps: Sequence[int]) -> Iterator[list[LabelledFeatures]]:
        """The real features of each of these steps, in each feature space."""
        accelerator = self.extractor.accelerator
        mine = owned_range(self.batch_size, accelerator.process_index, accelerator.num_processes)
        pixels = _RandomCrops(self.images, self.backbone, self.seed)
        keys = ([(step, row) for row in self.rows(step)[mine.start : mine.stop].tolist()] for step in steps)
        loader = DataLoader(pixels, batch_sampler=keys, num_workers=self.extractor.decoding_workers)
        for step, batch in zip(steps, loader, strict=True):
            rows = self.rows(step)
            batch = batch.to(self.backbone.mean.device).to(self.backbone.mean.dtype) / 255
            own = rows[mine.start : mine.stop].tolist()
            views = random_views(batch, own, 1, self.backbone.image_size, self.views, self.seed, step, "real views")
            z = gather_rows(accelerator, self.backbone.forward_with_layers(views), self.batch_size)
            self._check(z, rows, step)
            y = self.images.labels[rows].to(z.device)
            yield [LabelledFeatures(space, y, uniform_weights(y)) for space in z.split(self.backbone.widths, dim=1)]

    def _check(self, z: torch.Tensor, rows: torch.Tensor, step: int) -> None:
        """Look at the features of a step, where the device need not be waited for; else `LossWatch` looks later."""
        if z.device.type == "cpu":
            check_finite(z, self.images.rows[rows], self.backbone)


class _RandomCrops(Dataset):
    """A random crop of the synthetic images' side out of the resized image in (step, row)."""

    def __init__(self, images: LabelledImages, backbone: FrozenBackbone, seed: int) -> None:
        self.images = images
        self.size = backbone.preprocessing.synthetic_size
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        image = self.images.image(key[1])
        width, height = (self.size * side // min(image.size) for side in image.size)
        x, y = torch.rand(2, generator=seeded_generator(self.seed, "real crop", *key)).tolist()
        left, top = int(x * (width - self.size + 1)), int(y * (height - self.size + 1))
        image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
        return to_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[torch.Tensor]:
        """What a loader asks for where it wants a batch."""
        return in_threads(self.__getitem__, keys)
