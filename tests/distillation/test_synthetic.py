import pytest
import torch
import torch.nn.functional as F

from hf_lgm.distillation.synthetic import SyntheticImages, pyramid_sides, resized


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (1, [1]),
        (2, [1, 2]),
        (96, [1, 2, 4, 8, 16, 32, 64, 96]),  # not a power of two: ends at the image's own side
        (256, [1, 2, 4, 8, 16, 32, 64, 128, 256]),
    ],
)
def test_pyramid_sides(size, sides):
    assert pyramid_sides(size) == sides


def test_images_follow_the_papers_formula():
    images = SyntheticImages(range(2), 8, seed=0)
    images.set_num_levels(3)
    M = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    M = M / max(column.norm() for column in M.T)
    total = sum(F.interpolate(level, (8, 8), mode="bilinear") for level in images.levels)
    expected = torch.sigmoid(2 * (M @ total.flatten(2))).reshape(2, 3, 8, 8)
    torch.testing.assert_close(images(), expected)


def test_growth_keeps_the_share_of_each_level():
    images = SyntheticImages(range(3), 8, seed=0)
    drawn = [images.levels[0].detach().clone()]
    for old in (1, 2, 3):
        before = [level.detach().clone() for level in images.levels]
        images.grow()
        for level, was in zip(images.levels, before, strict=False):
            torch.testing.assert_close(level, was * old / (old + 1))
        drawn.append(images.levels[-1].detach() * (old + 1))
    assert len(images.levels) == len(images.sides)
    assert 0.8 < drawn[-1].std() < 1.2  # N(0, 1) before it is scaled


def test_slices_are_the_same_however_the_set_is_sliced():
    whole, part = SyntheticImages(range(5), 8, seed=3), SyntheticImages([3, 4], 8, seed=3)
    for images in (whole, part):
        images.set_num_levels(4)
    torch.testing.assert_close(part(), whole()[3:], rtol=0, atol=0)
    assert not torch.equal(SyntheticImages(range(5), 8, seed=4)(), SyntheticImages(range(5), 8, seed=3)())


def test_pixels_are_one_level():
    images = SyntheticImages(range(2), 24, seed=0, sides=[24])
    assert len(images.levels) == len(images.sides)
    assert [tuple(level.shape) for level in images.levels] == [(2, 3, 24, 24)]


@pytest.mark.parametrize("sides", [None, [24]])
def test_starting_from_images_gives_these_images(sides):
    given = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    given[0, :, :4], given[0, :, -4:] = 0, 1  # black and white have no logit
    images = SyntheticImages(range(2), 24, seed=0, sides=sides)
    images.start_from(given)
    assert len(images.levels) == len(images.sides)
    assert (images() - given).abs().max() < 1.01 / 255


def test_a_process_without_images_starts_from_none_and_mixes_with_none():
    images = SyntheticImages([], 32, seed=0)
    images.start_from(torch.rand(0, 3, 16, 16))
    images.mix_with(resized(torch.rand(0, 3, 16, 16), 32), 0.5)
    assert images().shape == (0, 3, 32, 32)


def test_mixing_is_of_images():
    images, others = SyntheticImages(range(2), 16, seed=0), torch.rand(2, 3, 16, 16)
    images.start_from(torch.rand(2, 3, 16, 16))
    before = images().detach()
    images.mix_with(others, 0.25)
    torch.testing.assert_close(images().detach(), 0.75 * before + 0.25 * others, rtol=0, atol=2e-2)
