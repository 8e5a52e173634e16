"""From pixels to features and back to the pixels' gradient, in chunks, exactly."""

from collections.abc import Callable

import torch

from .augmentation import random_views
from .backbone import FrozenBackbone
from .config import LGMConfig

EncodeChunk = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def encode_views(
    backbone: FrozenBackbone, args: LGMConfig, step: int, pixels: torch.Tensor, image_ids: torch.Tensor
) -> torch.Tensor:
    """Features of shape (m, views_per_step, D) of random views of m images.

    Args:
        backbone ([`FrozenBackbone`]): What they are seen through.
        args ([`LGMConfig`]): Says how many views, of which kind.
        step (`int`): Decides the views.
        pixels (`torch.Tensor`): Shape (m, 3, side, side).
        image_ids (`torch.Tensor`): Shape (m,), the images' numbers in the whole set.
    """
    ids, views = image_ids.tolist(), args.views_per_step
    if len(pixels) == 0:
        return pixels.new_zeros(0, views, backbone.dim)
    crops = random_views(pixels, ids, views, backbone.image_size, args.views, args.seed, step)
    return backbone(crops).unflatten(0, (len(pixels), views))


class ChunkedEncoding:
    """The features of images, computed chunk by chunk, and the way back for a gradient on them.

    An objective needs all features at once, but nothing else of the images. So the chunks are encoded without graph,
    and once more, one at a time, when the objective's gradient is known. The last one keeps its graph, which takes no
    more memory than the others will; with a single chunk nothing is computed twice. `encode` must do the same both
    times, randomness included.

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
        self._image_ids = image_ids
        size = chunk_size or max(1, len(pixels))
        self._chunks = [slice(start, start + size) for start in range(0, max(1, len(pixels)), size)]
        with torch.no_grad():
            features = [self._encoded(chunk)[1] for chunk in self._chunks[:-1]]
        self._last = self._encoded(self._chunks[-1])
        self.z = torch.cat([*features, self._last[1].detach()])

    z: torch.Tensor
    """The features, of shape (n, …), without graph."""

    def backward(self, dz: torch.Tensor) -> None:
        """Take a gradient on the features, of shape (n, …), through the backbone into what is optimised."""
        gradient = torch.zeros_like(self._pixels)
        encoded = self.__dict__.pop("_last")  # its graph goes before there is another
        for chunk in reversed(self._chunks):
            pixels, features = encoded or self._encoded(chunk)
            if len(pixels):  # a process may own no image
                (gradient[chunk],) = torch.autograd.grad(features, pixels, dz[chunk])
            encoded, features = None, features.detach()
        self._pixels.backward(gradient)

    def _encoded(self, chunk: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """A chunk's pixels, with a gradient of their own (a part's would have the size of the whole), and features."""
        pixels = self._pixels.detach()[chunk].requires_grad_()
        return pixels, self._encode(pixels, self._image_ids[chunk])
