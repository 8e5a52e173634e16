"""Live models that are more than a backbone."""

import logging

import pytest
import torch
import transformers as tf
from conftest import SIDE
from torch import nn

from hf_lgm import FrozenBackbone, Preprocessing

SIZE = {"height": SIDE, "width": SIDE}
PROCESSOR = tf.BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIZE)
VIT = tf.ViTConfig(
    image_size=SIDE, patch_size=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
)
RESNET = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")


@pytest.mark.parametrize(
    ("kind", "config", "base_kind", "prefix"),
    [
        (tf.ViTForImageClassification, VIT, tf.ViTModel, "vit"),
        (tf.ResNetForImageClassification, RESNET, tf.ResNetModel, "resnet"),
    ],
)
def test_of_an_image_classifier_the_base_is_taken(kind, config, base_kind, prefix, tmp_path, caplog):
    torch.manual_seed(0)
    kind(config).save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    live = kind.from_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="hf_lgm"):
        backbone = FrozenBackbone.wrap(live)
    said = [record.getMessage() for record in caplog.records if "classifier" in record.getMessage()]
    assert said == [f"{kind.__name__} is an image classifier: features are those of its base, {base_kind.__name__}"]
    images = torch.rand(3, 3, SIDE, SIDE)
    base = FrozenBackbone(getattr(live, prefix), Preprocessing.from_processor(PROCESSOR))
    assert torch.equal(backbone(images), base(images))
    assert (backbone.describe()["architecture"], backbone.dim) == (base_kind.__name__, base.dim)
    loaded = FrozenBackbone.from_pretrained(str(tmp_path))  # by AutoModel, which leaves the classifier out
    torch.testing.assert_close(backbone(images), loaded(images))
    assert torch.equal(FrozenBackbone.wrap(live, PROCESSOR)(images), base(images))


class Timm(nn.Module):
    """As timm's models are."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.pretrained_cfg = {
            "architecture": "tiny", "input_size": (3, SIDE, SIDE), "mean": (0.5,) * 3, "std": (0.5,) * 3,
            "crop_pct": 1.0, "interpolation": "bicubic",
        }  # fmt: skip
        self.body, self.num_classes = nn.Conv2d(3, 6, 4, 4), num_classes
        self.head = nn.Linear(6, num_classes) if num_classes else nn.Identity()

    def reset_classifier(self, num_classes):
        self.num_classes, self.head = num_classes, nn.Identity()

    def forward(self, pixels):
        return self.head(self.body(pixels).mean(dim=(2, 3)))


def test_a_model_of_timm_says_itself_what_it_takes():
    model = Timm()
    backbone = FrozenBackbone.wrap(model)
    images = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(backbone(images), model.body((images - 0.5) / 0.5).mean(dim=(2, 3)))
    assert (backbone.name, backbone.dim, backbone.image_size) == ("tiny", 6, SIDE)
    assert model.num_classes == 10 and model(images).shape == (2, 10)  # its owner's is as it was
    features = Timm(num_classes=0)
    assert FrozenBackbone.wrap(features).model is features


def test_something_else_is_one_sentence():
    with pytest.raises(
        TypeError, match="Expected as model a Hub id, a folder, a torch.nn.Module or a FrozenBackbone, found int"
    ):
        FrozenBackbone.wrap(3)
