"""The classifiers on features against scikit-learn on the same features."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from hf_lgm.evaluation import classifiers
from hf_lgm.evaluation.classifiers import (
    RIDGES,
    SHRINKAGES,
    chosen,
    discriminant_analysis,
    logistic_regression,
    nearest_class_mean,
    nearest_neighbours,
    ridge_regression,
)
from hf_lgm.evaluation.scoring import EvalFeatures
from hf_lgm.features.coresets import class_means

CLASSES, DIM = 7, 12


@pytest.fixture(scope="module")
def blobs():
    """Overlapping clusters of unequal size, stretched, off the origin: train features, classes, other features."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, DIM, generator=generator)
    stretch = torch.randn(DIM, DIM, generator=generator)
    y = torch.arange(CLASSES).repeat_interleave(torch.tensor([90, 30, 50, 70, 20, 60, 80]))
    z = means[y] + 0.5 * torch.randn(len(y), DIM, generator=generator) @ stretch + 3
    return z, y, means[torch.arange(350) % CLASSES] + 0.5 * torch.randn(350, DIM, generator=generator) @ stretch + 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(classifiers, "_BLOCK", 37)
    monkeypatch.setattr(classifiers, "_MAX_SIMILARITIES", 1000)


def test_nearest_class_mean_is_nearest_centroid(blobs):
    z, y, other = blobs
    expected = NearestCentroid().fit(z, y).predict(other)
    assert nearest_class_mean(z, y, CLASSES)(other).argmax(dim=1).tolist() == expected.tolist()
    torch.testing.assert_close(class_means(z, y, CLASSES)[3], z[y == 3].mean(dim=0))


def test_nearest_class_mean_of_features_far_from_zero(blobs):
    """The mean of features may be a thousand times what they differ by."""
    z, y, other = blobs[0] + 3000, blobs[1], blobs[2] + 3000
    expected = NearestCentroid().fit(z.double(), y).predict(other.double())
    assert nearest_class_mean(z, y, CLASSES)(other).argmax(dim=1).tolist() == expected.tolist()


@pytest.mark.parametrize("k", [1, 20, 10_000])
def test_nearest_neighbours_vote_as_in_scikit_learn(blobs, k):
    z, y, other = blobs
    voters = KNeighborsClassifier(min(k, len(z)), metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    votes = nearest_neighbours(z, y, CLASSES, k)(other).clamp(min=0)  # -inf where there is none
    expected = torch.from_numpy(voters.fit(z, y).predict_proba(other))
    differs = (votes / votes.sum(dim=1, keepdim=True) - expected).abs().amax(dim=1) > 1e-4
    assert differs.sum() <= 1  # of 350: the last of the k may be a tie in float32


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 10.0])
def test_ridge_regression_is_scikit_learns(blobs, ridge):
    z, y, other = blobs
    targets = torch.nn.functional.one_hot(y, CLASSES).double()
    penalty = ridge * z.double().var(dim=0, correction=0).mean().item() * len(z)  # theirs is of sums, not of means
    expected = torch.from_numpy(Ridge(alpha=penalty).fit(z.double(), targets).predict(other.double()))
    torch.testing.assert_close(ridge_regression(z, y, CLASSES)(ridge)(other.double()), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [1e-4, 0.1, 0.95])
def test_discriminant_analysis_is_scikit_learns(blobs, shrinkage):
    z, y, other = blobs
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(z.double(), y)
    expected = torch.from_numpy(reference.predict_proba(other.double()))
    found = discriminant_analysis(z, y, CLASSES)(shrinkage)(other.double()).softmax(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight_decay", [1e-1, 1e-3])
def test_logistic_regression_is_scikit_learns(blobs, weight_decay):
    """On features that are scaled as a whole, which is what its weight decay is for."""
    z, y, other = blobs
    scale = (z - z.mean(dim=0)).square().mean().sqrt()
    reference = LogisticRegression(C=1 / (weight_decay * len(z)), tol=1e-8, max_iter=10_000)
    scaled, mean = (z - z.mean(dim=0)) / scale, z.mean(dim=0)
    expected = reference.fit(scaled.double(), y).predict_proba(((other - mean) / scale).double())
    found = logistic_regression(z, y, CLASSES)(weight_decay)(other).softmax(dim=1)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("fit", "strengths"), [(ridge_regression, RIDGES), (discriminant_analysis, SHRINKAGES)])
def test_features_may_have_any_scale(blobs, fit, strengths):
    z, y, other = blobs
    logits, strength = chosen(fit, strengths, z, y, CLASSES)
    scaled, same = chosen(fit, strengths, 1000 * z, y, CLASSES)
    assert strength == same
    assert scaled(1000 * other).argmax(dim=1).tolist() == logits(other).argmax(dim=1).tolist()


def test_the_strength_is_chosen_on_training_images_alone():
    """Noise in many dimensions: a small ridge fits it, a large one generalises."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    z = torch.randn(120, 100, generator=generator)
    z[:, 0] += 2 * y
    logits, ridge = chosen(ridge_regression, RIDGES, z, y, 2)
    y_other = torch.arange(2000) % 2
    other = torch.randn(2000, 100, generator=generator)
    other[:, 0] += 2 * y_other

    def accuracy(of):
        return (of(other).argmax(dim=1) == y_other).double().mean().item()

    assert ridge > 1e-2 and accuracy(logits) > accuracy(ridge_regression(z, y, 2)(1e-6)) + 0.05


def test_a_class_of_one_image_is_kept():
    z, y = torch.randn(11, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0] * 5 + [1] * 5 + [2])
    kept, held_out = classifiers._hold_out(y, 3)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(11)) and 10 in kept.tolist()
    assert chosen(discriminant_analysis, SHRINKAGES, z, y, 3)[0](z).shape == (11, 3)


def test_a_class_without_a_vote_is_no_prediction():
    """Ten classes, and images of nine of them that look like the first: none of the first five is right."""
    centres = 10 * torch.eye(10, 16)
    noise = torch.randn(10, 30, 16, generator=torch.Generator().manual_seed(0))
    z, y = (centres[:, None] + 0.01 * noise).flatten(0, 1), torch.arange(10).repeat_interleave(30)
    votes = nearest_neighbours(z, y, 10)
    queries = centres[0] + 0.01 * torch.randn(90, 16, generator=torch.Generator().manual_seed(1))
    labels = 1 + torch.arange(90) % 9
    assert (votes(queries) > -torch.inf).sum(dim=1).eq(1).all()
    scored = EvalFeatures(queries, labels, [str(label) for label in range(10)])
    result = scored.result("k nearest neighbours", "backbone", "protocol", lambda features: votes(features)[None])
    assert {metric: values for metric, values in result.accuracies.items() if metric != "macro"} == {
        "top-1": [0.0],
        "top-5": [0.0],
    }


@pytest.mark.parametrize("value", [0.0, 0.1, -300.0])
@pytest.mark.parametrize("within_classes", [False, True], ids=["in all", "within classes"])
@pytest.mark.parametrize(
    ("fit", "strengths"),
    [(ridge_regression, RIDGES), (discriminant_analysis, SHRINKAGES), (logistic_regression, [1e-3])],
)
def test_constant_features_have_an_answer(fit, strengths, value, within_classes):
    """Where nothing tells classes apart, it is that of chance; where each has one place, all are right."""
    y = torch.arange(3).repeat(10)
    z = torch.full((30, 4), value)
    if within_classes:
        z = z + torch.eye(3, 4)[y]
    for strength in strengths:
        logits = fit(z, y, 3)(strength)(z)
        assert logits.isfinite().all()
        assert not within_classes or (logits.argmax(dim=1) == y).all()
        if not within_classes:
            torch.testing.assert_close(logits.softmax(dim=1), torch.full((30, 3), 1 / 3), rtol=0, atol=0.01)
