import json
from importlib.util import find_spec

import pytest
import torch
import transformers as tf
from architectures import ARCHITECTURES
from conftest import SIDE, make_vit
from torch import nn

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.data.images import to_images, to_tensor


def build(name: str) -> nn.Module:
    """The tiny model of that name."""
    return next(row for row in ARCHITECTURES if row.name == name).build()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_normalisation_is_the_processors(images):
    model = build("DINOv2")
    backbone = FrozenBackbone(model, Preprocessing(32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)))
    normalised = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(backbone(images), model(normalised).pooler_output)


@pytest.mark.parametrize(
    ("pooling", "read"),
    [
        ("cls", lambda output: output.last_hidden_state[:, 0]),
        ("mean", lambda output: output.last_hidden_state.mean(dim=1)),
        ("pooler", lambda output: output.pooler_output),
    ],
)
def test_pooling_can_be_chosen(images, pooling, read):
    model = build("ViT")
    backbone = FrozenBackbone(model, Preprocessing(32, mean=(0, 0, 0), std=(1, 1, 1)), pooling=pooling)
    torch.testing.assert_close(backbone(images), read(model(images)))


def test_a_pooler_that_was_not_in_the_checkpoint_is_not_used(tmp_path):
    """CLIP's post-layernorm is its pooler; a checkpoint without ViT-like poolers leaves random weights behind."""
    model = build("DINOv2")
    assert FrozenBackbone(model, Preprocessing(32), random_weights={"pooler.dense.weight"}).pooling == "cls"


def test_any_module_with_its_own_preprocessing(images):
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    backbone = FrozenBackbone(module, Preprocessing(32))
    assert (backbone.pooling, backbone.dim, backbone.name) == ("gap", 5, "Sequential")
    assert backbone(images).shape == (2, 5)
    vectors = FrozenBackbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)), Preprocessing(32))
    assert vectors(images).shape == (2, 7)


def test_from_folder_and_from_the_live_model(model_folder):
    loaded = FrozenBackbone.from_pretrained(model_folder)
    assert loaded.describe() == {
        "name": "tiny-dinov2", "architecture": "Dinov2Model", "revision": None, "pooling": "pooler",
        "feature_size": 24, "dtype": "float32", "image_size": SIDE, "resize_ratio": 1.0,
        "mean": [0.4814547, 0.4578275, 0.4082107], "std": [0.2686295, 0.2613026, 0.2757771], "resample": "bicubic",
    }  # fmt: skip
    live = FrozenBackbone.wrap(tf.AutoModel.from_pretrained(model_folder))
    assert live.describe() == loaded.describe()
    assert live.fingerprint == loaded.fingerprint
    processor = tf.AutoImageProcessor.from_pretrained(model_folder, backend="pil")
    assert FrozenBackbone.wrap(make_vit(), processor).fingerprint == loaded.fingerprint
    assert FrozenBackbone.wrap(loaded) is loaded


def test_overrides_are_in_the_name_and_the_fingerprint(model_folder):
    native, other = (FrozenBackbone.from_pretrained(model_folder, image_size=side) for side in (None, 24))
    assert (other.name, other.image_size) == ("tiny-dinov2@24", 24)
    assert other.fingerprint != native.fingerprint
    assert FrozenBackbone.from_pretrained(model_folder, image_size=SIDE).name == "tiny-dinov2"
    pooled = FrozenBackbone.from_pretrained(model_folder, feature_pooling="mean")
    assert pooled.pooling == "mean" and pooled.fingerprint != native.fingerprint
    assert FrozenBackbone.from_pretrained(model_folder, dtype=torch.bfloat16).fingerprint != native.fingerprint


class Scaled(nn.Module):
    """A constant and code that no weight shows."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return images.mean(dim=(2, 3)) * self.factor


class Shifted(Scaled):
    def forward(self, images):
        return images.mean(dim=(2, 3)) + self.factor


def test_the_fingerprint_holds_constants_code_and_configuration():
    def fingerprint(module):
        return FrozenBackbone(module, Preprocessing(16), name="m").fingerprint

    assert fingerprint(Scaled(2)) == fingerprint(Scaled(2))
    assert len({fingerprint(Scaled(2)), fingerprint(Scaled(3)), fingerprint(Shifted(2))}) == 3
    model = build("DINOv2")
    before = fingerprint(model)
    model.config.layer_norm_eps = 0.1
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("name", "pooling", "message"),
    [
        (
            "ConvNeXt",
            "cls",
            r"gives a map of shape \(2, 16, 4, 4\), which feature_pooling cls does not fit: leave it out",
        ),
        ("ConvNeXt", "mean", "does not fit"),
        ("ViT", "gap", "gives tokens of shape"),
        ("ViT-MAE", "pooler", "no pooler in its output: choose another feature_pooling, such as mean"),
    ],
)
def test_a_pooling_that_does_not_fit(name, pooling, message):
    with pytest.raises(ValueError, match=message):
        FrozenBackbone(build(name), Preprocessing(32), pooling=pooling)


def test_normalisation_can_be_chosen(model_folder):
    backbone = FrozenBackbone.from_pretrained(model_folder, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    assert backbone.preprocessing.mean == (0, 0, 0) and backbone.std.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FrozenBackbone(make_vit(), Preprocessing(16), pooling="max"), ValueError, "one of cls, pooler, mean"),
        (lambda: FrozenBackbone.wrap(make_vit()), TypeError, "What does Dinov2Model take.*processing_class"),
        (lambda: FrozenBackbone.from_pretrained("./nowhere"), FileNotFoundError, "no folder './nowhere'"),
        (lambda: FrozenBackbone.from_pretrained("user/absent"), OSError, "can't be fetched.*built-in demo"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_folder_that_is_no_vision_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-we-know"}))
    with pytest.raises(ValueError, match=f"'{tmp_path}' can't be loaded with AutoModel .*nothing-we-know"):
        FrozenBackbone.from_pretrained(str(tmp_path))


def test_a_folder_without_weights(tmp_path):
    tf.Dinov2Config().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="can't be loaded: .*model.safetensors"):
        FrozenBackbone.from_pretrained(str(tmp_path))


def test_siglip2_patches_are_its_processors(images):
    """The same picture through the image processor of Transformers, which cuts patches of its own."""
    model = build("SigLIP 2 vision").eval()
    pictures = to_images(images)
    processor = tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    with torch.no_grad():
        expected = model(**processor(pictures, return_tensors="pt")).pooler_output
    pixels = torch.stack([to_tensor(picture) for picture in pictures]) / 255
    backbone = FrozenBackbone.wrap(model, processor)
    assert backbone.image_size == 32
    torch.testing.assert_close(backbone(pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_mae_sees_all_of_an_image(images):
    """The features of a masked autoencoder are those of the ViT with its weights."""
    mae = build("ViT-MAE")
    vit = tf.ViTModel(tf.ViTConfig(**mae.config.to_dict()), add_pooling_layer=False)
    vit.load_state_dict(mae.state_dict())
    same = [FrozenBackbone(model, Preprocessing(32)) for model in (mae, vit)]
    torch.testing.assert_close(same[0](images), same[1](images))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_and_precision_can_be_chosen(model_folder, implementation):
    backbone = FrozenBackbone.from_pretrained(
        model_folder, attn_implementation=implementation, dtype=torch.bfloat16, image_size=32
    )
    assert backbone.model.config._attn_implementation == implementation
    assert backbone.dtype == torch.bfloat16
    images = torch.rand(2, 3, 32, 32)
    reference = FrozenBackbone.from_pretrained(model_folder, image_size=32)
    torch.testing.assert_close(backbone(images).float(), reference(images), rtol=0.1, atol=0.1)


CODE = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel


class MeanConfig(PreTrainedConfig):
    model_type = "mean-colour"


class MeanModel(PreTrainedModel):
    config_class = MeanConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.post_init()

    def forward(self, pixel_values):
        return self.scale * pixel_values.mean(dim=(2, 3))
"""


def test_code_of_a_repository_runs_only_when_asked(tmp_path):
    from safetensors.torch import save_file

    auto_map = {"AutoConfig": "colour.MeanConfig", "AutoModel": "colour.MeanModel"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mean-colour", "auto_map": auto_map}))
    (tmp_path / "colour.py").write_text(CODE)
    save_file({"scale": torch.full((3,), 2.0)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"'{tmp_path}' runs code of its own.*add trust_remote_code=True"):
        FrozenBackbone.from_pretrained(str(tmp_path), image_size=8)
    backbone = FrozenBackbone.from_pretrained(
        str(tmp_path), image_size=8, image_mean=[0, 0, 0], image_std=[1, 1, 1], trust_remote_code=True
    )
    torch.testing.assert_close(backbone(torch.full((1, 3, 8, 8), 0.25)), torch.full((1, 3), 0.5))


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_timm_model_without_timm(tmp_path):
    values = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "pretrained_cfg": values}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ImportError, match=r"needs a package.*timm.*pip install 'hf_lgm\[timm\]'"):
        FrozenBackbone.from_pretrained(str(tmp_path))


def test_another_precision_is_a_copy(backbone):
    other = backbone.cast(torch.bfloat16)
    assert (backbone.dtype, other.dtype, other.mean.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert other.fingerprint != backbone.fingerprint and backbone.cast(torch.float32) is backbone


def test_channels_of_convolutions_lie_side_by_side():
    convolutions = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3), torch.nn.Flatten())
    backbone = FrozenBackbone(convolutions, Preprocessing(8))
    assert convolutions[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(backbone(torch.rand(2, 3, 8, 8)).shape, torch.Size([2, 64]))
