import gc
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import SIDE, make_vit

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.data.augmentation import random_views
from hf_lgm.distillation.encoding import ChunkedEncoding
from hf_lgm.distillation.objectives import (
    LOGITS,
    RIDGE,
    RIDGE_WEIGHT,
    SHRINKAGE,
    LabelledFeatures,
    _temperature_rows,
    balanced_weights,
    feature_gradient,
    linear_gradient_matching,
    probe_gradient,
    probe_loss,
    ridge_and_natural_gradient,
    uniform_weights,
)
from hf_lgm.distillation.synthetic import SyntheticImages
from hf_lgm.features.coresets import class_clusters
from hf_lgm.settings import ViewSettings

C, D, VIEWS = 3, 24, 4


def random_features(n: int, seed: int, weights=uniform_weights) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % C
    return LabelledFeatures(torch.randn(n, D, dtype=torch.float64, generator=generator), y, weights(y))


def autograd_gradient(features: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """The paper's own formulation: the gradient of the cross-entropy by autograd, with a graph."""
    W, b = W.clone().requires_grad_(), torch.zeros(len(W), dtype=W.dtype, requires_grad=True)
    loss = (F.cross_entropy(features.z @ W.T + b, features.y, reduction="none") * features.weight).sum()
    grad_W, grad_b = torch.autograd.grad(loss, [W, b], create_graph=True)
    return torch.cat([grad_W, grad_b[:, None]], dim=1)


def random_probe(std: float = 0.01) -> torch.Tensor:
    return std * torch.randn(C, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("std", [0.0, 0.01, 1.0])
def test_probe_gradient_is_autograds(std):
    features = random_features(12, seed=0)
    expected = autograd_gradient(features, random_probe(std))
    torch.testing.assert_close(probe_gradient(features, random_probe(std)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("std", [0.0, 1.0, 100.0], ids=["undecided", "decided", "certain"])
def test_the_loss_of_a_probe_is_the_cross_entropy(std):
    features, W, b = random_features(12, seed=0), random_probe(std), torch.arange(C).double()
    expected = (F.cross_entropy(features.z @ W.T + b, features.y, reduction="none") * features.weight).sum()
    loss, gradient = probe_loss(features, W, b)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(gradient, probe_gradient(features, W, b), rtol=0, atol=1e-14)


def test_an_objective_may_ask_for_the_gradient_twice():
    """What is kept of features that learn would hold a graph that the first backward pass has used up."""
    features = random_features(6, seed=3)
    learned = LabelledFeatures(features.z.requires_grad_(), features.y, features.weight)
    first, second = (
        torch.autograd.grad(probe_gradient(learned, random_probe()).square().sum(), learned.z)[0] for _ in range(2)
    )
    assert torch.equal(first, second) and first.abs().max() > 1e-6


@pytest.mark.parametrize("cluster", [None, torch.arange(6)], ids=["classes", "clusters"])
def test_features_of_a_step_go_with_it(cluster):
    """At once: what waits for the garbage collector takes a device's memory."""
    features, W = replace(random_features(6, seed=3), cluster=cluster), torch.zeros(6, D).double()
    probe_gradient(features.by_cluster, W)
    assert features.by_cluster is features.by_cluster
    alive = weakref.ref(features)
    gc.disable()
    try:
        del features
        assert alive() is None
    finally:
        gc.enable()


def test_closed_form_equals_double_backward_through_views_and_pyramid():
    """Value and pixel gradient, in float64, through a real (tiny) DINOv2."""
    backbone = FrozenBackbone(make_vit(), Preprocessing(image_size=SIDE)).double()
    images = SyntheticImages(range(C), SIDE, seed=0).double()
    images.set_num_levels(3)
    real, W, y = random_features(20, seed=1), random_probe(), torch.arange(C).repeat_interleave(VIEWS)

    def encode(pixels, ids):
        return backbone(random_views(pixels, ids.tolist(), VIEWS, SIDE, ViewSettings(), seed=0, step=5))

    z = encode(images(), torch.arange(C))
    synthetic = LabelledFeatures(z, y, uniform_weights(y))
    g_real, g_syn = autograd_gradient(real, W).detach(), autograd_gradient(synthetic, W)
    oracle = 1 - F.cosine_similarity(g_real.flatten(), g_syn.flatten(), dim=0)
    oracle.backward()
    expected = [level.grad.clone() for level in images.levels]
    images.zero_grad()

    pixels = images()
    encoding = ChunkedEncoding(lambda *chunk: encode(*chunk).unflatten(0, (-1, VIEWS)), pixels, torch.arange(C))
    loss, dz, _ = feature_gradient(LabelledFeatures(encoding.z.flatten(0, 1), y, uniform_weights(y)), real, W)
    encoding.backward(dz.unflatten(0, (C, VIEWS)), wanted := torch.zeros_like(pixels))
    pixels.backward(wanted)
    assert abs(loss - oracle.detach()) < 1e-12
    for level, gradient in zip(images.levels, expected, strict=True):
        assert gradient.abs().max() > 1e-9
        torch.testing.assert_close(level.grad, gradient, rtol=0, atol=1e-12)


def test_real_features_in_blocks_are_the_same(monkeypatch):
    features, W = random_features(50, seed=2), random_probe()
    whole = probe_gradient(features, W)
    monkeypatch.setattr("hf_lgm.distillation.objectives._BLOCK_ON_CPU", 7)
    again = LabelledFeatures(features.z, features.y, features.weight)  # without what the first has kept
    torch.testing.assert_close(probe_gradient(again, W), whole, rtol=0, atol=1e-15)


def test_probe_std_zero_matches_class_means():
    """At W = 0 the gradient of class c is (mean of all - mean of c) / C: SFM's objective (arXiv 2602.05391)."""
    features = random_features(12, seed=3, weights=balanced_weights)
    means = torch.stack([features.z[features.y == label].mean(dim=0) for label in range(C)])
    expected = (means.mean(dim=0) - means) / C
    torch.testing.assert_close(probe_gradient(features, torch.zeros(C, D, dtype=torch.float64))[:, :D], expected)


def test_invariances():
    synthetic, real, W = random_features(6, seed=4), random_features(30, seed=5), random_probe()
    loss = linear_gradient_matching(synthetic, real, W)
    permutation = torch.tensor([2, 0, 1])
    inverse = permutation.argsort()
    renamed = [LabelledFeatures(f.z, inverse[f.y], f.weight) for f in (synthetic, real)]
    torch.testing.assert_close(linear_gradient_matching(*renamed, W[permutation]), loss)
    twice = LabelledFeatures(synthetic.z.repeat(2, 1), synthetic.y.repeat(2), synthetic.weight.repeat(2) / 2)
    torch.testing.assert_close(linear_gradient_matching(twice, real, W), loss)
    torch.testing.assert_close(linear_gradient_matching(real, real, W), torch.zeros((), dtype=torch.float64))


def test_balanced_weights_make_unbalanced_data_balanced():
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    weight = balanced_weights(y)
    torch.testing.assert_close(torch.bincount(y, weight), torch.full((3,), 1 / 3, dtype=weight.dtype))
    torch.testing.assert_close(balanced_weights(torch.tensor([0, 2])).sum(), torch.tensor(1.0))  # one does not occur


def test_feature_gradient_of_half_precision_is_computed_in_single():
    synthetic, real = random_features(6, seed=6), random_features(30, seed=7)
    single = LabelledFeatures(synthetic.z.bfloat16().float(), synthetic.y, synthetic.weight)
    half = LabelledFeatures(synthetic.z.bfloat16(), synthetic.y, synthetic.weight)
    loss, dz, _ = feature_gradient(half, real, random_probe())
    expected, expected_dz, _ = feature_gradient(single, real, random_probe())
    assert loss == expected and dz.dtype == torch.bfloat16
    torch.testing.assert_close(dz, expected_dz.bfloat16())


def class_features(n: int, seed: int, weights=balanced_weights) -> LabelledFeatures:
    """With classes that differ, so that a probe can be of use."""
    features = random_features(n, seed)
    centres = 0.5 * torch.randn(C, D, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    weight = weights(features.y).double()  # of rounded numbers
    return LabelledFeatures(features.z + centres[features.y], features.y, weight / weight.sum())


def one_hot(features: LabelledFeatures) -> LabelledFeatures:
    return LabelledFeatures(features.z, F.one_hot(features.y, C).double(), features.weight)


def plain_ridge_objective(synthetic: LabelledFeatures, real: LabelledFeatures, W_random: torch.Tensor) -> torch.Tensor:
    """The same in other words, all of it differentiable: primal, with a bias column and a temperature by bisection."""
    z, y, weight = synthetic.z, synthetic.y, synthetic.weight.double()[:, None]
    z_mean, y_mean = (weight * z).sum(0), (weight * y).sum(0)
    covariance = (z - z_mean).T @ (weight * (z - z_mean))
    ridge = RIDGE / C * covariance.trace()
    W = torch.linalg.inv(covariance + ridge * torch.eye(D).double()) @ ((z - z_mean).T @ (weight * (y - y_mean)))
    logits = (real.z - z_mean) @ W + y_mean
    low, high = torch.tensor(1e-3).double(), torch.tensor(1e3).double()
    for _ in range(200):
        scale = (low * high).sqrt().requires_grad_()
        loss = (F.cross_entropy(scale * logits.detach(), real.y, reduction="none") * real.weight).sum()
        (slope,) = torch.autograd.grad(loss, scale)
        low, high = (low, scale.detach()) if slope > 0 else (scale.detach(), high)
    probe = (F.cross_entropy(low * logits, real.y, reduction="none") * real.weight).sum()

    means = torch.stack([real.z[real.y == label].mean(0) for label in range(C)])
    centred = real.z - means[real.y]
    within = centred.T @ centred / len(real.z)
    shrunk = within + SHRINKAGE * within.diagonal().mean() * torch.eye(D).double()
    random = LOGITS * W_random / W_random.square().mean().sqrt() / real.z.square().sum(1).mean().sqrt()
    wanted = autograd_gradient(real, random)[:, :-1].detach() @ torch.linalg.inv(shrunk)
    error = (z @ random.T).softmax(dim=1) - y
    found = (weight * error).T @ z
    return 1 - F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) + RIDGE_WEIGHT * probe


@pytest.mark.parametrize("n", [6, 60], ids=["fewer than features", "more than features"])
def test_the_ridge_objective_is_autograds(n):
    synthetic, real = one_hot(class_features(n, seed=10)), class_features(30, seed=11)
    z = synthetic.z.clone().requires_grad_()
    oracle = plain_ridge_objective(LabelledFeatures(z, synthetic.y, synthetic.weight), real, random_probe())
    (expected,) = torch.autograd.grad(oracle, z)
    loss, dz, _ = feature_gradient(synthetic, real, random_probe(), "ridge")
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(loss, oracle.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(dz, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("objective", ["lgm", "ridge"])
def test_the_gradient_of_labels_is_that_of_differences(objective):
    real, W = class_features(30, seed=12), random_probe()
    synthetic = one_hot(class_features(6, seed=13))
    y = (0.9 * synthetic.y + 0.1 / C).requires_grad_()
    _, _, dy = feature_gradient(LabelledFeatures(synthetic.z, y, synthetic.weight), real, W, objective)

    def loss(y):
        return feature_gradient(LabelledFeatures(synthetic.z, y, synthetic.weight), real, W, objective)[0]

    direction = torch.randn(6, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ahead, behind = loss(y.detach() + 1e-5 * direction), loss(y.detach() - 1e-5 * direction)
    torch.testing.assert_close((dy * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-8)


def test_invariances_of_the_ridge_objective():
    synthetic, real, W = one_hot(class_features(6, seed=4)), class_features(30, seed=5), random_probe()
    loss = ridge_and_natural_gradient(synthetic, real, W)
    order = torch.tensor([2, 0, 1])
    renamed = LabelledFeatures(synthetic.z, synthetic.y[:, order], synthetic.weight)
    real_renamed = LabelledFeatures(real.z, order.argsort()[real.y], real.weight)
    torch.testing.assert_close(ridge_and_natural_gradient(renamed, real_renamed, W[order]), loss)
    twice = LabelledFeatures(synthetic.z.repeat(2, 1), synthetic.y.repeat(2, 1), synthetic.weight.repeat(2) / 2)
    torch.testing.assert_close(ridge_and_natural_gradient(twice, real, W), loss)
    larger = [LabelledFeatures(1000 * f.z, f.y, f.weight) for f in (synthetic, real)]
    torch.testing.assert_close(ridge_and_natural_gradient(*larger, W), loss)
    torch.testing.assert_close(ridge_and_natural_gradient(synthetic, real, 7 * W), loss)


def test_features_far_from_zero_are_told_apart_in_float32():
    """The mean of features may be a thousand times what they differ by, which is what the objective is about."""
    near = class_features(300, seed=5)
    far = LabelledFeatures((near.z + 1000).float(), near.y, near.weight.float())
    assert (far.precision - near.precision).norm() < 1e-3 * near.precision.norm()


def test_real_features_of_the_ridge_objective_in_blocks_are_the_same(monkeypatch):
    synthetic, real, W = one_hot(class_features(6, seed=4)), class_features(30, seed=5), random_probe()
    loss, dz, _ = feature_gradient(synthetic, real, W, "ridge")
    monkeypatch.setattr("hf_lgm.distillation.objectives._BLOCK_ON_CPU", 3 * D)
    again = LabelledFeatures(real.z, real.y, real.weight)  # without what the first has kept
    in_blocks, dz_in_blocks, _ = feature_gradient(synthetic, again, W, "ridge")
    torch.testing.assert_close(in_blocks, loss, rtol=0, atol=1e-13)
    torch.testing.assert_close(dz_in_blocks, dz, rtol=0, atol=1e-13)


@pytest.mark.parametrize("objective", ["lgm", "ridge"])
def test_parts_are_classes_of_their_own_to_what_is_matched(objective):
    """Of one part for each class nothing changes; of two, images that exchange theirs are no longer right."""
    real = class_features(60, seed=14)
    synthetic = one_hot(class_features(6, seed=15))
    plain = feature_gradient(synthetic, real, random_probe(), objective)[0]
    same = [LabelledFeatures(f.z, f.y, f.weight, y) for f, y in ((synthetic, torch.arange(6) % C), (real, real.y))]
    torch.testing.assert_close(feature_gradient(*same, random_probe(), objective)[0], plain)

    parts = class_clusters(real.z, real.y, C, 2, seed=0)
    assert torch.equal(parts // 2, real.y) and len(parts.unique()) == 2 * C
    real = LabelledFeatures(real.z, real.y, balanced_weights(parts), parts)
    means = torch.stack([real.z[parts == part].mean(dim=0) for part in range(2 * C)])
    W, y = torch.zeros(2 * C, D, dtype=torch.float64), F.one_hot(torch.arange(2 * C) // 2, C).double()
    right = LabelledFeatures(means, y, uniform_weights(y), torch.arange(2 * C))
    wrong = LabelledFeatures(means, y, uniform_weights(y), torch.arange(2 * C) ^ 1)
    right, wrong = (feature_gradient(each, real, W, objective)[0] for each in (right, wrong))
    assert right < wrong - 0.3
    if objective == "lgm":
        assert right < 1e-12


@pytest.mark.parametrize("num_classes", [2, 5, 10])
def test_the_temperature_is_fitted_on_all_classes_of_periodic_labels(num_classes):
    total = 10 * 4096
    labels = torch.arange(total) % num_classes
    counts = torch.bincount(labels[_temperature_rows(total, torch.device("cpu"))], minlength=num_classes)
    assert counts.sum() == 4096 and counts.min() > 0.8 * 4096 / num_classes
    assert labels[_temperature_rows(4096, torch.device("cpu"))].shape == (total,)  # few enough: all of them


@pytest.mark.parametrize("value", [0.0, 0.1, -300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", ["lgm", "ridge", "layer"])
def test_constant_features_give_a_loss_and_a_gradient(objective, dtype, value):
    """What is wrong with them is said by who makes them; here they are no error of linear algebra."""
    synthetic, real = one_hot(class_features(6, 0)), class_features(40, 1)
    synthetic, real = (
        LabelledFeatures(torch.full_like(each.z, value).to(dtype), each.y, each.weight.to(dtype))
        for each in (synthetic, real)
    )
    loss, dz, _ = feature_gradient(synthetic, real, random_probe().to(dtype), objective)
    assert loss.isfinite() and dz.isfinite().all()
