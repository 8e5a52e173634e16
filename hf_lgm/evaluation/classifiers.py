"""Classifiers on cached features of all real images: what a sceptic compares a distilled set with.

Pure functions: each takes features z (N, D) and classes y (N,), and gives a function from features (M, D) to logits
(M, C); where there is a strength (ridge, shrinkage, weight decay) a function from strengths to such functions, so that
what does not depend on it is computed once. It is chosen on a fifth of each class of the *training* features that is
held out for it; then the classifier is fitted to all of them.

scikit-learn has the same, which tests compare, but not on a GPU, and at a tenth of ImageNet-1k it is slower: 128,000
images of 384 features in 1,000 classes on two cores take it 5.9 s and 2.1 GB for ridge (here 1.2 s and 0.4 GB), 6.5 s
for discriminant analysis (1.4 s), 5.1 s for the neighbours of 2,000 images (3.3 s).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..data.labelled_images import indices_by_class
from ..features.coresets import class_means, distances
from ..randomness import seeded_generator

Logits = Callable[[torch.Tensor], torch.Tensor]
OfStrength = Callable[[float], Logits]
RIDGES = tuple(10.0**power for power in range(2, -7, -1))  # in units of the mean variance of a feature
SHRINKAGES = (0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.03, 0.01, 0.001, 0.0001)
WEIGHT_DECAYS = tuple(10.0**power for power in range(-1, -7, -1))  # of features with a mean variance of 1
HELD_OUT_SHARE = 0.2
LBFGS_STEPS = 200
_BLOCK = 65_536  # rows at a time
_MAX_SIMILARITIES = 2**26

# What of a variance is rounding of features in float32, in units of their mean square: constant ones have no other.
_ROUNDING = torch.finfo(torch.float32).eps ** 2
_TINY = torch.finfo(torch.float32).tiny


def nearest_class_mean(z: torch.Tensor, y: torch.Tensor, num_classes: int) -> Logits:
    """The class whose mean real feature is nearest: what matching class means can reach at best."""
    means = class_means(z, y, num_classes)
    return lambda queries: -distances(queries, means)


def nearest_neighbours(
    z: torch.Tensor, y: torch.Tensor, num_classes: int, k: int = 20, temperature: float = 0.07
) -> Logits:
    """DINO's vote (arXiv 2104.14294): the k most similar images by cosine, each with exp(cosine / temperature).

    A class without a vote has -inf: it is no prediction.

    Args:
        z (`torch.Tensor`): Shape (N, D), real features.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.
        k (`int`, *optional*, defaults to 20): Voters; all images where there are fewer.
        temperature (`float`, *optional*, defaults to 0.07): Of the weights.
    """
    bank, k = F.normalize(z.float(), dim=1), min(k, len(z))

    def votes(queries: torch.Tensor) -> torch.Tensor:
        counted = []
        for block in F.normalize(queries, dim=1).split(max(1, _MAX_SIMILARITIES // len(bank))):
            similarity, rows = (block @ bank.T).topk(k, dim=1)
            weights = ((similarity - 1) / temperature).exp()  # the same votes, without overflow
            sums = weights.new_zeros(len(block), num_classes).scatter_add_(1, y[rows], weights)
            counted.append(sums.masked_fill(sums == 0, -torch.inf))
        return torch.cat(counted)

    return votes


def ridge_regression(z: torch.Tensor, y: torch.Tensor, num_classes: int) -> OfStrength:
    """Least squares to one-hot labels, with a penalty on the weights and none on the bias.

    Args:
        z (`torch.Tensor`): Shape (N, D), real features.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.

    Returns:
        `Callable`: From the penalty, in units of the mean variance of a feature.
    """
    m = _Moments.of(z, y, num_classes)

    def fitted(ridge: float) -> Logits:
        W = m.shares[:, None] * m.solve(m.total, ridge * _mean_diagonal(m.total))
        return _linear(W, m.shares - W @ m.mean)

    return fitted


def discriminant_analysis(z: torch.Tensor, y: torch.Tensor, num_classes: int) -> OfStrength:
    """Linear discriminant analysis: one covariance for all classes, shrunk towards a multiple of the identity.

    Args:
        z (`torch.Tensor`): Shape (N, D), real features.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.

    Returns:
        `Callable`: From the shrinkage, between 0 (the covariance as it is) and 1.
    """
    m = _Moments.of(z, y, num_classes)
    within = m.total - (m.shares[:, None] * m.class_means).T @ m.class_means

    def fitted(shrinkage: float) -> Logits:
        W = m.solve((1 - shrinkage) * within, shrinkage * _mean_diagonal(within))
        return _linear(W, m.shares.log() - (W * m.class_means).sum(dim=1) / 2 - W @ m.mean)

    return fitted


def logistic_regression(z: torch.Tensor, y: torch.Tensor, num_classes: int, max_iter: int = LBFGS_STEPS) -> OfStrength:
    """A linear probe trained to convergence, by L-BFGS: mean cross-entropy + weight decay / 2 * the weights' square.

    Args:
        z (`torch.Tensor`): Shape (N, D), real features.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.
        max_iter (`int`, *optional*, defaults to 200): Steps at most.

    Returns:
        `Callable`: From the weight decay, for features that are scaled to a mean variance of 1.
    """
    mean = z.float().mean(dim=0)
    squares = torch.stack([(block.float() - mean).square().sum() for block in z.split(_BLOCK)]).sum()
    scale = (squares / z.numel()).sqrt().clamp(min=1e-12)
    return functools.partial(_converged, z, y, num_classes, mean, scale, max_iter)


def _converged(
    z: torch.Tensor,
    y: torch.Tensor,
    num_classes: int,
    mean: torch.Tensor,
    scale: torch.Tensor,
    max_iter: int,
    weight_decay: float,
) -> Logits:
    """The probe of one weight decay."""
    W = torch.zeros(num_classes, z.shape[1], device=z.device, requires_grad=True)
    b = torch.zeros(num_classes, device=z.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=max_iter, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = weight_decay / 2 * W.square().sum()
        total.backward()
        for block, labels in zip(z.split(_BLOCK), y.split(_BLOCK), strict=True):
            logits = (block.float() - mean) / scale @ W.T + b
            loss = F.cross_entropy(logits, labels, reduction="sum") / len(z)
            loss.backward()
            total = total.detach() + loss.detach()
        return total

    with torch.enable_grad():
        optimizer.step(closure)
    weights = W.detach() / scale
    return _linear(weights, b.detach() - weights @ mean)


def chosen(
    fit: Callable[[torch.Tensor, torch.Tensor, int], OfStrength],
    strengths: Sequence[float],
    z: torch.Tensor,
    y: torch.Tensor,
    num_classes: int,
) -> tuple[Logits, float]:
    """A classifier fitted with the strength that does best on held-out training images, and that strength.

    Args:
        fit (`Callable`): One of the functions above.
        strengths (`Sequence[float]`): What to choose from; of equals the first is taken.
        z (`torch.Tensor`): Shape (N, D), real features.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.
    """
    kept, held_out = _hold_out(y, num_classes)
    of_strength, hits = fit(z[kept], y[kept], num_classes), []
    for strength in strengths:
        logits = of_strength(strength)(z[held_out].float())
        hits.append(int((logits.argmax(dim=1) == y[held_out]).sum()))
    best = strengths[hits.index(max(hits))]
    return fit(z, y, num_classes)(best), best


@dataclass(frozen=True)
class _Moments:
    """What least squares and discriminant analysis need of features, in float64: one pass, whatever their number.

    Args:
        mean (`torch.Tensor`): Shape (D,).
        total (`torch.Tensor`): Shape (D, D), the covariance.
        class_means (`torch.Tensor`): Shape (C, D), about that mean.
        shares (`torch.Tensor`): Shape (C,), of the classes; sums to 1.
    """

    mean: torch.Tensor
    total: torch.Tensor
    class_means: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def of(cls, z: torch.Tensor, y: torch.Tensor, num_classes: int) -> "_Moments":
        if z.device.type == "mps":  # which has no float64
            z, y = z.cpu(), y.cpu()
        counts = torch.bincount(y, minlength=num_classes).double()
        mean = z.mean(dim=0, dtype=torch.float64)
        sums = mean.new_zeros(num_classes, z.shape[1])
        total = mean.new_zeros(z.shape[1], z.shape[1])
        for block, labels in zip(z.split(_BLOCK), y.split(_BLOCK), strict=True):
            centred = block.double() - mean
            sums.index_add_(0, labels, centred)
            total += centred.T @ centred
        return cls(mean, total / len(z), sums / counts[:, None], counts / len(z))

    def solve(self, covariance: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
        """The class means times the inverse of (covariance + ridge * identity), of shape (C, D)."""
        identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        ridge = ridge.clamp(min=_ROUNDING * (_mean_diagonal(self.total) + self.mean.square().mean()) + _TINY)
        return torch.linalg.solve(covariance + ridge * identity, self.class_means.T).T


def _mean_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.diagonal().mean()


def _linear(W: torch.Tensor, b: torch.Tensor) -> Logits:
    """Logits by weights (C, D) and biases (C,)."""
    return lambda z: z @ W.to(z).T + b.to(z)


def _hold_out(y: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to fit on and rows to choose by: a part of each class that has more than one image."""
    kept, held_out = [], []
    for label, rows in enumerate(indices_by_class(y, num_classes)):
        order = torch.randperm(len(rows), generator=seeded_generator(0, "choosing", label)).to(rows.device)
        count = min(len(rows) - 1, max(1, round(HELD_OUT_SHARE * len(rows))))
        kept.append(rows[order[count:]])
        held_out.append(rows[order[:count]])
    return torch.cat(kept), torch.cat(held_out)
