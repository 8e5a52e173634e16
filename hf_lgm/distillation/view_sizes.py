"""At which sides a backbone is shown the views of each step: its own, or several, coarse ones while images are."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..backbones.backbone import FrozenBackbone
from ..randomness import seeded_generator

logger = logging.getLogger(__name__)

# Up to here a size is a multiple of the backbone's own side, above it a side in pixels.
MULTIPLES_TO = 8


@dataclass(frozen=True)
class ViewSizes:
    """The sides of one backbone's views, in pixels.

    Args:
        sides (`tuple[int, ...]`): To draw one from for each step.
        seed (`int`): The seed of the run.
    """

    sides: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, backbone: FrozenBackbone, sizes: Sequence[float], seed: int) -> "ViewSizes":
        """The sizes that are asked for, as far as the backbone takes them.

        Args:
            backbone ([`FrozenBackbone`]): Is tried with each of them.
            sizes (`Sequence[float]`): Up to 8, a multiple of the backbone's own side, rounded to whole patches and
                left out where the backbone does not take it; above, a side in pixels. None for its own side.
            seed (`int`): The seed of the run.

        Raises:
            ValueError: If it does not take a side that is given in pixels.
        """
        own, sides = backbone.image_size, list[int]()
        for size in sizes:
            side = int(size) if size > MULTIPLES_TO else _whole_patches(backbone, size)
            if side not in sides and backbone.takes(side):
                sides.append(side)
            elif size > MULTIPLES_TO and side not in sides:
                raise ValueError(
                    f"view_sizes: {backbone.name} does not take images of {side} x {side} pixels. Its own side is "
                    f"{own}; give multiples of it, such as 0.75 1 1.25, of which those that fit are used."
                )
        return cls(tuple(sides) or (own,), seed)

    def at(self, step: int, is_coarse: bool) -> int:
        """The side of a step's views: the smallest while images are coarse, else drawn, alike for all backbones.

        Args:
            step (`int`): Of the optimisation.
            is_coarse (`bool`): Whether images have no details yet that a smaller view would not show.
        """
        if len(self.sides) == 1:
            return self.sides[0]
        if is_coarse:
            return min(self.sides)
        drawn = torch.rand((), generator=seeded_generator(self.seed, "view size", step)).item()
        return self.sides[int(drawn * len(self.sides))]

    @property
    def largest(self) -> int:
        """The side that takes the most memory."""
        return max(self.sides)


def _whole_patches(backbone: FrozenBackbone, multiple: float) -> int:
    """The side nearest to a multiple of the backbone's own."""
    own, patch = backbone.image_size, backbone.patch_size
    return own if multiple == 1 else max(1, round(multiple * own / patch)) * patch
