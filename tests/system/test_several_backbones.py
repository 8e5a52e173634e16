"""One set of images for several backbones, each with its own features, geometry and normalisation."""

import pytest
import torch
from conftest import SIDE, make_dataset
from transformers import ViTConfig, ViTModel

from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing
from hf_lgm.publishing.card import how_it_was_made
from hf_lgm.publishing.provenance import made_through


@pytest.fixture
def other():
    """A larger input, other statistics and another width than the first."""
    torch.manual_seed(3)
    config = ViTConfig(image_size=24, patch_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    preprocessing = Preprocessing(24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize_ratio=1.0)
    return FrozenBackbone(ViTModel(config, add_pooling_layer=False), preprocessing, name="tiny-vit")


def make(backbones, splits, folder, **settings):
    settings = {"max_steps": 6, "views_per_step": 3, "save_strategy": "no", "disable_tqdm": True, **settings}
    settings = {"init": "noise", **settings}
    return LGMDistiller(backbones, LGMConfig(str(folder), **settings), splits["train"], splits["test"])


def gradients(backbones, splits, folder, **settings):
    """Of the pixels in step 0, with the loss."""
    distiller = make(backbones, splits, folder, parameterization="pixel", **settings)
    distiller._begin(None)
    loss = distiller.training_step(0, [next(real) for real in distiller._real_features()])
    return loss, distiller.images.levels[0].grad


def test_the_gradient_is_the_mean_of_those_through_each(backbone, splits, tmp_path):
    same_side = FrozenBackbone(backbone.model, Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3, 1.0), name="other")
    singles = [gradients(each.double(), splits, tmp_path / each.name) for each in (backbone, same_side)]
    loss, gradient = gradients([backbone.double(), same_side.double()], splits, tmp_path / "both")
    torch.testing.assert_close(loss, sum(loss for loss, _ in singles) / 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, sum(gradient for _, gradient in singles) / 2, rtol=0, atol=1e-12)


def test_images_have_the_larger_side_and_both_losses_fall(backbone, other, splits, tmp_path):
    distiller = make([backbone, other], splits, tmp_path / "out", max_steps=60)
    distiller.train()
    losses = [log["loss"] for log in distiller.state.log_history]
    assert distiller.images.size == 24
    assert losses[-1] < 0.6 * losses[0]
    metrics = distiller.evaluate()
    assert set(metrics) == {
        "eval_accuracy",
        "eval_accuracy_std",
        "eval_accuracy_tiny-vit",
        "eval_accuracy_std_tiny-vit",
    }
    assert min(metrics["eval_accuracy"], metrics["eval_accuracy_tiny-vit"]) > 80  # three colours


def test_the_card_names_both(backbone, other, splits, tmp_path):
    folder = make([backbone, other], splits, tmp_path / "out", max_steps=1)
    folder.train()
    config = folder.distilled_set().config
    assert made_through(config) == ["tiny-dinov2", "tiny-vit"]
    assert "tiny-vit, ViTModel, cls features, 24 x 24 pixels" in how_it_was_made(config)["facts"]["backbone"]
    text = (folder.save_model() / "README.md").read_text()
    assert "through tiny-dinov2 and tiny-vit." in text


def test_a_checkpoint_of_one_is_not_that_of_two(backbone, other, splits, tmp_path):
    make(backbone, splits, tmp_path / "out", save_strategy="steps", save_steps=3).train()
    with pytest.raises(ValueError, match="made with other settings: backbone="):
        make([backbone, other], splits, tmp_path / "out").train(resume_from_checkpoint=True)


def test_a_stream_is_encoded_through_both(backbone, other, tmp_path):
    stream = make_dataset().to_iterable_dataset()
    args = LGMConfig(str(tmp_path / "out"), max_steps=2, save_strategy="no", disable_tqdm=True)
    distiller = LGMDistiller([backbone, other], args, stream)
    distiller.train()
    real = [next(each) for each in distiller._real_features()]
    assert [spaces[0].z.shape[1] for spaces in real] == [24, 32]


def test_clusters_are_the_same_ones_through_both(backbone, other, splits, tmp_path):
    distiller = make([backbone, other], splits, tmp_path / "out", images_per_class=2)
    (first, *_), (second, *_) = [next(real) for real in distiller._real_features()]
    assert first.cluster.unique().tolist() == list(range(6))
    assert torch.equal(first.cluster, second.cluster)
