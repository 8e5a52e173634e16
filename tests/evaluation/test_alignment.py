"""Neighbours in common and the rank correlation, against brute force and scipy."""

import itertools

import pytest
import torch
from scipy.stats import spearmanr

from hf_lgm.evaluation import transfer as alignment
from hf_lgm.evaluation.transfer import RankCorrelation, mutual_knn_alignment, rank_correlation


def test_mutual_neighbours_are_counted():
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(30, 4, generator=generator), torch.randn(30, 9, generator=generator)
    shared = []
    for row in range(30):
        nearest = []
        for z in (z_a, z_b):
            cosine = torch.nn.functional.cosine_similarity(z[row : row + 1], z)
            others = sorted(set(range(30)) - {row}, key=lambda other: -cosine[other])
            nearest.append(set(others[:5]))
        shared.append(len(nearest[0] & nearest[1]) / 5)
    assert mutual_knn_alignment(z_a, z_b, k=5) == pytest.approx(sum(shared) / 30)


def test_it_is_one_for_the_same_view_of_things_and_chance_for_unrelated_ones():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 16, generator=generator)  # more than one block
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    assert mutual_knn_alignment(z, 3 * z @ turn) > 0.99
    assert mutual_knn_alignment(z, torch.randn(2000, 16, generator=generator)) < 0.02
    assert mutual_knn_alignment(z[:4], z[:4]) == 1  # fewer images than neighbours


@pytest.mark.parametrize("count", [4, 8])
def test_rank_correlation_is_spearmans_and_p_is_of_permuted_backbones(count, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(count, count, generator=generator)
    a = a + a.T
    b = a + 0.5 * torch.rand(count, count, generator=generator)
    others = ~torch.eye(count, dtype=torch.bool)
    monkeypatch.setattr(alignment, "_MAX_PERMUTATIONS", 500)
    found = rank_correlation(a, b, families=2)
    assert found.rho == pytest.approx(spearmanr(a[others], b[others]).statistic)
    assert found.pairs == count * (count - 1)
    if count == 4:
        rhos = [
            spearmanr(a[list(order)][:, list(order)][others], b[others]).statistic
            for order in itertools.permutations(range(4))
        ]
        assert found.p == pytest.approx(sum(rho >= found.rho - 1e-9 for rho in rhos) / 24)
    else:
        assert 1 / 500 <= found.p < 0.05


def test_nothing_to_correlate():
    found = rank_correlation(torch.ones(4, 4), torch.rand(4, 4), families=2)
    assert found.p == 1 and "nothing to correlate" in found.claim
    with pytest.raises(ValueError, match="at least two"):
        mutual_knn_alignment(torch.ones(1, 4), torch.ones(1, 4))


def test_no_claim_of_few_pairs_or_of_one_family():
    assert "no claim below 12 pairs or 2 families" in RankCorrelation(0.9, 0.01, 6, 3).claim
    assert "no claim below 12 pairs or 2 families" in RankCorrelation(0.9, 0.01, 12, 1).claim
    assert RankCorrelation(0.9, 0.01, 12, 2).claim == "Spearman's rho 0.90 over 12 pairs, permutation p 0.010"
