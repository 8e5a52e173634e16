"""Whether backbones that see alike also share their distilled images: neighbours in common, and a rank correlation."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from .randomness import seeded_generator

# Below these a correlation over pairs of backbones says nothing.
MIN_PAIRS, MIN_FAMILIES = 12, 2
_MAX_PERMUTATIONS = 5040  # all of them up to seven backbones


def mutual_knn_alignment(z_a: torch.Tensor, z_b: torch.Tensor, k: int = 10) -> float:
    """Mean share of an image's k nearest neighbours that two backbones agree on (Huh et al., 2024, arXiv 2405.07987).

    Args:
        z_a (`torch.Tensor`): Shape (N, D_a), features of N images through one backbone.
        z_b (`torch.Tensor`): Shape (N, D_b), of the same images through the other.
        k (`int`, *optional*, defaults to 10): Neighbours by cosine, without the image itself; at most N - 1.
    """
    if len(z_a) < 2:
        raise ValueError("Alignment compares the neighbours of images: it needs at least two.")
    k, shared, size = min(k, len(z_a) - 1), 0, 1024
    z_a, z_b = F.normalize(z_a.float(), dim=1), F.normalize(z_b.float(), dim=1)
    for rows in torch.arange(len(z_a), device=z_a.device).split(size):
        nearest_a, nearest_b = (_neighbours(z, rows, k) for z in (z_a, z_b))
        shared += int((nearest_a[:, :, None] == nearest_b[:, None, :]).sum())
    return shared / (k * len(z_a))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of two matrices over pairs of different backbones.

    Args:
        rho (`float`): The correlation.
        p (`float`): Share of permutations of the backbones that give one at least as large. Pairs that share a
            backbone are not independent, so backbones are permuted and not pairs (Mantel's test): of M backbones it is
            1 / M! at least.
        pairs (`int`): n.
        families (`int`): Architectures among the backbones.
    """

    rho: float
    p: float
    pairs: int
    families: int

    @property
    def claim(self) -> str:
        """What may be said."""
        if math.isnan(self.rho):
            return f"Of {self.pairs} pairs all have one alignment or one transfer: nothing to correlate"
        found = f"Spearman's rho {self.rho:.2f} over {self.pairs} pairs, permutation p {self.p:.3f}"
        if self.pairs >= MIN_PAIRS and self.families >= MIN_FAMILIES:
            return found
        return f"{found}: no claim below {MIN_PAIRS} pairs or {MIN_FAMILIES} families (found {self.families})"


def rank_correlation(a: torch.Tensor, b: torch.Tensor, families: int) -> RankCorrelation:
    """Of two (M, M) matrices, diagonals left out; see [`RankCorrelation`].

    Args:
        a (`torch.Tensor`): Shape (M, M), M > 2.
        b (`torch.Tensor`): Shape (M, M).
        families (`int`): Architectures among the M backbones.
    """
    count = len(a)
    others = ~torch.eye(count, dtype=torch.bool)
    ranks = torch.zeros(count, count, dtype=torch.float64)
    ranks[others] = torch.from_numpy(rankdata(a[others]))
    fixed = torch.from_numpy(rankdata(b[others]))

    def correlation(order: torch.Tensor) -> float:
        return torch.corrcoef(torch.stack([ranks[order][:, order][others], fixed]))[0, 1].item()

    rho = correlation(torch.arange(count))
    if math.isnan(rho):
        return RankCorrelation(rho, 1.0, int(others.sum()), families)
    at_least = [correlation(order) >= rho - 1e-12 for order in _permutations(count)]
    return RankCorrelation(rho, sum(at_least) / len(at_least), int(others.sum()), families)


def _permutations(count: int) -> list[torch.Tensor]:
    """All orders of so many things, or a random sample of them; the first is the identity."""
    if math.factorial(count) <= _MAX_PERMUTATIONS:
        return [torch.tensor(order) for order in itertools.permutations(range(count))]
    generator = seeded_generator(0, "permutations")
    drawn = [torch.randperm(count, generator=generator) for _ in range(_MAX_PERMUTATIONS - 1)]
    return [torch.arange(count), *drawn]


def _neighbours(z: torch.Tensor, rows: torch.Tensor, k: int) -> torch.Tensor:
    """The k most similar other images of the given rows, of shape (len(rows), k)."""
    similarity = z[rows] @ z.T
    similarity[torch.arange(len(rows)), rows] = -torch.inf
    return similarity.topk(k, dim=1).indices
