import math

import pytest
import torch
from views import boxes, written_out

from hf_lgm.data.augmentation import random_views
from hf_lgm.settings import ViewSettings

PLAIN = ViewSettings(flip=False, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), noise_probability=0.0)


@pytest.fixture
def images():
    return torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def views(images, ids=(0, 1, 2, 3), num_views=3, size=12, settings=None, **key):
    return random_views(
        images, list(ids), num_views, size, settings or ViewSettings(), **{"seed": 0, "step": 0, **key}
    )


def test_an_images_views_depend_on_its_id_alone(images):
    together = views(images)
    assert together.shape == (12, 3, 12, 12)
    torch.testing.assert_close(views(images[2:3], ids=[2]), together[6:9], rtol=0, atol=0)


@pytest.mark.parametrize("key", [{"seed": 1}, {"step": 1}, {"purpose": "other"}])
def test_another_seed_step_or_purpose_gives_other_views(images, key):
    assert not torch.equal(views(images, **key), views(images))


def test_without_randomness_a_view_is_the_image(images):
    torch.testing.assert_close(views(images, num_views=1, size=20, settings=PLAIN), images)


def test_flip_mirrors_half_of_the_views(images):
    settings = ViewSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), noise_probability=0.0)
    crops = views(images[:1], ids=[0], num_views=400, size=20, settings=settings)
    is_same = torch.tensor([torch.allclose(crop, images[0], atol=1e-5) for crop in crops])
    is_mirrored = torch.tensor([torch.allclose(crop, images[0].flip(-1), atol=1e-5) for crop in crops])
    assert (is_same | is_mirrored).all()
    assert 0.4 < is_mirrored.float().mean() < 0.6


def test_crops_lie_inside_and_cover_the_areas_asked_for():
    """On an image of its own coordinates, the range of a crop's values is its size."""
    ramp = torch.linspace(0, 1, 256)
    image = torch.stack([ramp.expand(256, 256), ramp[:, None].expand(256, 256), torch.zeros(256, 256)])[None]
    settings = ViewSettings(crop_scale=(0.1, 0.5), noise_probability=0.0)
    crops = views(image, ids=[0], num_views=500, size=64, settings=settings)[:, :2]
    low, high = crops.amin(dim=(2, 3)), crops.amax(dim=(2, 3))
    width, height = ((high - low) * 64 / 63).unbind(dim=1)  # from pixel centre to pixel centre
    area, ratio = width * height, width / height
    assert 0.09 < area.min() < 0.15 and 0.42 < area.max() < 0.52
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.35
    assert low.min() < 0.02 and high.max() > 0.98


def test_noise_has_its_mean_and_std_and_comes_half_of_the_time(images):
    settings = ViewSettings(False, (1.0, 1.0), (1.0, 1.0), noise_std=0.2, noise_mean=0.5)
    noise = views(images[:1], ids=[0], num_views=300, size=20, settings=settings) - images[:1]
    is_noisy = noise.abs().amax(dim=(1, 2, 3)) > 1e-4
    assert 0.4 < is_noisy.float().mean() < 0.6
    torch.testing.assert_close(noise[is_noisy].mean(), torch.tensor(0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(noise[is_noisy].std(), torch.tensor(0.2), atol=0.01, rtol=0)


def test_gradient_reaches_the_pixels(images):
    images = images.double().requires_grad_()
    settings = ViewSettings(crop_scale=(0.5, 1.0))

    def crops(pixels):
        return views(pixels, num_views=1, size=4, settings=settings)

    assert torch.autograd.gradcheck(crops, (images[:, :, :6, :6].detach().requires_grad_(),))
    crops(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("bounded", [True, False])
def test_views_are_those_of_an_affine_grid(bounded):
    """Written out a second time, in float64: bounded crops repeat the edge, others have black beside it."""
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = views(images, ids=[4, 0, 9], num_views=40, settings=ViewSettings(bounded_crops=bounded), step=7)
    expected = written_out(images, [4, 0, 9], 40, 12, seed=0, step=7, bounded=bounded)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_default_views_are_what_they_were(images):
    pixels = views(images)[5, 1, 3, :4]
    expected = torch.tensor([0.41870051622390747, 0.5163713097572327, 0.3578265607357025, 0.4984854459762573])
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)


def test_a_seventh_of_unbounded_crops_are_larger_than_the_image():
    """Of those of area a > 3/4, the ones whose ratio is beyond 1 / a; the mean over areas from 0.08 to 1."""
    _, _, width, height = boxes(20_000, 0, seed=0, step=0)
    share = (torch.maximum(width.abs(), height) > 1).float().mean().item()
    expected = (1 / 4 - (1 / 4 + 3 / 4 * math.log(3 / 4)) / math.log(4 / 3)) / 0.92
    assert expected == pytest.approx(0.1424, abs=1e-4) and share == pytest.approx(expected, abs=0.01)


def test_what_lies_beside_the_image_is_black():
    """A white image of one pixel fades to black around its edge: it is at half there, and bounded crops never do."""
    white = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    settings = ViewSettings(bounded_crops=False, noise_probability=0.0)
    darkest = views(white, ids=[0], num_views=500, size=64, settings=settings).amin(dim=(1, 2, 3))
    x, y, width, height = boxes(500, 0, seed=0, step=0)
    reach = [centre.abs() + half.abs() * 63 / 64 for centre, half in ((x, width), (y, height))]
    expected = torch.stack([1 - side / 2 for side in reach]).prod(dim=0)
    assert 0.1 < (torch.stack(reach).amax(dim=0) > 1).float().mean() < 0.15
    torch.testing.assert_close(darkest, expected.double(), rtol=0, atol=1e-6)
    bounded = views(white, ids=[0], num_views=500, size=64, settings=ViewSettings(noise_probability=0.0))
    torch.testing.assert_close(bounded, torch.ones_like(bounded))
