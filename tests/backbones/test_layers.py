"""What a model says on the way: which layers are taken, what they are, and which sides it takes."""

from types import SimpleNamespace

import pytest
import torch
from conftest import SIDE, make_vit
from torch import nn
from transformers import ResNetConfig, ResNetModel, SwinConfig, SwinModel, ViTConfig, ViTModel

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.backbones.layers import find_layers


def states(*shapes):
    return SimpleNamespace(hidden_states=tuple(torch.zeros(2, *shape) for shape in shapes))


def make_deep_vit(layers=8):
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=SIDE, patch_size=8, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    return FrozenBackbone(
        ViTModel(config, add_pooling_layer=False), Preprocessing(SIDE, resize_ratio=1.0), name="deep"
    )


def make_resnet(side=64):
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1, 2, 1, 1], layer_type="basic")
    return FrozenBackbone(ResNetModel(config), Preprocessing(side, resize_ratio=1.0), name="resnet")


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, (8,)), (2, (4, 8)), (3, (4, 6, 8)), (5, (4, 5, 6, 7, 8)), (0, ()), (40, (4, 5, 6, 7, 8))]
)
def test_depths_of_a_plain_transformer(count, wanted):
    assert make_deep_vit().with_layers(count).layers == wanted


@pytest.mark.parametrize(("count", "wanted"), [(1, (4,)), (3, (2, 3, 4)), (9, (1, 2, 3, 4))])
def test_the_last_blocks_of_the_last_stages(count, wanted):
    assert make_resnet().with_layers(count).layers == wanted


def test_stages_are_found_where_every_block_is_shown():
    maps = [(4, 16, 16), (8, 16, 16), (8, 8, 8), (8, 8, 8), (12, 4, 4), (16, 2, 2), (16, 2, 2)]
    assert find_layers(states(*maps), 3) == (3, 4, 6)
    tokens = [(64, 8), (64, 8), (16, 16), (4, 32), (4, 32)]
    assert find_layers(states(*tokens), 3) == (1, 2, 4)


def test_what_is_no_map_of_two_images_is_no_layer():
    assert find_layers(None, 3) == find_layers(SimpleNamespace(), 3) == find_layers(states(), 3) == ()
    assert find_layers(states((4,), (4,)), 3) == ()


def test_a_layer_is_the_mean_over_tokens_or_places():
    for backbone in (make_deep_vit(), make_resnet()):
        side, images = backbone.image_size, torch.rand(3, 3, backbone.image_size, backbone.image_size)
        layered = backbone.with_layers(3)
        z = layered.forward_with_layers(images)
        assert z.shape == (3, sum(layered.widths)) and torch.equal(z[:, : layered.dim], backbone(images))
        pixels = (images - backbone.mean) / backbone.std
        output = backbone.model(pixels, output_hidden_states=True)
        for got, layer in zip(z.split(layered.widths, dim=1)[1:], layered.layers, strict=True):
            state = output.hidden_states[layer]
            wanted = state.mean(dim=(2, 3)) if state.ndim == 4 else state.mean(dim=1)
            torch.testing.assert_close(got, wanted)
        assert backbone.layers == () and side == layered.image_size  # the one it was asked of is as it was


def test_a_model_that_shows_none_says_so(caplog):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    backbone = FrozenBackbone(module, Preprocessing(SIDE), name="two layers").with_layers(3)
    assert backbone.layers == () and backbone.widths == (4,)
    assert "two layers shows no layers (hidden states): it is matched by its features alone" in caplog.text
    images = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(backbone.forward_with_layers(images), backbone(images))


def test_layers_have_a_gradient_to_the_pixels_and_none_to_the_weights():
    backbone = make_resnet().with_layers(3)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    backbone.forward_with_layers(images)[:, backbone.dim :].square().sum().backward()
    assert images.grad.abs().sum() > 0 and all(p.grad is None for p in backbone.parameters())


def test_sides_are_tried():
    backbone = FrozenBackbone(make_vit(), Preprocessing(SIDE), name="tiny-dinov2").with_layers(3)
    assert [side for side in (4, 8, 12, 16, 24) if backbone.takes(side)] == [8, 12, 16, 24]
    assert backbone.patch_size == 8 and make_resnet().patch_size == 8


def test_a_side_that_would_change_the_model_is_not_taken():
    """Swin makes its windows smaller for an image smaller than these, and does not make them larger again."""
    torch.manual_seed(0)
    config = SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4)
    backbone = FrozenBackbone(SwinModel(config), Preprocessing(32, resize_ratio=1.0), name="swin")
    images = torch.rand(2, 3, 32, 32)
    before = backbone(images)
    assert not backbone.takes(8) and backbone.takes(40)
    assert torch.equal(backbone(images), before)
