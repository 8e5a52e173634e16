"""From pixels to features and back to the pixels' gradient, in chunks, exactly."""

from collections.abc import Callable

import torch

EncodeChunk = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class ChunkedEncoding:
    """The features of images, computed chunk by chunk, and the way back for a gradient on them.

    An objective needs all features at once, but nothing else of the images. So with several chunks they are
    encoded without graph, and once more, one chunk at a time, when the objective's gradient is known. `encode` must do
    the same both times, randomness included. With one chunk the graph is kept and nothing is computed twice.

    Args:
        encode (`Callable`): From pixels (m, 3, side, side) and image numbers (m,) to features (m, …).
        pixels (`torch.Tensor`): Shape (n, 3, side, side), with a graph to what is optimised.
        image_ids (`torch.Tensor`): Shape (n,).
        chunk_size (`int`, *optional*): Images per chunk; all of them where not given.
    """

    def __init__(
        self, encode: EncodeChunk, pixels: torch.Tensor, image_ids: torch.Tensor, chunk_size: int | None = None
    ) -> None:
        self._encode = encode
        self._pixels = pixels
        self._size = chunk_size or max(1, len(pixels))
        self._chunks = list(zip(pixels.split(self._size), image_ids.split(self._size), strict=True))
        self._keeps_graph = len(self._chunks) == 1
        with torch.set_grad_enabled(self._keeps_graph):
            self._features = torch.cat([encode(chunk, ids) for chunk, ids in self._chunks])

    @property
    def z(self) -> torch.Tensor:
        """The features, of shape (n, …), without graph."""
        return self._features.detach()

    def backward(self, dz: torch.Tensor) -> None:
        """Take a gradient on the features, of shape (n, …), through the backbone into what is optimised."""
        if len(self._pixels) == 0:  # a process that owns no image
            self._pixels.backward(torch.zeros_like(self._pixels))
            return
        if self._keeps_graph:
            self._features.backward(dz)
            return
        gradients = []
        for (chunk, ids), dz_chunk in zip(self._chunks, dz.split(self._size), strict=True):
            leaf = chunk.detach().requires_grad_()
            self._encode(leaf, ids).backward(dz_chunk)
            gradients.append(leaf.grad)
        self._pixels.backward(torch.cat(gradients))
