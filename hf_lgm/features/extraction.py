"""Features of real images: computed once, and kept on disk."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..backbones.backbone import FrozenBackbone
from ..data.labelled_images import LabelledImages
from ..data.threads import in_threads
from ..progress import progress
from .cache import SHARD_ROWS, FeatureCache, check_finite
from .streaming import EncodedStream

logger = logging.getLogger(__name__)


class CentreCrops(Dataset):
    """Rows of a split as 8-bit tensors of shape (3, size, size), centre cropped.

    Args:
        images ([`LabelledImages`]): The split.
        geometry (`tuple[int, float, str]`): Side in pixels, resize ratio and filter; see [`Preprocessing`].
    """

    def __init__(self, images: LabelledImages, geometry: tuple[int, float, str]) -> None:
        self.images = images
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.images.centre_crop(row, *self.geometry)

    def __getitems__(self, rows: list[int]) -> list[torch.Tensor]:
        """What a loader asks for where it wants a batch."""
        return in_threads(self.__getitem__, rows)


def is_constant(z: torch.Tensor) -> bool:
    """Whether all rows of features (N, D) are the same, but for rounding. Ends at the first block that differs."""
    first, eps = z[0].double(), torch.finfo(z.dtype).eps
    return all(((block.double() - first).abs() <= 8 * eps * first.abs().max()).all() for block in z.split(SHARD_ROWS))


@dataclass(frozen=True)
class FeatureExtractor:
    """Encodes real images, on one device or shared out among processes.

    Features are kept in shards under the Hugging Face assets cache, under a key made of all that decides them. A
    second call reads them, a killed one goes on, and a shard whose checksum is wrong is computed again.

    Args:
        accelerator (`accelerate.Accelerator`, *optional*): Says which process this is, and on which device.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images; 0 for threads of this one, -1 for
            as many as there are cores, where a GPU does the rest.
        cache_dir (`str` or `Path`, *optional*): Another place for the cache.
        shard_rows (`int`, *optional*, defaults to 1024): Images per shard: an interrupted extraction loses at most as
            many.
    """

    accelerator: Accelerator = field(default_factory=Accelerator)
    batch_size: int = 64
    num_workers: int = 0
    cache_dir: str | Path | None = None
    shard_rows: int = SHARD_ROWS
    said: set[str] = field(default_factory=set, init=False, repr=False, compare=False)  # backbones that were warned of

    @classmethod
    def given(cls, extractor: "FeatureExtractor | None", loading: dict[str, Any]) -> "FeatureExtractor":
        """The one that a caller gives, or one made of what the caller gives instead.

        Raises:
            TypeError: If both are given, or something else.
        """
        if extractor is not None and loading:
            raise TypeError(f"Beside an extractor nothing else is taken; found {', '.join(loading)}.")
        return extractor or cls(**loading)

    def extract(self, backbone: FrozenBackbone, images: LabelledImages, with_layers: bool = False) -> torch.Tensor:
        """Features of the centre crop of every image, of shape (N, D) on the CPU, in the backbone's precision.

        From a gigabyte on, what comes back is mapped from a file, so that memory need not hold it.

        Args:
            backbone ([`FrozenBackbone`]): Is moved to the accelerator's device.
            images ([`LabelledImages`]): N images.
            with_layers (`bool`, *optional*, defaults to `False`): Put the backbone's layers beside the features, as
                [`~FrozenBackbone.forward_with_layers`] does.
        """
        if isinstance(images.source, EncodedStream):
            features = images.source.features(backbone, images.rows, with_layers)
        else:
            features = self._extracted(backbone, images, with_layers)
        self._look_at(features[:, : backbone.dim], backbone)
        return features

    def _extracted(self, backbone: FrozenBackbone, images: LabelledImages, with_layers: bool) -> torch.Tensor:
        """Those of images that can be read again."""
        backbone.to(self.accelerator.device)
        key = f"{images.fingerprint} {images.image_column}"
        cache = FeatureCache(backbone, key, self.cache_dir, self.shard_rows, with_layers)
        starts, world = range(0, len(images), self.shard_rows), self.accelerator.num_processes
        features = cache.empty(len(images))
        mine = [start for start in starts if start // self.shard_rows % world == self.accelerator.process_index]
        self._fill(features, mine, cache, backbone, images)
        self.accelerator.wait_for_everyone()
        others = sorted(set(starts) - set(mine))
        self._fill(features, others, cache, backbone, images)  # what other processes have computed
        return features

    def _look_at(self, z: torch.Tensor, backbone: FrozenBackbone) -> None:
        """Say once of a backbone that its features tell nothing."""
        if len(z) < 2 or backbone.name in self.said or not is_constant(z):
            return
        self.said.add(backbone.name)
        logger.warning(
            "%s gives all %d images the same features%s: nothing can be learned through it. Are its weights trained, "
            "and do image_mean and image_std fit it?",
            backbone.name, len(z), "" if z[0].any() else ", all of them zero",
        )  # fmt: skip

    @property
    def decoding_workers(self) -> int:
        """Processes that decode: by default a share of the cores beside a GPU, none where the model wants them."""
        if self.num_workers >= 0:
            return self.num_workers
        on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", self.accelerator.num_processes))
        return 0 if self.accelerator.device.type == "cpu" else (os.cpu_count() or 1) // on_this_machine

    def _fill(
        self,
        features: torch.Tensor,
        starts: Sequence[int],
        cache: FeatureCache,
        backbone: FrozenBackbone,
        images: LabelledImages,
    ) -> None:
        """Read the shards that begin at `starts` into their rows, computing and keeping those that are not there.

        A backbone that tells of its layers is asked for them at once: they may be wanted next.
        """
        missing, whole = [], cache.with_layers_of(backbone)
        for start in starts:
            if (found := cache.read(start, len(images))) is None:
                missing.append(torch.arange(start, min(start + self.shard_rows, len(images))))
            else:
                features[start : start + len(found)] = found
        total = sum(map(len, missing))
        with progress(total=total, desc=f"features of {backbone.name}", unit="img", disable=not missing) as bar:
            for rows, z in zip(missing, self._encoded(missing, backbone, images, bar), strict=True):
                check_finite(z, images.rows[rows], backbone)
                features[rows[0] : rows[-1] + 1] = z[:, : features.shape[1]]
                whole.write(int(rows[0]), z)

    def _encoded(
        self,
        shards: list[torch.Tensor],
        backbone: FrozenBackbone,
        images: LabelledImages,
        bar: tqdm,
    ) -> Iterator[torch.Tensor]:
        """The features of each shard's rows. Decoding runs ahead, and the device is waited for once per shard."""
        pixels = CentreCrops(images, backbone.preprocessing.geometry)
        batches = [[rows.tolist() for rows in shard.split(self.batch_size)] for shard in shards]
        order = [rows for shard in batches for rows in shard]
        workers, on_gpu = min(self.decoding_workers, len(order)), backbone.mean.is_cuda
        loader = iter(DataLoader(pixels, batch_sampler=order, num_workers=workers, pin_memory=on_gpu))
        for shard in batches:
            features = []
            for rows in shard:
                features.append(backbone.encode(next(loader), with_layers=True))
                bar.update(len(rows))
            yield torch.cat(features).cpu()
