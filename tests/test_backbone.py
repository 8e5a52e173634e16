import json

import pytest
import torch
import transformers as tf
from conftest import SIDE, make_vit
from torch import nn

from hf_lgm import FrozenBackbone, Preprocessing

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {"image_size": 32, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
VISION = {**SMALL, **PATCHES}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}

MODELS = {  # model, pooling that its own outputs ask for, feature size
    "dinov2": (lambda: tf.Dinov2Model(tf.Dinov2Config(**SMALL, **PATCHES)), "pooler", 32),
    "vit": (lambda: tf.ViTModel(tf.ViTConfig(**VISION)), "cls", 32),  # the tanh pooler is not used
    "clip": (
        lambda: tf.CLIPModel(tf.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)),
        "projection",
        16,
    ),
    "clip vision": (lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)), "pooler", 32),
    "clip vision projection": (
        lambda: tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(**VISION, projection_dim=16)),
        "projection",
        16,
    ),
    "siglip": (lambda: tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION)), "projection", 32),
    "siglip vision": (lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)), "pooler", 32),
    "convnext": (lambda: tf.ConvNextModel(tf.ConvNextConfig(**CONVNEXT)), "pooler", 16),
    "resnet": (lambda: tf.ResNetModel(tf.ResNetConfig(**RESNET)), "pooler", 16),
    "swin": (lambda: tf.SwinModel(tf.SwinConfig(**SWIN)), "pooler", 16),
    "mobilenet v1": (lambda: tf.MobileNetV1Model(tf.MobileNetV1Config(depth_multiplier=0.25)), "pooler", 256),
    "mobilenet v2": (lambda: tf.MobileNetV2Model(tf.MobileNetV2Config(depth_multiplier=0.35)), "pooler", 1280),
    "vit-mae": (lambda: tf.ViTMAEModel(tf.ViTMAEConfig(**VISION)), "cls", 32),
    "i-jepa": (lambda: tf.IJepaModel(tf.IJepaConfig(**VISION)), "mean", 32),
}


def build(name: str) -> nn.Module:
    """A tiny random model whose batch norms have seen data: with statistics of 0 and 1 deep signals die out."""
    torch.manual_seed(0)
    model = MODELS[name][0]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Conv2d) and "mobilenet" in name:
            nn.init.kaiming_normal_(module.weight)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        with torch.no_grad():
            model.train()(torch.rand(8, 3, 32, 32))
    return model


@pytest.fixture(scope="module", params=MODELS)
def named_model(request):
    return request.param, build(request.param)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_features_of_every_family(named_model, images):
    name, model = named_model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    backbone = FrozenBackbone(model, Preprocessing(image_size=32)).train()
    assert (backbone.pooling, backbone.dim) == MODELS[name][1:]
    images.requires_grad_()
    z = backbone(images)
    assert z.shape == (2, backbone.dim) and z.isfinite().all() and z.std() > 1e-6
    torch.testing.assert_close(backbone(images), z, rtol=0, atol=0)  # no dropout, no random masks
    z.square().sum().backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0
    frozen = backbone.model.state_dict()
    assert all(torch.equal(frozen[key], value) for key, value in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


def test_another_side_than_the_models_own(named_model):
    name, model = named_model
    backbone = FrozenBackbone(model, Preprocessing(image_size=48))
    assert backbone(torch.rand(1, 3, 48, 48)).shape == (1, MODELS[name][2])


def test_normalisation_is_the_processors(images):
    model = build("dinov2")
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
    model = build("vit")
    backbone = FrozenBackbone(model, Preprocessing(32, mean=(0, 0, 0), std=(1, 1, 1)), pooling=pooling)
    torch.testing.assert_close(backbone(images), read(model(images)))


def test_a_pooler_that_was_not_in_the_checkpoint_is_not_used(tmp_path):
    """CLIP's post-layernorm is its pooler; a checkpoint without ViT-like poolers leaves random weights behind."""
    model = build("dinov2")
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
        "mean": [0.481455, 0.457827, 0.408211], "std": [0.26863, 0.261303, 0.275777],
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
    model = build("dinov2")
    before = fingerprint(model)
    model.config.layer_norm_eps = 0.1
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("name", "pooling", "message"),
    [
        ("convnext", "cls", r"gives a map of shape \(1, 16, 4, 4\), which --feature_pooling cls does not fit"),
        ("convnext", "mean", "does not fit"),
        ("vit", "gap", "gives tokens of shape"),
        ("vit-mae", "pooler", "has no pooler"),
    ],
)
def test_a_pooling_that_does_not_fit(name, pooling, message):
    with pytest.raises(ValueError, match=message):
        FrozenBackbone(build(name), Preprocessing(32), pooling=pooling).dim  # noqa: B018


def test_normalisation_can_be_chosen(model_folder):
    backbone = FrozenBackbone.from_pretrained(model_folder, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    assert backbone.preprocessing.mean == (0, 0, 0) and backbone.std.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FrozenBackbone(make_vit(), Preprocessing(16), pooling="max"), ValueError, "one of cls, pooler, mean"),
        (lambda: FrozenBackbone.wrap(make_vit()), TypeError, "What does Dinov2Model take.*processing_class"),
        (
            lambda: FrozenBackbone(tf.BertModel(tf.BertConfig(**TEXT)), Preprocessing(16)),
            ValueError,
            "BertModel takes 'input_ids', not images",
        ),
        (
            lambda: FrozenBackbone(tf.ResNetBackbone(tf.ResNetConfig(**RESNET)), Preprocessing(32)),
            ValueError,
            "ResNetBackbone does not give one feature vector per image",
        ),
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
    tf.Dinov2Config(**SMALL, **PATCHES).save_pretrained(tmp_path)
    with pytest.raises(OSError, match="can't be loaded: .*model.safetensors"):
        FrozenBackbone.from_pretrained(str(tmp_path))
