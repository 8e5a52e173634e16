"""From pixels to features and back to the pixels' gradient, in chunks, exactly."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..data.augmentation import random_views
from .view_sizes import ViewSizes

logger = logging.getLogger(__name__)

# Part of the free memory that chunks may take: the rest is for what the allocator can't use, and what comes and goes.
_USABLE = 0.85

EncodeChunk = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def encode_views(
    backbone: FrozenBackbone,
    args: LGMConfig,
    step: int,
    side: int,
    pixels: torch.Tensor,
    image_ids: torch.Tensor,
    purpose: str = "views",
) -> torch.Tensor:
    """Features of shape (m, views_per_step, D) of random views of m images, with the backbone's layers beside them.

    Args:
        backbone ([`FrozenBackbone`]): What they are seen through.
        args ([`LGMConfig`]): Says how many views, of which kind.
        step (`int`): Decides the views.
        side (`int`): Of the views, in pixels.
        pixels (`torch.Tensor`): Shape (m, 3, side, side).
        image_ids (`torch.Tensor`): Shape (m,), the images' numbers in the whole set.
        purpose (`str`, *optional*, defaults to `"views"`): See [`~hf_lgm.data.augmentation.random_views`].
    """
    ids, views = image_ids.tolist(), args.views_per_step
    if len(pixels) == 0:
        return pixels.new_zeros(0, views, sum(backbone.widths), dtype=backbone.dtype)
    crops = random_views(pixels, ids, views, side, args.views, args.seed, step, purpose)
    return backbone.forward_with_layers(crops).unflatten(0, (len(pixels), views))


class ChunkedEncoding:
    """The features of images, chunk by chunk, forward and backward.

    An objective needs all features at once, but nothing else of the images. So the chunks are encoded without graph,
    and once more, one at a time, when the objective's gradient is known. The last one keeps its graph, which takes no
    more memory than the others will; with a single chunk nothing is computed twice. `encode` must do the same both
    times, randomness included.

    Args:
        encode (`Callable`): From pixels (m, 3, side, side) and image numbers (m,) to features (m, …).
        pixels (`torch.Tensor`): Shape (n, 3, side, side).
        image_ids (`torch.Tensor`): Shape (n,).
        chunk_size (`int`, *optional*): Images per chunk; all of them where not given.
    """

    def __init__(
        self, encode: EncodeChunk, pixels: torch.Tensor, image_ids: torch.Tensor, chunk_size: int | None = None
    ) -> None:
        self._encode = encode
        self._pixels = pixels
        self._image_ids = image_ids
        size = chunk_size or max(1, len(pixels))
        self._chunks = [slice(start, start + size) for start in range(0, max(1, len(pixels)), size)]
        with torch.no_grad():
            features = [self._encoded(chunk)[1] for chunk in self._chunks[:-1]]
        self._last = self._encoded(self._chunks[-1])
        self.z = torch.cat([*features, self._last[1].detach()])

    z: torch.Tensor
    """The features, of shape (n, …), without graph."""

    def backward(self, dz: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take a gradient on the features, of shape (n, …), through the backbone, and add it to that of the pixels.

        Args:
            dz (`torch.Tensor`): Shape (n, …), as `z` is.
            gradient (`torch.Tensor`): Shape (n, 3, side, side), to add to: one for all backbones, and no copy of it.
        """
        encoded = self.__dict__.pop("_last")  # its graph goes before there is another
        for chunk in reversed(self._chunks):
            pixels, features = encoded or self._encoded(chunk)
            if len(pixels):  # a process may own no image
                gradient[chunk] += torch.autograd.grad(features, pixels, dz[chunk])[0]
            encoded, features = None, features.detach()

    def _encoded(self, chunk: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """A chunk's pixels, with a gradient of their own (a slice's would be as large as all), and features."""
        pixels = self._pixels.detach()[chunk].requires_grad_()
        return pixels, self._encode(pixels, self._image_ids[chunk])


def chunk_size_that_fits(
    backbones: Sequence[FrozenBackbone], view_sizes: Sequence[ViewSizes], args: LGMConfig, side: int, count: int
) -> int:
    """Images to encode at a time, for all backbones; a fixed number where the device does not say what fits.

    Args:
        backbones (`Sequence[FrozenBackbone]`): On their device.
        view_sizes (`Sequence[ViewSizes]`): Of each of them.
        args ([`LGMConfig`]): Says which views.
        side (`int`): Of the synthetic images, in pixels.
        count (`int`): Images of this process.
    """
    found = []
    for backbone, sizes in zip(backbones, view_sizes, strict=True):
        image = backbone.mean.new_zeros(3, side, side)
        encode = functools.partial(encode_views, backbone, args, 0, sizes.largest)
        found.append(find_chunk_size(encode, image, count) or args.default_chunk_size)
    return min(found)


def find_chunk_size(encode: EncodeChunk, image: torch.Tensor, count: int) -> int | None:
    """The most images that fit into one forward and backward pass, or `None` where the device does not say.

    Nothing is exchanged between processes: each may find another number, the result is the same.

    Args:
        encode (`Callable`): As for [`ChunkedEncoding`].
        image (`torch.Tensor`): Shape (3, side, side), one image, on the device.
        count (`int`): The images there are, with parameters and gradients that will take memory beside the chunk.

    Raises:
        torch.OutOfMemoryError: If a single image does not fit.
    """
    memory: Any = torch.get_device_module(image.device)
    if count == 0 or not hasattr(memory, "mem_get_info"):
        return None

    def run_chunk(size: int) -> None:
        pixels = image.expand(size, *image.shape).contiguous().requires_grad_()
        encode(pixels, torch.arange(size)).sum().backward()

    few = min(count, 4)
    try:
        bytes_per_image = _peak(run_chunk, few, memory) / few
    except torch.OutOfMemoryError:
        bytes_per_image = _peak(run_chunk, 1, memory)
    memory.empty_cache()
    free = memory.mem_get_info()[0] - beside_chunks(count, image)
    size = max(1, min(count, int(_USABLE * free / bytes_per_image)))
    while True:
        size = -(-count // -(-count // size))  # as many chunks, of equal size
        try:
            run_chunk(size)
            break
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            memory.empty_cache()
            size = max(1, size * 3 // 4)
    memory.empty_cache()
    logger.info("%d image(s) at a time: each takes %.0f MB of %.1f GB", size, bytes_per_image / 2**20, free / 2**30)
    return size


def beside_chunks(count: int, image: torch.Tensor) -> int:
    """Bytes that so many images need besides being encoded, in float32.

    Of each pixel itself, its gradient and what comes between it and the levels; of the parameters, 4/3 as many over
    all levels of a pyramid, the values, their gradient and Adam's two moments.
    """
    return int(count * image.numel() * 4 * (3 + 4 * 4 / 3))


def _peak(run_chunk: Callable[[int], None], count: int, memory: Any) -> int:
    """Bytes that a chunk takes at most, after one that loads what is loaded once."""
    run_chunk(1)
    memory.reset_peak_memory_stats()
    before = memory.memory_allocated()
    run_chunk(count)
    return max(1, memory.max_memory_allocated() - before)
