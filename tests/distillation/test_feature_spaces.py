"""Matching in several feature spaces: the gradient written out with autograd, in float64, and what may not matter."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.data.augmentation import random_views
from hf_lgm.distillation.objectives import (
    LOGITS,
    LabelledFeatures,
    feature_gradient,
    gradient_over_spaces,
    layer_matching,
    uniform_weights,
)
from hf_lgm.distillation.real_features import drawn_backbones


def make(backbones, splits, folder, **settings):
    settings = {"max_steps": 6, "views_per_step": 3, "save_strategy": "no", "disable_tqdm": True, **settings}
    return LGMDistiller(backbones, LGMConfig(str(folder), **settings), splits["train"])


def one_minus_cosine_of_gradients(z, y, means, W):
    """The layer's loss, with the gradients of a probe by autograd."""
    W = W.clone() * LOGITS / (W.square().mean().sqrt() * means.square().sum(dim=1).mean().sqrt())

    def gradient(z, y):
        probe = W.detach().clone().requires_grad_()
        loss = F.cross_entropy(z @ probe.T, y)
        return torch.autograd.grad(loss, probe, create_graph=True)[0].flatten()

    return 1 - F.cosine_similarity(gradient(z, y), gradient(means, torch.arange(len(means))), dim=0)


@pytest.mark.parametrize("images_per_class", [1, 2])
def test_the_gradient_on_pixels_is_that_of_the_sum_of_all_spaces(deep, splits, tmp_path, images_per_class):
    distiller = make(deep, splits, tmp_path, parameterization="pixel", init="noise", images_per_class=images_per_class)
    distiller._begin(None)
    real = [next(each) for each in distiller._real_features()]
    step, backbone = 2, distiller.backbones[0]
    loss = distiller.training_step(step, real)
    level = distiller.images.levels[0].detach().clone().requires_grad_()

    pixels = torch.sigmoid(2 * torch.einsum("ij,njhw->nihw", distiller.images.colour, level))
    side = distiller.view_sizes[0].at(step, distiller.learned.is_coarse)
    views = random_views(pixels, range(len(pixels)), 3, side, distiller.args.views, distiller.args.seed, step)
    spaces = backbone.forward_with_layers(views).split(backbone.widths, dim=1)
    images = distiller.train_images
    groups = real[0][0].cluster if images_per_class > 1 else images.labels
    layers = distiller.extractor.extract(backbone, images, with_layers=True).split(backbone.widths, dim=1)[1:]
    probes = distiller._draw_probes(backbone, step)
    y = torch.arange(len(pixels)).repeat_interleave(3)
    of_class = F.one_hot(y // images_per_class, 3).double()
    cluster = y if images_per_class > 1 else None
    features = LabelledFeatures(spaces[0], of_class, uniform_weights(y), cluster)
    first, dz, _ = feature_gradient(features, real[0][0], probes[0], distiller.args.objective)
    wanted = []
    for z, all_z, probe in zip(spaces[1:], layers, probes[1:], strict=True):
        means = torch.stack([all_z[groups == group].mean(dim=0) for group in range(len(pixels))])
        wanted.append(one_minus_cosine_of_gradients(z, y, means, probe.double()))
    layer_loss = sum(wanted) / len(wanted)
    torch.testing.assert_close(loss, first + layer_loss.detach(), rtol=0, atol=1e-8)
    ((spaces[0] * dz).sum() + layer_loss).backward()
    torch.testing.assert_close(distiller.images.levels[0].grad, level.grad, rtol=1e-6, atol=1e-10)


def some_spaces(n=12, widths=(5, 7, 6)):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, sum(widths), generator=generator, dtype=torch.float64)
    y = F.one_hot(torch.arange(n) % 3, 3).double()
    real = [LabelledFeatures(torch.randn(3, width, generator=generator, dtype=torch.float64), torch.arange(3),
                             torch.full((3,), 1 / 3, dtype=torch.float64)) for width in widths]  # fmt: skip
    W = [torch.randn(3, width, generator=generator, dtype=torch.float64) for width in widths]
    return LabelledFeatures(z, y, uniform_weights(y).double()), real, W


def test_without_layers_it_is_the_features_own_gradient():
    synthetic, real, W = some_spaces(widths=(5,))
    got, wanted = gradient_over_spaces(synthetic, real, W), feature_gradient(synthetic, real[0], W[0])
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1]) and got[2] is None


def test_the_scale_of_a_layer_does_not_matter():
    synthetic, real, W = some_spaces()
    space = LabelledFeatures(synthetic.z[:, 5:12], synthetic.y, synthetic.weight)
    loss = layer_matching(space, real[1], W[1])
    scaled = layer_matching(replace(space, z=1e4 * space.z), replace(real[1], z=1e4 * real[1].z), 1e-3 * W[1])
    torch.testing.assert_close(scaled, loss, rtol=1e-9, atol=0)


def test_labels_that_are_learned_hear_of_all_spaces():
    synthetic, real, W = some_spaces()
    y = synthetic.y.clone().requires_grad_()
    _, _, dy = gradient_over_spaces(replace(synthetic, y=y), real, W)
    spaces = synthetic.z.split([5, 7, 6], dim=1)
    each = [feature_gradient(replace(synthetic, z=z, y=y), r, w, name)[2]
            for z, r, w, name in zip(spaces, real, W, ["lgm", "layer", "layer"], strict=True)]  # fmt: skip
    torch.testing.assert_close(dy, each[0] + (each[1] + each[2]) / 2)


def test_chunks_change_nothing_with_layers(deep, splits, tmp_path):
    levels = []
    for chunk_size in (1, 2, 3):
        distiller = make(deep, splits, tmp_path / str(chunk_size), chunk_size=chunk_size)
        distiller.train()
        levels.append(distiller.images.levels[-1].detach())
    torch.testing.assert_close(levels[0], levels[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(levels[1], levels[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("real_features", ["cached", "online"])
def test_one_of_two_backbones_for_each_step(backbone, deep, splits, tmp_path, real_features):
    settings = {"backbones_per_step": 1, "max_steps": 12, "real_features": real_features, "objective": "lgm"}
    distiller = make([backbone.double(), deep], splits, tmp_path, **settings)
    seen = {number: 0 for number in range(2)}
    for number, each in enumerate(distiller.backbones):
        each.register_forward_hook(lambda *_: None)
        original = each.forward_with_layers

        def counted(images, number=number, original=original):
            seen[number] += images.requires_grad
            return original(images)

        each.forward_with_layers = counted
    distiller.train()
    drawn = [drawn_backbones(2, distiller.args, step) for step in range(12)]
    assert all(len(each) == 1 for each in drawn) and {each[0] for each in drawn} == {0, 1}
    assert seen == {number: sum(each == [number] for each in drawn) for number in range(2)}


def test_all_backbones_where_as_many_are_asked_for():
    assert drawn_backbones(3, LGMConfig(), 5) == drawn_backbones(3, LGMConfig(backbones_per_step=4), 5) == [0, 1, 2]
    assert len({tuple(drawn_backbones(3, LGMConfig(backbones_per_step=2), step)) for step in range(40)}) == 3
