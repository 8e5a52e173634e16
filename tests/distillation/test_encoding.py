import pytest
import torch
from conftest import SIDE, make_vit

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.data.augmentation import random_views
from hf_lgm.distillation.encoding import ChunkedEncoding
from hf_lgm.distillation.synthetic import SyntheticImages
from hf_lgm.settings import ViewSettings


def backward(encoding, pixels, dz):
    """Through the backbone to the pixels, and from there to what they are made of."""
    gradient = torch.zeros_like(pixels)
    encoding.backward(dz, gradient)
    pixels.backward(gradient)


@pytest.fixture
def double_backbone():
    return FrozenBackbone(make_vit(), Preprocessing(image_size=SIDE)).double()


def encoded(backbone, chunk_size):
    images = SyntheticImages(range(7), SIDE, seed=0).double()

    def encode(pixels, ids):
        return backbone(random_views(pixels, ids.tolist(), 3, SIDE, ViewSettings(), seed=0, step=1)).unflatten(
            0, (len(pixels), 3)
        )

    pixels = images()
    encoding = ChunkedEncoding(encode, pixels, torch.arange(7), chunk_size)
    backward(encoding, pixels, torch.sin(encoding.z))
    return encoding.z, images.levels[0].grad


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 100])
def test_chunks_are_exact(double_backbone, chunk_size):
    z, gradient = encoded(double_backbone, None)
    chunked_z, chunked_gradient = encoded(double_backbone, chunk_size)
    assert gradient.abs().max() > 1e-6
    torch.testing.assert_close(chunked_z, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(chunked_gradient, gradient, rtol=0, atol=1e-12)


def test_of_many_chunks_the_last_keeps_its_graph():
    calls = []

    def encode(pixels, ids):
        calls.append(torch.is_grad_enabled())
        return pixels.sum(dim=(1, 2, 3))

    pixels = torch.rand(4, 3, SIDE, SIDE)
    encoding = ChunkedEncoding(encode, pixels, torch.arange(4), chunk_size=2)
    assert calls == [False, True]
    gradient = torch.ones_like(pixels)  # of another backbone, which stays
    encoding.backward(torch.ones(4), gradient)
    assert calls == [False, True, True]
    torch.testing.assert_close(gradient, torch.full_like(pixels, 2))


def test_no_images_is_no_error():
    """With more processes than images, some own none; Adam still wants a gradient of their shape."""
    images = SyntheticImages([], SIDE, seed=0)
    images.set_num_levels(3)
    pixels = images()
    encoding = ChunkedEncoding(lambda pixels, ids: pixels.new_zeros(0, 2, 5), pixels, torch.arange(0))
    backward(encoding, pixels, torch.zeros(0, 2, 5))
    assert [tuple(level.grad.shape) for level in images.levels] == [(0, 3, 1, 1), (0, 3, 2, 2), (0, 3, 4, 4)]


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_chunks_in_bf16_differ_by_rounding(chunk_size):
    """Sums in another order: bf16 keeps 8 bits, and a gradient is a sum of many."""
    backbone = FrozenBackbone(make_vit(), Preprocessing(image_size=SIDE)).cast(torch.bfloat16)
    images = [SyntheticImages(range(7), SIDE, seed=0) for _ in range(2)]
    for each, size in zip(images, (None, chunk_size), strict=True):
        pixels = each()
        encoding = ChunkedEncoding(lambda chunk, ids: backbone(chunk), pixels, torch.arange(7), size)
        backward(encoding, pixels, torch.sin(encoding.z))
    one, many = (each.levels[0].grad for each in images)
    assert (many - one).norm() < 2**-7 * one.norm()
