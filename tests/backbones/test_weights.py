"""The weights are the checkpoint's: what it lacks is an error where the features need it, and only there."""

from pathlib import Path

import pytest
import torch
import transformers as tf
from conftest import make_vit
from safetensors.torch import load_file, save_file

from hf_lgm import FrozenBackbone, Preprocessing


def saved(folder: Path, change) -> str:
    """A tiny DINOv2 whose weights were changed."""
    make_vit().save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "student.backbone.", "module.dinov2."])
def test_weights_behind_a_prefix_are_an_error_that_says_how_to_strip_it(tmp_path, prefix):
    model = saved(tmp_path, lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()})
    with pytest.raises(
        ValueError, match=rf"embeddings\.cls_token.*There they begin with '{prefix}': give strip_prefix"
    ):
        FrozenBackbone.from_pretrained(model)
    stripped = FrozenBackbone.from_pretrained(model, strip_prefix=prefix)
    images = torch.rand(2, 3, 16, 16)
    plain = FrozenBackbone.from_pretrained(saved(tmp_path / "plain", dict))
    assert torch.equal(stripped(images), plain(images))


@pytest.mark.parametrize(
    ("in_file", "name"),
    [
        ("layernorm.weight", "layernorm.weight"),
        ("encoder.layer.0.attention.attention.query.weight", "encoder.layer.0.attention.q_proj.weight"),
        ("encoder.layer.0.attention.attention.key.weight", "encoder.layer.0.attention.k_proj.weight"),
        ("encoder.layer.0.mlp.fc2.bias", "encoder.layer.0.mlp.fc2.bias"),
        ("embeddings.position_embeddings", "embeddings.position_embeddings"),
    ],
)
def test_one_missing_weight_that_features_need_is_an_error(tmp_path, in_file, name):
    def change(weights):
        del weights[in_file]
        return weights

    model = saved(tmp_path, change)
    with pytest.raises(ValueError, match=rf"weights that its features need .*: {name}\. They would be random"):
        FrozenBackbone.from_pretrained(model)


def test_a_weight_of_another_shape_is_an_error(tmp_path):
    model = saved(tmp_path, lambda weights: {**weights, "layernorm.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"in another shape: layernorm.weight\."):
        FrozenBackbone.from_pretrained(model)


def test_what_features_do_without_may_be_missing_or_besides(tmp_path, caplog):
    def change(weights):
        del weights["embeddings.mask_token"]
        return {**weights, "head.weight": torch.ones(3, 24)}

    plain = FrozenBackbone.from_pretrained(saved(tmp_path / "plain", dict))
    assert FrozenBackbone.from_pretrained(saved(tmp_path / "other", change)).pooling == plain.pooling
    assert "LOAD REPORT" not in caplog.text


def test_a_random_pooler_is_refused_where_it_is_asked_for(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = tf.ViTConfig(**small, image_size=16, patch_size=8)
    tf.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    assert FrozenBackbone.from_pretrained(str(tmp_path)).pooling == "cls"
    with pytest.raises(ValueError, match=r"need are not .*: pooler.dense.bias, pooler.dense.weight\."):
        FrozenBackbone.from_pretrained(str(tmp_path), feature_pooling="pooler")


def test_a_file_that_is_cut_off_is_a_sentence(tmp_path):
    model = saved(tmp_path, dict)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="can't be loaded with AutoModel"):
        FrozenBackbone.from_pretrained(model)


def test_weights_that_are_not_finite_are_an_error_before_any_work(tmp_path):
    model = saved(tmp_path, lambda weights: {**weights, "layernorm.bias": torch.full((24,), torch.nan)})
    with pytest.raises(
        ValueError, match=r"gives features that are not finite, in torch.float32: its weights hold NaN"
    ):
        FrozenBackbone.from_pretrained(model)


def test_a_live_model_that_its_owner_trains_on_gives_the_same_features():
    model = tf.ViTModel(
        tf.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16,
            patch_size=8, hidden_dropout_prob=0.5,
        )
    )  # fmt: skip
    backbone, images = FrozenBackbone(model, Preprocessing(16)), torch.rand(2, 3, 16, 16)
    before = backbone(images)
    model.train()
    assert torch.equal(backbone(images), before)


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_pooler_that_is_not_there_is_said_and_a_hidden_one_refused(tmp_path, prefix, caplog):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    tf.BeitModel(tf.BeitConfig(**small, image_size=16, patch_size=8)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    poolers = {f"{prefix}{name}": tensor for name, tensor in weights.items() if name.startswith("pooler.") and prefix}
    save_file({**kept, **poolers}, path, metadata={"format": "pt"})
    if prefix:
        with pytest.raises(ValueError, match=r"pooler.layernorm.bias.*There they begin with '_orig_mod.'"):
            FrozenBackbone.from_pretrained(str(tmp_path))
        return
    assert FrozenBackbone.from_pretrained(str(tmp_path)).pooling == "cls"
    assert "lacks weights for 'pooler': its features are 'cls'" in caplog.text


def test_quantised_weights_are_refused(tmp_path):
    scale = {"encoder.layer.0.mlp.fc1.weight_scale": torch.ones(1)}
    with pytest.raises(
        ValueError, match=r"quantised \(encoder.layer.0.mlp.fc1.weight_scale\): give a checkpoint of fl"
    ):
        FrozenBackbone.from_pretrained(saved(tmp_path, lambda weights: {**weights, **scale}))


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", b"text"])
def test_a_pickle_that_is_none_is_a_sentence(tmp_path, content):
    model = saved(tmp_path, dict)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match="can't be loaded with AutoModel"):
        FrozenBackbone.from_pretrained(model)
