"""The sides of views: which are used, which one each step draws, and what is refused."""

from types import SimpleNamespace

import pytest
from conftest import SIDE, make_vit
from torch import nn

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.distillation.learned import Learned
from hf_lgm.distillation.view_sizes import ViewSizes


class OfOneSide(nn.Module):
    """Takes images of its own side alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * SIDE * SIDE, 5)

    def forward(self, pixel_values):
        return self.layer(pixel_values.flatten(1))


def test_multiples_are_whole_patches_and_what_does_not_fit_is_left_out(backbone):
    assert ViewSizes.of(backbone, [0.5, 0.75, 1, 1.25, 2], 0).sides == (8, 16, 32)  # 12 and 20 are whole patches of 8
    assert ViewSizes.of(FrozenBackbone(make_vit(), Preprocessing(64)), [0.5, 0.8, 1], 0).sides == (32, 48, 64)
    assert ViewSizes.of(FrozenBackbone(OfOneSide(), Preprocessing(SIDE)), [0.5, 1, 2], 0).sides == (SIDE,)
    assert ViewSizes.of(FrozenBackbone(OfOneSide(), Preprocessing(SIDE)), [0.5], 0).sides == (SIDE,)
    assert ViewSizes.of(backbone, [], 0).sides == (SIDE,)


def test_pixels_are_taken_as_they_are_or_refused(backbone):
    assert ViewSizes.of(backbone, [24, 16, 24], 0).sides == (24, 16)
    with pytest.raises(ValueError, match="view_sizes: OfOneSide does not take images of 24 x 24 pixels. Its own side"):
        ViewSizes.of(FrozenBackbone(OfOneSide(), Preprocessing(SIDE)), [24], 0)


def test_steps_draw_alike_for_all_backbones_and_the_smallest_while_coarse():
    sizes, others = ViewSizes((8, 16, 24), seed=1), ViewSizes((80, 160, 240), seed=1)
    drawn = [sizes.at(step, is_coarse=False) for step in range(60)]
    assert set(drawn) == {8, 16, 24} and drawn == [sizes.at(step, is_coarse=False) for step in range(60)]
    assert [10 * side for side in drawn] == [others.at(step, is_coarse=False) for step in range(60)]
    assert drawn != [ViewSizes((8, 16, 24), seed=2).at(step, is_coarse=False) for step in range(60)]
    assert sizes.at(3, is_coarse=True) == 8 and sizes.largest == 24


@pytest.mark.parametrize(
    ("sides", "size", "levels", "wanted"),
    [
        ([1, 2, 4, 8, 16], 16, 1, True),
        ([1, 2, 4, 8, 16], 16, 4, True),
        ([1, 2, 4, 8, 16], 16, 5, False),
        ([1, 2, 4, 8, 12], 12, 4, False),
        ([16], 16, 1, False),  # plain pixels
        ([28], 224, 1, False),  # latents, which are as fine as they will ever be
    ],
)
def test_images_are_coarse_while_levels_are_to_come(sides, size, levels, wanted):
    learned = object.__new__(Learned)
    learned.images = SimpleNamespace(sides=sides, size=size, levels=[None] * levels)
    assert learned.is_coarse is wanted
