"""The best real set, against the objective of the distillation written out."""

import itertools

import pytest
import torch

from hf_lgm.distillation.objectives import (
    LabelledFeatures,
    balanced_weights,
    linear_gradient_matching,
    uniform_weights,
)
from hf_lgm.evaluation import matched
from hf_lgm.evaluation.matched import matched_rows
from hf_lgm.features.coresets import centroid_rows
from hf_lgm.randomness import seeded_generator

CLASSES, DIM = 3, 6


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(CLASSES).repeat_interleave(torch.tensor([7, 5, 6]))
    z = torch.randn(CLASSES, DIM, generator=generator)[y] + torch.randn(18, DIM, generator=generator)
    return z.double(), y


def loss(rows, z, y):
    """The mean objective over the same probes, by the function that distils."""
    real = LabelledFeatures(z, y, balanced_weights(y))
    chosen = LabelledFeatures(z[rows], y[rows], uniform_weights(rows))
    losses = []
    for number in range(matched._PROBES):
        generator = seeded_generator(0, "matched probe", number)
        W = (0.01 * torch.randn(CLASSES, DIM, generator=generator)).double()
        losses.append(linear_gradient_matching(chosen, real, W))
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize("per_class", [1, 2])
def test_no_exchange_of_one_image_improves_it(features, per_class):
    z, y = features
    start = centroid_rows(z, y, CLASSES, per_class)
    rows = matched_rows(z, y, CLASSES, start)
    assert y[rows].tolist() == y[start].tolist() and len(set(rows.tolist())) == len(rows)
    best = loss(rows, z, y)
    assert best < loss(start, z, y)
    for place, row in enumerate(rows.tolist()):
        for other in set((y == y[row]).nonzero()[:, 0].tolist()) - set(rows.tolist()):
            exchanged = rows.clone()
            exchanged[place] = other
            assert loss(exchanged, z, y) >= best - 1e-9


def test_it_is_near_the_best_of_all_sets(features):
    z, y = features
    candidates = [(y == label).nonzero()[:, 0].tolist() for label in range(CLASSES)]
    losses = sorted(loss(torch.tensor(rows), z, y) for rows in itertools.product(*candidates))
    found = loss(matched_rows(z, y, CLASSES, centroid_rows(z, y, CLASSES, 1)), z, y)
    assert found <= losses[2]  # of 210


def test_a_repeated_image_does_not_go_round_in_circles(features):
    z, y = features
    z, y = torch.cat([z, z]), torch.cat([y, y])
    start = centroid_rows(z, y, CLASSES, 2)
    rows = matched_rows(z, y, CLASSES, start)
    assert len(set(rows.tolist())) == 6 and torch.equal(matched_rows(z, y, CLASSES, rows), rows)
