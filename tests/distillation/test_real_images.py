"""Real images that stay in the set, and what is learned beside them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import SIDE, make_dataset, make_vit
from datasets import ClassLabel, Dataset, Features, Image
from oracle import COLOUR, MEAN, STD
from transformers import TrainerCallback
from views import written_out

from hf_lgm import FrozenBackbone, LabelledImages, LGMConfig, LGMDistiller, Preprocessing, select_baseline
from hf_lgm.data.images import to_images
from hf_lgm.distillation.real_images import StayingImages
from hf_lgm.randomness import seeded_generator


@pytest.fixture
def make(backbone, tmp_path):
    """A distiller of two images per class, one of them real; settings on top."""

    def distiller(dataset=None, model=None, callbacks=None, **settings):
        settings = {"images_per_class": 2, "real_images_per_class": 1, "max_steps": 3, "views_per_step": 2, **settings}
        args = LGMConfig(str(tmp_path / "out"), save_strategy="no", disable_tqdm=True, use_cpu=True, **settings)
        return LGMDistiller(model or backbone, args, dataset or make_dataset(), callbacks=callbacks)

    return distiller


def wide_images(per_class=6):
    """Wider than high, so that a square is cut out, and larger than the images to learn."""
    pixels = torch.rand(3 * per_class, 3, 2 * SIDE, 3 * SIDE, generator=torch.Generator().manual_seed(1))
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    labels = [row % 3 for row in range(3 * per_class)]
    return Dataset.from_dict({"image": to_images(pixels), "label": labels}, features=features)


@pytest.mark.parametrize("trained", [False, True])
def test_real_ones_come_first_in_their_class_bit_for_bit(make, trained):
    dataset = wide_images()
    distiller = make(dataset, images_per_class=3, real_images_per_class=2)
    if trained:
        distiller.train()
    found, source = distiller.distilled_set(), LabelledImages.from_dataset(dataset)
    rows = found.dataset["source_index"][:]
    assert [row is not None for row in rows] == [True, True, False] * 3 and len(set(rows)) == 7
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and found.images_per_class == 3
    real = torch.tensor([row for row in rows if row is not None])
    squares = source.select(real).centre_crops(SIDE, resize_ratio=1.0)
    assert torch.equal((found.pixels()[found.real_rows] * 255).round().to(torch.uint8), squares)
    assert torch.equal(source.labels[real], found.labels[found.real_rows])
    assert (found.has_real_images, found.is_real, found.has_images) == (True, False, True)
    herding = select_baseline("herding", distiller.backbones[0], source, 2)
    assert herding.dataset["source_index"][:] == real.tolist()


def test_only_the_learned_ones_are_parameters(make):
    distiller = make(images_per_class=5, real_images_per_class=2)
    assert {len(level) for level in distiller.images.levels} == {9} and distiller.learned.total == 9
    assert not distiller.args.has_clusters and make(real_images_per_class=0).args.has_clusters


def test_without_real_ones_nothing_is_asked_of_them(make, monkeypatch):
    for name in ("features", "_herding", "_own_pixels"):
        monkeypatch.setattr(StayingImages, name, None)
    distiller = make(real_images_per_class=0, init="random")
    distiller.train()
    assert not distiller.distilled_set().has_real_images
    assert "source_index" not in distiller.distilled_set().dataset.features


class Keep(TrainerCallback):
    """The levels before each step, and their gradients."""

    def __init__(self):
        self.levels, self.gradients = [], []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.levels.append([level.detach().clone() for level in model.levels])
        self.gradients.append([level.grad.clone() for level in model.levels])


def images_of(levels):
    shape = (SIDE, SIDE)
    total = sum(F.interpolate(level, shape, mode="bilinear", align_corners=False) for level in levels)
    return torch.sigmoid(2 * torch.einsum("ij,njhw->nihw", COLOUR, total))


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_the_gradient_is_that_of_the_whole_objective_with_real_views_constant(make, chunk_size):
    """Written out a second time: all views in one batch, the probe's gradients by autograd, in float64."""
    model, keep, K, seed = make_vit().double().eval(), Keep(), 2, 42
    double = FrozenBackbone(copy.deepcopy(model), Preprocessing(SIDE, resize_ratio=1.0)).double()
    settings = {"chunk_size": chunk_size, "images_per_class": 3, "real_images_per_class": 2}
    alone = {"objective": "lgm", "layers": 0, "view_sizes": [], "init": "noise", "lr_scheduler_type": "constant"}
    distiller = make(model=double, callbacks=[keep], **settings, **alone)
    distiller.train()
    images = distiller.train_images
    everything, y_real = images.centre_crops(SIDE, 1.0).double() / 255, images.labels
    rows = distiller.distilled_set().dataset["source_index"][:]
    staying = everything[[row for row in rows if row is not None]]

    def encode(x):
        return model(pixel_values=(x - MEAN) / STD).last_hidden_state[:, 0]

    def gradient(z, y, W, create_graph=False):
        W, b = W.clone().requires_grad_(), torch.zeros(3, dtype=torch.float64).requires_grad_()
        loss = F.cross_entropy(F.linear(z, W, b), y)
        parts = torch.autograd.grad(loss, (W, b), create_graph=create_graph)
        return torch.cat([part.flatten() for part in parts])

    for step, (levels, found) in enumerate(zip(keep.levels, keep.gradients, strict=True)):
        levels = [level.requires_grad_() for level in levels]
        W = (0.01 * torch.randn(3, 24, generator=seeded_generator(seed, "probe", step))).double()
        learned = written_out(images_of(levels), range(3), K, SIDE, seed, step, bounded=True)
        kept = written_out(staying, range(6), K, SIDE, seed, step, "views of staying images", bounded=True)
        y = torch.cat([torch.arange(3).repeat_interleave(K), torch.arange(3).repeat_interleave(2 * K)])
        g = gradient(encode(torch.cat([learned, kept.detach()])), y, W, create_graph=True)
        g_real = gradient(encode(everything), y_real, W)
        loss = 1 - F.cosine_similarity(g, g_real, dim=0)
        torch.testing.assert_close(found, list(torch.autograd.grad(loss, levels)), rtol=0, atol=1e-12)
        assert found[-1].abs().max() > 1e-6


def test_learned_ones_complete_the_real_ones(make):
    """The loss of the set falls, and what is learned is other than without them."""
    distiller = make(init="noise", max_steps=40, learning_rate=0.05, logging_steps=1)
    distiller.train()
    losses = [log["loss"] for log in distiller.state.log_history]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("init", ["centroid", "random"])
def test_none_begins_as_one_that_stays_or_as_another(make, init):
    distiller = make(images_per_class=4, real_images_per_class=2, init=init)
    distiller._begin(None)
    images = distiller.train_images
    squares = images.centre_crops(SIDE, 1.0) / 255
    nearest = torch.cdist(distiller.images().detach().flatten(1), squares.flatten(1)).argmin(dim=1)
    assert images.labels[nearest].tolist() == [0, 0, 1, 1, 2, 2]
    assert len({*nearest.tolist(), *distiller.staying.rows.tolist()}) == 12
    if init == "centroid":
        herding = select_baseline("herding", distiller.backbones[0], images, 4).dataset["source_index"][:]
        assert nearest.tolist() == [row for number, row in enumerate(herding) if number % 4 >= 2]


def test_a_set_with_real_ones_goes_on_with_its_learned_ones(make, tmp_path):
    first = make(init="noise")
    first.train()
    first.save_model(tmp_path / "first")
    second = make(init=str(tmp_path / "first"))
    second._begin(None)
    learned = first.distilled_set().pixels()[[1, 3, 5]]
    torch.testing.assert_close(second.images(), learned, rtol=0, atol=1 / 255)
    assert second.start.beginning == "noise"
    more = make(init=str(tmp_path / "first"), images_per_class=3)  # real ones are needed, too
    assert more.start.beginning == "real"


def test_several_backbones_choose_together(make, backbone):
    other = FrozenBackbone(make_vit(1), backbone.preprocessing, name="other")
    alone, other_alone, both = make(), make(model=other), make(model=[backbone, other])
    both.train()
    z = [each.extractor.extract(each.backbones[0], each.train_images) for each in (alone, other_alone)]
    scaled = torch.cat([of / of.square().sum(dim=1).mean().sqrt() for of in z], dim=1)
    for label, row in enumerate(both.staying.rows.tolist()):
        of_class = (both.train_images.labels == label).nonzero()[:, 0]
        distance = (scaled[of_class] - scaled[of_class].mean(dim=0)).norm(dim=1)
        assert row == of_class[distance.argmin()]


@pytest.mark.parametrize("objective", ["lgm", "ridge"])
def test_soft_labels_of_real_ones_stay(make, objective):
    distiller = make(objective=objective, label_learning_rate=0.1)
    distiller.train()
    found = distiller.distilled_set()
    targets = found.targets_as(found.class_names)
    assert torch.equal(targets[found.real_rows], torch.eye(3)) and not torch.equal(targets[1::2], torch.eye(3))


@pytest.mark.parametrize("number", [-1, 2, 3])
def test_some_have_to_be_learned(make, number):
    with pytest.raises(ValueError, match=f"real_images_per_class={number} must be at least 0 and below images_per_cl"):
        make(real_images_per_class=number)


def test_a_stream_does_not_keep_them(make):
    with pytest.raises(ValueError, match="real_images_per_class=1 needs the real images again, and a stream is read"):
        make(make_dataset().to_iterable_dataset())
