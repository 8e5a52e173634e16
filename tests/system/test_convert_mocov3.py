"""MoCo-v3's checkpoints as ViTModels, against the forward pass of its own module written out."""

import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from safetensors.torch import save_file

from hf_lgm import FrozenBackbone

SCRIPT = str(ROOT / "scripts" / "convert_mocov3.py")
DIM, DEPTH, HEADS, PATCH, SIDE = 24, 2, 3, 8, 32
ENCODERS = ("module.base_encoder.", "module.momentum_encoder.")


def sine_cosine_positions():
    """As MoCo-v3 fixes them: a quarter of the features each for sine and cosine of the row and of the column."""
    rows, columns = torch.meshgrid(torch.arange(SIDE // PATCH), torch.arange(SIDE // PATCH), indexing="ij")
    frequencies = 10000.0 ** -(torch.arange(DIM // 4, dtype=torch.float64) / (DIM // 4))
    angles = [place.flatten()[:, None] * frequencies for place in (rows, columns)]
    positions = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, DIM), positions])[None]


def parameters(generator):
    """One encoder, in float64, none of its parameters at a value that would hide a mistake."""

    def random(*shape):
        return 0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    encoder = {
        "cls_token": random(1, 1, DIM), "pos_embed": sine_cosine_positions(),
        "patch_embed.proj.weight": random(DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": random(DIM),
        "norm.weight": 1 + random(DIM), "norm.bias": random(DIM),
        "head.0.weight": random(8, DIM), "head.1.weight": random(8), "head.1.running_mean": random(8),
    }  # fmt: skip
    linear = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
    linear |= {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
    for block in range(DEPTH):
        for norm in ("norm1", "norm2"):
            encoder[f"blocks.{block}.{norm}.weight"] = 1 + random(DIM)
            encoder[f"blocks.{block}.{norm}.bias"] = random(DIM)
        for name, (out, into) in linear.items():
            encoder[f"blocks.{block}.{name}.weight"] = random(out, into)
            encoder[f"blocks.{block}.{name}.bias"] = random(out)
    return encoder


@pytest.fixture(scope="module")
def state_dict():
    """As it lies in the checkpoint: two encoders that differ, and a predictor."""
    generator = torch.Generator().manual_seed(0)
    encoders = {prefix: parameters(generator) for prefix in ENCODERS}
    flat = {prefix + name: tensor for prefix, encoder in encoders.items() for name, tensor in encoder.items()}
    return {**flat, "module.predictor.0.weight": torch.zeros(8, 8)}


@pytest.fixture(scope="module")
def convert():
    return runpy.run_path(SCRIPT)["convert"]


def forward(p, images):
    """The class token after the last norm: a pre-norm ViT, in the parameters' own names."""

    def norm(x, name):
        return F.layer_norm(x, (DIM,), p[f"{name}.weight"], p[f"{name}.bias"], eps=1e-6)

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = F.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], dim=1) + p["pos_embed"]
    for i in range(DEPTH):
        qkv = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").unflatten(-1, (3, HEADS, DIM // HEADS))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(dim=-1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"blocks.{i}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")), f"blocks.{i}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def test_the_features_are_those_of_the_original(convert, state_dict):
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoder = {name.removeprefix(ENCODERS[0]): value for name, value in state_dict.items() if ENCODERS[0] in name}
    model = convert(state_dict, HEADS)
    torch.testing.assert_close(model(images).last_hidden_state[:, 0], forward(encoder, images), rtol=0, atol=1e-12)
    assert model.config.image_size == SIDE and model.config.num_hidden_layers == DEPTH
    assert torch.equal(model.embeddings.position_embeddings, sine_cosine_positions())


def pickled(state_dict, path):
    """As it was published: with what training needs besides."""
    torch.save({"epoch": 300, "arch": "vit_base", "state_dict": state_dict}, path)


def only_the_encoder(state_dict, path):
    """As it lies on the Hub: its parameters under their own names."""
    encoder = {k.removeprefix(ENCODERS[0]): v.contiguous() for k, v in state_dict.items() if ENCODERS[0] in k}
    save_file(encoder, path)


@pytest.mark.parametrize(("name", "save"), [("vit-b-300ep.pth.tar", pickled), ("model.safetensors", only_the_encoder)])
def test_from_file_to_backbone(name, save, state_dict, tmp_path, monkeypatch, capsys):
    """As a user does it; `AutoModel` would give it a random pooler, which is not used."""
    save({k: v.float() for k, v in state_dict.items()}, tmp_path / name)
    flags = ["--checkpoint", str(tmp_path / name), "--output_dir", str(tmp_path / "mocov3")]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *flags, "--num_attention_heads", str(HEADS)])
    runpy.run_path(SCRIPT, run_name="__main__")
    assert "ViTModel" in capsys.readouterr().out
    backbone = FrozenBackbone.from_pretrained(str(tmp_path / "mocov3"))
    assert (backbone.pooling, backbone.dim, backbone.image_size) == ("cls", DIM, SIDE)
    encoder = {k.removeprefix(ENCODERS[0]): v.float() for k, v in state_dict.items() if ENCODERS[0] in k}
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(backbone(images), forward(encoder, (images - mean) / std), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"module.base_encoder.patch_embed.proj.0.weight": torch.zeros(1)}, "a convolutional stem"),
        (lambda state: {"fc.weight": torch.zeros(1)}, "found parameters such as fc.weight"),
        (
            lambda state: {**state, "module.base_encoder.blocks.0.gamma": torch.zeros(1)},
            "found a parameter 'blocks.0.gamma', which it does not have",
        ),
    ],
)
def test_what_is_no_mocov3(convert, state_dict, change, message):
    with pytest.raises(ValueError, match=message):
        convert(change(state_dict), HEADS)
