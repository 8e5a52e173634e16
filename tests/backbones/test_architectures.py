"""Every architecture of the table, through `FrozenBackbone` as a user would have it."""

import functools
import operator
import re
from importlib.util import find_spec

import pytest
import torch
from architectures import ARCHITECTURES, FIXED, REFUSED, SIDE, page, refusal
from conftest import ROOT

from hf_lgm import FrozenBackbone, Preprocessing

OTHER_SIDE = 64  # a multiple of every window
PAGE = ROOT / "docs" / "backbones.md"

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
rows = [
    pytest.param(
        row, id=row.name, marks=pytest.mark.skipif(row.needs_timm and not find_spec("timm"), reason="no timm")
    )
    for row in ARCHITECTURES
]


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def declared_size(config, path: str) -> int:
    """`"512"`, or a path into the configuration such as `"vision_config.hidden_sizes[-1]"`."""
    if path.isdigit():
        return int(path)
    name, index = re.fullmatch(r"([\w.]+)(?:\[(-?\d+)\])?", path).groups()
    value = functools.reduce(getattr, name.split("."), config)
    return operator.getitem(value, int(index)) if index else value


@pytest.mark.parametrize("row", rows)
def test_features(row, images):
    model = row.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    backbone = FrozenBackbone(model, Preprocessing(SIDE)).train()
    assert (type(model).__name__, backbone.pooling) == (row.class_name, row.pooling)
    assert backbone.dim == declared_size(model.config, row.feature_size)
    pixels = images.clone().requires_grad_()
    z = backbone(pixels)
    assert z.shape == (3, backbone.dim) and z.isfinite().all()
    assert (z[0] - z[1]).abs().max() > 1e-6  # depends on the image …
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)  # … on nothing that is drawn
    z.square().sum().backward()
    assert pixels.grad.isfinite().all() and (pixels.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert all(torch.equal(backbone.model.state_dict()[name], value) for name, value in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())
    backbone.double()  # nor on its neighbours in the batch
    torch.testing.assert_close(backbone(images[1:2]), backbone(images)[1:2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("row", rows)
def test_another_side(row):
    model = row.build()
    if row.side == FIXED:
        with pytest.raises(ValueError, match=f"{row.class_name} does not take images of {OTHER_SIDE} x {OTHER_SIDE}"):
            FrozenBackbone(model, Preprocessing(OTHER_SIDE))
    else:
        backbone = FrozenBackbone(model, Preprocessing(OTHER_SIDE))
        pixels = torch.rand(1, 3, OTHER_SIDE, OTHER_SIDE, requires_grad=True)
        z = backbone(pixels)
        z.square().sum().backward()
        assert z.shape == (1, declared_size(model.config, row.feature_size)) and pixels.grad.abs().sum() > 0


@pytest.mark.parametrize("row", rows)
def test_layers(row, images):
    plain = FrozenBackbone(row.build(), Preprocessing(SIDE))
    backbone = plain.with_layers(3)
    z = backbone.forward_with_layers(images)
    assert z.shape == (3, sum(backbone.widths)) and z.isfinite().all()
    assert torch.equal(z[:, : backbone.dim], plain(images))
    blocks = range(1, 1 + (getattr(plain.model.config, "num_hidden_layers", None) or 0))
    if row.layers == "none":
        assert backbone.layers == ()
    elif row.layers == "depths" and blocks:
        assert backbone.layers == tuple(dict.fromkeys([len(blocks) // 2, round(0.75 * len(blocks)), len(blocks)]))
    else:
        assert 1 <= len(backbone.layers) <= 3


@pytest.mark.parametrize("row", [row for row in rows if row.values[0].model_class is None])
def test_saved_and_loaded_by_id(row, images, tmp_path):
    model = row.build()
    model.save_pretrained(tmp_path)
    loaded = FrozenBackbone.from_pretrained(str(tmp_path), image_size=SIDE)
    p = loaded.preprocessing
    live = FrozenBackbone(model, Preprocessing(SIDE, p.mean, p.std))
    assert loaded.pooling == live.pooling
    torch.testing.assert_close(loaded(images), live(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "make", "side", "message"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_refusals(name, make, side, message):
    assert re.search(message, refusal(make, side))


def test_the_page_of_the_documentation_is_this_table():
    assert PAGE.read_text(encoding="utf-8") == page()
    assert len(ARCHITECTURES) >= 45
