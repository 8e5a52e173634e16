import pytest
import torch
import torch.nn.functional as F
from conftest import SIDE, make_vit

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.augmentation import ViewSettings, random_views
from hf_lgm.encoding import ChunkedEncoding
from hf_lgm.objectives import (
    LabelledFeatures,
    balanced_weights,
    feature_gradient,
    linear_gradient_matching,
    probe_gradient,
    uniform_weights,
)
from hf_lgm.synthetic import SyntheticImages

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

    encoding = ChunkedEncoding(lambda *chunk: encode(*chunk).unflatten(0, (-1, VIEWS)), images(), torch.arange(C))
    loss, dz = feature_gradient(LabelledFeatures(encoding.z.flatten(0, 1), y, uniform_weights(y)), real, W)
    encoding.backward(dz.unflatten(0, (C, VIEWS)))
    assert abs(loss - oracle.detach()) < 1e-12
    for level, gradient in zip(images.levels, expected, strict=True):
        assert gradient.abs().max() > 1e-9
        torch.testing.assert_close(level.grad, gradient, rtol=0, atol=1e-12)


def test_real_features_in_blocks_are_the_same(monkeypatch):
    features, W = random_features(50, seed=2), random_probe()
    whole = probe_gradient(features, W)
    monkeypatch.setattr("hf_lgm.objectives._BLOCK", 7)
    torch.testing.assert_close(probe_gradient(features, W), whole, rtol=0, atol=1e-15)


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
    loss, dz = feature_gradient(half, real, random_probe())
    expected, expected_dz = feature_gradient(single, real, random_probe())
    assert loss == expected and dz.dtype == torch.bfloat16
    torch.testing.assert_close(dz, expected_dz.bfloat16())
