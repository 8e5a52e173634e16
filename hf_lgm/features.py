"""Features of real images: computed once, and kept on disk."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from . import feature_cache
from .backbone import FrozenBackbone
from .data import LabelledImages
from .feature_cache import FeatureCache
from .preprocessing import square, to_tensor
from .streaming import EncodedStream


class SquareImages(Dataset):
    """Rows of a split as 8-bit tensors of shape (3, size, size), centre cropped.

    Args:
        images ([`LabelledImages`]): The split.
        size (`int`): Side in pixels.
        resize_ratio (`float`): See [`Preprocessing`].
    """

    def __init__(self, images: LabelledImages, size: int, resize_ratio: float) -> None:
        self.images = images
        self.size = size
        self.resize_ratio = resize_ratio

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return to_tensor(square(self.images.image(row), self.size, self.resize_ratio))


def extract_features(
    backbone: FrozenBackbone,
    images: LabelledImages,
    accelerator: Accelerator,
    batch_size: int = 64,
    num_workers: int = 0,
    cache_dir: str | Path | None = None,
) -> torch.Tensor:
    """Features of the centre view of every image, of shape (N, D) on the CPU, in the backbone's precision.

    They are kept in shards under the Hugging Face assets cache, under a key made of all that decides them. A second
    call reads them, a killed one goes on, and a shard whose checksum is wrong is computed again. Processes share the
    work. From a gigabyte on, what comes back is mapped from a file, so that memory need not hold it.

    Args:
        backbone ([`FrozenBackbone`]): On the accelerator's device.
        images ([`LabelledImages`]): N images.
        accelerator (`accelerate.Accelerator`): Says which process this is.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images; -1 for as many as there are
            cores, where a GPU does the rest.
        cache_dir (`str` or `Path`, *optional*): Another place for the cache.
    """
    if isinstance(images.source, EncodedStream):
        return images.source.features(backbone, images.rows)
    cache = FeatureCache(backbone, f"{images.fingerprint} {images.image_column}", cache_dir)
    step = feature_cache.SHARD_ROWS
    starts = range(0, len(images), step)
    features = cache.empty(len(images))
    mine = [start for start in starts if start // step % accelerator.num_processes == accelerator.process_index]
    loading = batch_size, decoding_workers(num_workers, accelerator)
    done = _fill(features, mine, cache, backbone, images, *loading)
    accelerator.wait_for_everyone()
    others = [start for start in starts if start not in done]
    _fill(features, others, cache, backbone, images, *loading)  # what other processes have computed
    return features


def _fill(
    features: torch.Tensor,
    starts: Sequence[int],
    cache: FeatureCache,
    backbone: FrozenBackbone,
    images: LabelledImages,
    batch_size: int,
    num_workers: int,
) -> set[int]:
    """Read the shards that begin at `starts` into their rows, computing and keeping those that are not there."""
    missing = []
    for start in starts:
        if (found := cache.read(start, len(images))) is None:
            missing.append(torch.arange(start, min(start + feature_cache.SHARD_ROWS, len(images))))
        else:
            features[start : start + len(found)] = found
    total = sum(map(len, missing))
    with tqdm(total=total, desc=f"features of {backbone.name}", unit="img", disable=not missing) as bar:
        for rows, z in zip(missing, _encoded(missing, backbone, images, batch_size, num_workers, bar), strict=True):
            features[rows[0] : rows[-1] + 1] = z
            cache.write(int(rows[0]), z)
    return set(starts)


def _encoded(
    shards: list[torch.Tensor],
    backbone: FrozenBackbone,
    images: LabelledImages,
    batch_size: int,
    num_workers: int,
    bar: tqdm,
) -> Iterator[torch.Tensor]:
    """The features of each shard's rows. Decoding runs ahead, and the device is waited for once per shard."""
    pixels = SquareImages(images, backbone.image_size, backbone.preprocessing.resize_ratio)
    batches = [[rows.tolist() for rows in shard.split(batch_size)] for shard in shards]
    order = [rows for shard in batches for rows in shard]
    on_gpu = backbone.mean.is_cuda
    loader = iter(DataLoader(pixels, batch_sampler=order, num_workers=min(num_workers, len(order)), pin_memory=on_gpu))
    for shard in batches:
        features = []
        for rows in shard:
            features.append(backbone.encode(next(loader)))
            bar.update(len(rows))
        yield torch.cat(features).cpu()


def decoding_workers(wanted: int, accelerator: Accelerator) -> int:
    """Processes that decode: by default a share of the cores beside a GPU, none where the model wants them itself."""
    if wanted >= 0:
        return wanted
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    return 0 if accelerator.device.type == "cpu" else (os.cpu_count() or 1) // on_this_machine
