"""How many images are encoded at a time: as many as an accelerator's memory holds, found by trying a few."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from .encoding import EncodeChunk

logger = logging.getLogger(__name__)

# Part of the free memory that chunks may take: the rest is for what the allocator can't use, and what comes and goes.
_USABLE = 0.85


def find_chunk_size(encode: EncodeChunk, image: torch.Tensor, count: int) -> int | None:
    """The most images of which a chunk can be encoded with its way back, or `None` where the device does not say.

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

    Of each pixel itself, its gradient and a copy of that; of the parameters, 4/3 as many over all levels of a pyramid,
    the values, their gradient and Adam's two moments.
    """
    return int(count * image.numel() * 4 * (3 + 4 * 4 / 3))


def _peak(run_chunk: Callable[[int], None], count: int, memory: Any) -> int:
    """Bytes that a chunk takes at most, after one that loads what is loaded once."""
    run_chunk(1)
    memory.reset_peak_memory_stats()
    before = memory.memory_allocated()
    run_chunk(count)
    return max(1, memory.max_memory_allocated() - before)
