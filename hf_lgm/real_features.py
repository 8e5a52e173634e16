"""The real side of each step: all real features, cached, or a batch of random views as in the paper."""

import logging
from collections.abc import Iterator
from itertools import repeat

import PIL
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from sklearn.cluster import KMeans
from torch.utils.data import DataLoader, Dataset

from .augmentation import ViewSettings, random_views
from .backbone import FrozenBackbone
from .config import LGMConfig
from .data import LabelledImages, indices_by_class
from .features import decoding_workers, extract_features
from .objectives import LabelledFeatures, balanced_weights, uniform_weights
from .parallel import gather_rows, owned_range
from .preprocessing import to_tensor
from .randomness import seeded_generator

logger = logging.getLogger(__name__)


def cached_features(
    backbone: FrozenBackbone, images: LabelledImages, args: LGMConfig, accelerator: Accelerator
) -> torch.Tensor:
    """Features of the centre views, of shape (N, D) on the CPU; see [`extract_features`]."""
    return extract_features(
        backbone, images, accelerator, args.per_device_eval_batch_size, args.dataloader_num_workers
    )


def real_features(
    backbone: FrozenBackbone,
    images: LabelledImages,
    args: LGMConfig,
    accelerator: Accelerator,
    first_step: int,
    part: torch.Tensor | None = None,
) -> Iterator[LabelledFeatures]:
    """The real features of every step from `first_step` to the last, through one backbone.

    Args:
        backbone ([`FrozenBackbone`]): On the accelerator's device.
        images ([`LabelledImages`]): The real images.
        args ([`LGMConfig`]): Says which of the two.
        accelerator (`accelerate.Accelerator`): Shares out the encoding.
        first_step (`int`): The first that is still to do.
        part (`torch.Tensor`, *optional*): Shape (N,), from [`shared_parts`]: the same for all backbones.
    """
    if args.real_features == "online":
        batch_size = images.num_classes * args.images_per_class * args.views_per_step
        workers = args.dataloader_num_workers
        online = OnlineFeatures(backbone, images, batch_size, args.views, args.seed, accelerator, workers)
        return online.batches(first_step, args.max_steps)
    z = _placed(cached_features(backbone, images, args, accelerator), accelerator.device)
    y, part = images.labels.to(z.device), None if part is None else part.to(z.device)
    counted = y if part is None else part
    weight = balanced_weights(counted) if args.balance_classes else uniform_weights(y)
    logger.info("%d real features of size %d on %s, all of them in every step", *z.shape, z.device)
    return repeat(LabelledFeatures(z, y, weight, part))


def shared_parts(
    backbone: FrozenBackbone, images: LabelledImages, args: LGMConfig, accelerator: Accelerator
) -> torch.Tensor | None:
    """What the images of a class stand for, by the features of one backbone, for all; none where nothing is said."""
    if not args.has_parts:
        return None
    z = cached_features(backbone, images, args, accelerator)
    part = class_parts(z, images.labels, images.num_classes, args.images_per_class, args.seed)
    return broadcast(part.to(accelerator.device))  # k-means may differ in its last bits


def class_parts(z: torch.Tensor, y: torch.Tensor, num_classes: int, parts: int, seed: int) -> torch.Tensor:
    """The cluster of its class that each sample is in, numbered `class * parts + cluster`, of shape (N,).

    By k-means within each class, so that several images of a class have different things to stand for.

    Args:
        z (`torch.Tensor`): Shape (N, D).
        y (`torch.Tensor`): Shape (N,); each class has at least `parts` samples.
        num_classes (`int`): C.
        parts (`int`): Clusters of each class.
        seed (`int`): Of k-means.
    """
    part = torch.empty(len(y), dtype=torch.long)
    for label, of_class in enumerate(indices_by_class(y.cpu(), num_classes)):
        found = KMeans(parts, n_init=3, random_state=seed).fit_predict(z[of_class].float().cpu().numpy())
        part[of_class] = label * parts + torch.from_numpy(found).long()
    return part.to(y.device)


def _placed(features: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Features on a device, unless they would take more than half of a GPU's free memory: then they come in blocks."""
    if device.type == "cuda" and features.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return features
    return features.to(device)


class OnlineFeatures:
    """The paper's real side: for each step a batch of real images, one random view of each.

    Real images are resized and randomly cropped to the side of the synthetic ones, then viewed like them. Every image
    is used once per epoch, and the last, incomplete batch is dropped.

    Args:
        backbone ([`FrozenBackbone`]): On the accelerator's device.
        images ([`LabelledImages`]): N images.
        batch_size (`int`): Images per step; at most N.
        views ([`ViewSettings`]): How views are made.
        seed (`int`): Decides the order and the views.
        accelerator (`accelerate.Accelerator`): Processes share each batch.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        images: LabelledImages,
        batch_size: int,
        views: ViewSettings,
        seed: int,
        accelerator: Accelerator,
        num_workers: int = 0,
    ) -> None:
        self.backbone = backbone
        self.images = images
        self.batch_size = min(batch_size, len(images))
        self.views = views
        self.seed = seed
        self.accelerator = accelerator
        self.num_workers = num_workers
        self._order = (-1, torch.empty(0))  # of one epoch

    def rows(self, step: int) -> torch.Tensor:
        """The rows of one step's batch, of shape (batch_size,)."""
        epoch, batch = divmod(step, len(self.images) // self.batch_size)
        if self._order[0] != epoch:
            generator = seeded_generator(self.seed, "order", epoch)
            self._order = epoch, torch.randperm(len(self.images), generator=generator)
        return self._order[1][batch * self.batch_size : (batch + 1) * self.batch_size]

    @torch.no_grad()
    def batches(self, first_step: int, last_step: int) -> Iterator[LabelledFeatures]:
        """The real features of each step from `first_step` up to, not including, `last_step`."""
        mine = owned_range(self.batch_size, self.accelerator.process_index, self.accelerator.num_processes)
        steps = range(first_step, last_step)
        pixels = _RandomSquares(self.images, self.backbone, self.seed)
        keys = ([(step, row) for row in self.rows(step)[mine.start : mine.stop].tolist()] for step in steps)
        num_workers = decoding_workers(self.num_workers, self.accelerator)
        loader = DataLoader(pixels, batch_sampler=keys, num_workers=num_workers)
        for step, batch in zip(steps, loader, strict=True):
            rows = self.rows(step)
            batch = batch.to(self.backbone.mean.device).to(self.backbone.mean.dtype) / 255
            own = rows[mine.start : mine.stop].tolist()
            views = random_views(batch, own, 1, self.backbone.image_size, self.views, self.seed, step, "real views")
            z = gather_rows(self.accelerator, self.backbone(views), self.batch_size)
            y = self.images.labels[rows].to(z.device)
            yield LabelledFeatures(z, y, uniform_weights(y))


class _RandomSquares(Dataset):
    """A random square of the synthetic images' side out of the resized image in (step, row)."""

    def __init__(self, images: LabelledImages, backbone: FrozenBackbone, seed: int) -> None:
        self.images = images
        self.size = backbone.preprocessing.synthetic_size
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        image = self.images.image(key[1])
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        x, y = torch.rand(2, generator=seeded_generator(self.seed, "real crop", *key)).tolist()
        left, top = int(x * (width - self.size + 1)), int(y * (height - self.size + 1))
        image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
        return to_tensor(image.crop((left, top, left + self.size, top + self.size)))
