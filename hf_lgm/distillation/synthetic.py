"""The images that are learned: parameters of a pyramid (or of plain pixels), decoded to values in [0, 1]."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..backbones.preprocessing import luminance
from ..randomness import seeded_generator

# Colour statistics of natural images (Olah et al., "Feature Visualization", 2017), as in the paper's section 3.2: rows
# are the red, green and blue that one unit of each decorrelated channel gives.
_COLOUR = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float64)
_COLOUR = _COLOUR / _COLOUR.norm(dim=0).max()

# Of grey images: about what the first of these, the brightness, gives to red, green and blue.
_GREY = torch.full((3, 1), 3**-0.5, dtype=torch.float64)

# The nearest that an image given as a start may come to black and white, where the sigmoid has no finite inverse.
_MARGIN = 1 / 255

# Images that are made into levels at a time, which is done in float64.
_STARTED = 64


def pyramid_sides(size: int) -> list[int]:
    """Sides of all levels, coarse to fine: powers of two, and at last the image's own side."""
    sides = [1]
    while sides[-1] * 2 < size:
        sides.append(sides[-1] * 2)
    return sides if size == 1 else [*sides, size]


class SyntheticImages(nn.Module):
    """A slice of the synthetic images of one run, as parameters.

    An image is `sigmoid(2 * M * sum of upsampled levels)` with the colour matrix M (paper, section 3.2). A new pyramid
    has its 1 x 1 level only; [`~SyntheticImages.grow`] adds the next one. Plain pixels are a pyramid of one level.
    With one channel, M gives red, green and blue the same.

    Args:
        image_ids (`Sequence[int]`): Length n, the images' numbers in the whole set. They decide the noise an image
            starts with, so that slices of a set are the same however it is sliced.
        size (`int`): Side of the images in pixels.
        seed (`int`): The seed of the run.
        sides (`list[int]`, *optional*): Sides of the levels, coarse to fine; `pyramid_sides(size)` where not given,
            and `[size]` for plain pixels.
        channels (`int`, *optional*, defaults to 3): Numbers for each pixel of a level; 1 for grey images.
    """

    def __init__(
        self, image_ids: Sequence[int], size: int, seed: int, sides: list[int] | None = None, channels: int = 3
    ) -> None:
        super().__init__()
        self.colour: torch.Tensor
        self.image_ids = list(image_ids)
        self.size = size
        self.seed = seed
        self.sides = sides or pyramid_sides(size)
        self.channels = channels
        self.levels = nn.ParameterList()
        self.register_buffer("colour", (_GREY if channels == 1 else _COLOUR).float(), persistent=False)
        self.grow()

    def grow(self) -> None:
        """Add the next finer level: o levels before are scaled by o / (o + 1), the new noise by 1 / (o + 1)."""
        old = len(self.levels)
        with torch.no_grad():
            for level in self.levels:
                level.mul_(old / (old + 1))
        self.levels.append(nn.Parameter(self._noise(old) / (old + 1)))

    def set_num_levels(self, num_levels: int) -> None:
        """Have this many levels, so that a checkpoint's tensors fit."""
        while len(self.levels) < num_levels:
            self.grow()

    def start_from(self, images: torch.Tensor) -> None:
        """Start from given images, with all levels present, each holding what the coarser ones leave.

        Args:
            images (`torch.Tensor`): Shape (n, 3, side, side), values in [0, 1]; resized to `size`, and grey ones take
                the luminance.
        """
        self.set_num_levels(len(self.sides))
        for rows in torch.arange(len(images)).split(_STARTED):
            self._start_rows(rows, images[rows.to(images.device)])

    @torch.no_grad()
    def mix_with(self, images: torch.Tensor, weight: float) -> None:
        """Become so much of given images, of shape (n, 3, size, size), and the rest of what these are.

        Mixed as images, so that every level of a pyramid has its share.
        """
        self.start_from((1 - weight) * self() + weight * images.to(self.levels[0]))

    def _start_rows(self, rows: torch.Tensor, images: torch.Tensor) -> None:
        """The same of some of the images."""
        images = resized(images, self.size).cpu().double()  # not every device has it
        inverse = torch.linalg.inv(_COLOUR)
        if self.channels == 1:
            images, inverse = luminance(images), 1 / _GREY[:1]
        logits = torch.logit(images.clamp(_MARGIN, 1 - _MARGIN)) / 2
        rest = torch.einsum("ij,njhw->nihw", inverse, logits)
        with torch.no_grad():
            for side, level in zip(self.sides, self.levels, strict=True):
                own = F.adaptive_avg_pool2d(rest, side).to(level)
                level[rows.to(level.device)] = own
                rest = rest - _upsample(own.cpu().double(), self.size)

    def forward(self) -> torch.Tensor:
        """The images, of shape (n, 3, size, size) with values in [0, 1]."""
        total = functools.reduce(torch.add, (_upsample(level, self.size) for level in self.levels))
        colour = 2 * self.colour.to(total.dtype)  # twice the few, not twice all pixels: the same bits
        return torch.sigmoid(torch.einsum("ij,njhw->nihw", colour, total))

    def _noise(self, level: int) -> torch.Tensor:
        side = self.sides[level]
        shape = (self.channels, side, side)
        rows = [torch.randn(shape, generator=seeded_generator(self.seed, "level", level, i)) for i in self.image_ids]
        noise = torch.stack(rows) if rows else torch.zeros(0, *shape)
        return noise.to(self.colour)


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images of shape (n, 3, side, side) at another side."""
    if images.shape[-1] == size:
        return images
    if len(images) == 0:  # more processes than images
        return images.new_empty(0, images.shape[1], size, size)
    return F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)


def _upsample(level: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear, as two products with a matrix: on a GPU `F.interpolate` took as long backward as a ViT-B."""
    if level.shape[-1] == size:
        return level
    weights = _bilinear_weights(level.shape[-1], size, level.dtype, level.device)
    return weights @ level @ weights.T


@functools.lru_cache(maxsize=64)
def _bilinear_weights(side: int, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each of `size` pixels in a line takes of `side` ones, of shape (size, side)."""
    units = torch.eye(side, dtype=torch.float64)[:, None]
    return F.interpolate(units, size, mode="linear", align_corners=False)[:, 0].T.to(device, dtype)
