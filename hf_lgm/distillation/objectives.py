"""What the synthetic images are optimised for: pure functions of features, in which no image and no pixel occurs."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F

from ..randomness import seeded_generator
from ..settings import Objective

# Numbers that are held at a time, such as logits, while something is summed over all real features. On a CPU they are
# few: memory that is taken anew for each block costs as much as the sums.
_BLOCK_ON_CPU, _BLOCK = 2**22, 2**26

# Real features that a temperature is fitted on, at most; it is one number.
_TEMPERATURE_ROWS = 4096
_NEWTON_STEPS = 30

# The numbers of the ridge objective are ratios, so that they hold for any backbone. How they were found is in
# benchmarks/README.md.
RIDGE = 2.0  # in units of the variance of the synthetic features, per class
SHRINKAGE = 3.0  # in units of the mean variance of real features within classes
RIDGE_WEIGHT = 0.1  # of the ridge probe's loss beside the matching of natural gradients
LOGITS = 0.25  # size of the logits that the random probe gives real features


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of labelled images.

    Args:
        z (`torch.Tensor`): Shape (N, D), features.
        y (`torch.Tensor`): Shape (N,), class indices, or shape (N, C), a distribution over classes for each.
        weight (`torch.Tensor`): Shape (N,), what each sample counts; sums to 1.
        cluster (`torch.Tensor`, *optional*): Shape (N,), the cluster of its class that each sample belongs to,
            numbered over all classes. It tells several images of a class apart, see
            [`~hf_lgm.features.coresets.class_clusters`].
    """

    z: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor
    cluster: torch.Tensor | None = None

    @property
    def by_cluster(self) -> "LabelledFeatures":
        """The same with clusters in place of classes, where there are any."""
        return self if self.cluster is None else self._by_cluster  # one that held itself would outlive its step

    @functools.cached_property
    def _by_cluster(self) -> "LabelledFeatures":
        assert self.cluster is not None
        return LabelledFeatures(self.z, self.cluster, self.weight)

    def blocks(self, like: torch.Tensor, width: int) -> Iterator["LabelledFeatures"]:
        """The samples a few at a time, as many as make a block of numbers of that width, where and as `like` is."""
        rows = max(1, (_BLOCK_ON_CPU if like.device.type == "cpu" else _BLOCK) // width)
        for z, y, weight in zip(*(t.split(rows) for t in (self.z, self.y, self.weight)), strict=True):
            yield LabelledFeatures(z.to(like), y.to(like.device), weight.to(like))

    def targets(self, num_classes: int) -> torch.Tensor:
        """The distribution over classes of each sample, of shape (N, C)."""
        return (self.y if self.y.is_floating_point() else F.one_hot(self.y, num_classes)).to(self.z.dtype)

    def class_sums(self, like: torch.Tensor) -> torch.Tensor:
        """For each of C classes the weighted sums of features and of ones, of shape (C, D + 1).

        Those that want no gradient, as of real features, are computed once.

        Args:
            like (`torch.Tensor`): Shape (C, …); sums are where and as it is.
        """
        num_classes = len(like)
        if num_classes in self._class_sums:
            return self._class_sums[num_classes]
        total = like.new_zeros(num_classes, self.z.shape[1] + 1)
        for block in self.blocks(like, max(total.shape)):
            total = total + block.targets(num_classes).T @ block.weighted
        if not total.requires_grad:
            self._class_sums[num_classes] = total
        return total

    @functools.cached_property
    def _class_sums(self) -> dict[int, torch.Tensor]:
        return {}

    @property
    def weighted(self) -> torch.Tensor:
        """Features with a one beside them, for a bias, times what each sample counts, of shape (N, D + 1)."""
        return torch.cat([self.z, self.z.new_ones(len(self.z), 1)], dim=1) * self.weight[:, None]

    @functools.cached_property
    def norm(self) -> torch.Tensor:
        """Root mean square of the features' lengths, a scalar."""
        squares = [block.weight @ block.z.square().sum(dim=1) for block in self.blocks(self._of_sums, self.z.shape[1])]
        return torch.stack(squares).sum().sqrt()

    @functools.cached_property
    def precision(self) -> torch.Tensor:
        """Inverse of the covariance within classes, shrunk, of shape (D, D). Needs hard labels, of all classes."""
        num_classes, dim, like = int(self.y.max()) + 1, self.z.shape[1], self._of_sums
        # Around their mean: of features that lie far from zero the difference of squares would be rounding.
        mean = torch.stack([block.weight @ block.z for block in self.blocks(like, dim)]).sum(dim=0)
        share, total, second = like.new_zeros(num_classes), like.new_zeros(num_classes, dim), like.new_zeros(dim, dim)
        for block in self.blocks(like, max(num_classes, dim)):
            weighted, z = block.targets(num_classes) * block.weight[:, None], block.z - mean
            share += weighted.sum(dim=0)
            total += weighted.T @ z
            second += z.T @ (z * block.weight[:, None])
        within = second - total.T @ (total / share[:, None])
        floor = 1e-4 * second.diagonal().mean()  # of one image per class rounding leaves noise alone
        variance = within.diagonal().mean().clamp(min=floor)
        variance = variance.clamp(min=torch.finfo(second.dtype).tiny ** 0.5)  # of features that are all zero
        return torch.linalg.inv(within + SHRINKAGE * variance * torch.eye(dim).to(within))

    @property
    def _of_sums(self) -> torch.Tensor:
        """Says where and in which precision sums over all samples are taken."""
        return self.weight.new_zeros(0, dtype=torch.promote_types(self.z.dtype, torch.float32))


# Of the synthetic features, the real ones and a random probe of one feature space, a scalar.
ObjectiveFunction = Callable[[LabelledFeatures, LabelledFeatures, torch.Tensor], torch.Tensor]


def balanced_weights(y: torch.Tensor) -> torch.Tensor:
    """Sample weights of shape (N,) that let every class that occurs count equally and sum to 1."""
    counts = torch.bincount(y)
    return 1 / (counts[y] * (counts > 0).sum())


def uniform_weights(y: torch.Tensor) -> torch.Tensor:
    """Sample weights of shape (N,) of the plain mean."""
    return torch.full(y.shape[:1], 1 / len(y), device=y.device)


def probe_gradient(features: LabelledFeatures, W: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    """Gradient of the weighted cross-entropy with respect to a linear probe, of shape (C, D + 1).

    The last column belongs to the bias. In closed form `[(softmax(z W^T + b) - y)^T z, sum(softmax - y)]`, so that a
    gradient through it needs no double backward pass (paper, section 3.1, states the gradient itself). What labels
    add to it does not depend on the probe: of real features it is computed once.

    Args:
        features (`LabelledFeatures`): N samples.
        W (`torch.Tensor`): Shape (C, D), the probe's weights.
        b (`torch.Tensor`, *optional*): Shape (C,), its bias; zero where not given.
    """
    total = W.new_zeros(W.shape[0], W.shape[1] + 1)
    for block in features.blocks(W, len(W)):
        total = total + _logits(block.z, W, b).softmax(dim=1).T @ block.weighted
    return total - features.class_sums(W)


def probe_loss(features: LabelledFeatures, W: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted cross-entropy of a linear probe, a scalar, and its gradient as [`probe_gradient`] has it.

    Both in one pass: labels are needed for the class sums alone, since the cross-entropy is linear in them.

    Args:
        features (`LabelledFeatures`): N samples.
        W (`torch.Tensor`): Shape (C, D), the probe's weights.
        b (`torch.Tensor`): Shape (C,), its bias.
    """
    total, level = W.new_zeros(W.shape[0], W.shape[1] + 1), W.new_zeros(())
    for block in features.blocks(W, len(W)):
        logits = _logits(block.z, W, b)
        p = logits.softmax(dim=1)
        total = total + p.T @ block.weighted
        level = level + block.weight @ (logits.amax(dim=1) - p.amax(dim=1).log())  # logsumexp, without exponentials
    sums = features.class_sums(W)
    return level - (sums * torch.cat([W, b[:, None]], dim=1)).sum(), total - sums


def linear_gradient_matching(synthetic: LabelledFeatures, real: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between the gradients that the synthetic and the real features give one random probe.

    With W = 0 it is the matching of class means alone, which is SFM (arXiv 2602.05391).

    Args:
        synthetic (`LabelledFeatures`): Features of all views of all synthetic images.
        real (`LabelledFeatures`): Real features, no gradient needed.
        W (`torch.Tensor`): Shape (C, D), a random probe; as many rows as clusters, where there are any.
    """
    with torch.no_grad():
        g_real = probe_gradient(real.by_cluster, W)
    return _one_minus_cosine(probe_gradient(synthetic.by_cluster, W), g_real)


def ridge_and_natural_gradient(synthetic: LabelledFeatures, real: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """The loss on real features of a ridge probe trained on synthetic ones, beside a matching of natural gradients.

    The loss is CLP-DD's (arXiv 2605.07194). Alone it fits the images to their own backbone, at the expense of others.
    So it stands beside a matching of gradients, and those of the real features are *natural* ones: multiplied by the
    inverse of the covariance within classes. Plain gradients lead to the nearest class mean, natural ones to linear
    discriminant analysis.

    Nothing changes where all features are multiplied by a number, or the synthetic ones are there twice.

    Args:
        synthetic (`LabelledFeatures`): Features of all views of all synthetic images, with labels of shape (n, C).
        real (`LabelledFeatures`): Real features with hard labels, no gradient needed.
        W (`torch.Tensor`): Shape (C, D), a random probe of any scale; as many rows as clusters, where there are any.
    """
    with torch.no_grad():
        W = _with_small_logits(W, real)
        natural = probe_gradient(real.by_cluster, W)[:, :-1] @ real.precision.to(W)
    direction = _one_minus_cosine(probe_gradient(synthetic.by_cluster, W)[:, :-1], natural)
    return direction + RIDGE_WEIGHT * ridge_probe_loss(synthetic, real)


def ridge_probe_loss(synthetic: LabelledFeatures, real: LabelledFeatures) -> torch.Tensor:
    """Cross-entropy on real features, at the best temperature, of the ridge probe that the synthetic ones train.

    Args:
        synthetic (`LabelledFeatures`): What the probe is trained on.
        real (`LabelledFeatures`): What it is scored on, no gradient needed.
    """
    W, b = ridge_probe(synthetic)
    with torch.no_grad():
        some = _temperature_rows(len(real.z), real.z.device)
        few = LabelledFeatures(real.z[some], real.y[some], real.weight[some])
        scale = _best_scale(next(few.blocks(W, 1)), W, b)
        # Blocks of real features leave no graph: their whole gradient is that for the probe.
        loss, gradient = probe_loss(real, scale * W, scale * b)
    along = scale * (gradient * torch.cat([W, b[:, None]], dim=1)).sum()
    return loss + along - along.detach()


@functools.lru_cache(maxsize=4)
def _temperature_rows(total: int, device: torch.device) -> torch.Tensor | slice:
    """Rows to fit the temperature on, drawn once: every so many-th would be all of one class in sorted cycles."""
    if total <= _TEMPERATURE_ROWS:
        return slice(None)
    rows = torch.randperm(total, generator=seeded_generator(0, "temperature"))[:_TEMPERATURE_ROWS]
    return rows.sort().values.to(device)


def ridge_probe(features: LabelledFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (C, D) and bias (C,) of the ridge regression of distributions over classes on features, in closed form.

    The ridge is `RIDGE` times the variance of the features, divided by the number of classes.
    """
    z, y, weight = features.z, features.y.to(features.z), features.weight.to(features.z)[:, None]
    z_mean, y_mean = (weight * z).sum(dim=0), (weight * y).sum(dim=0)
    A, B = weight.sqrt() * (z - z_mean), weight.sqrt() * (y - y_mean)
    ridge = RIDGE * A.square().sum() / y.shape[1]
    ridge = torch.maximum(ridge, _rounding(z.detach()))  # of constant features, whose W is zero then
    if len(A) < A.shape[1]:
        W = torch.linalg.solve(A @ A.T + ridge * torch.eye(len(A)).to(A), B).T @ A
    else:
        W = torch.linalg.solve(A.T @ A + ridge * torch.eye(A.shape[1]).to(A), A.T @ B).T
    return W, y_mean - W @ z_mean


def layer_matching(synthetic: LabelledFeatures, real: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """Linear gradient matching in a layer's space, whose size may be any: without bias, and with small logits.

    Args:
        synthetic (`LabelledFeatures`): The layer's answers to all views of all synthetic images.
        real (`LabelledFeatures`): Its mean answer to each class (or cluster) of real images.
        W (`torch.Tensor`): Shape (C, D), a random probe of any scale; as many rows as clusters, where there are any.
    """
    with torch.no_grad():
        W = _with_small_logits(W, real)
        g_real = probe_gradient(real.by_cluster, W)[:, :-1]
    return _one_minus_cosine(probe_gradient(synthetic.by_cluster, W)[:, :-1], g_real)


def gradient_over_spaces(
    synthetic: LabelledFeatures,
    real: Sequence[LabelledFeatures],
    W: Sequence[torch.Tensor],
    objective: Objective | ObjectiveFunction = "lgm",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The loss in all feature spaces of a backbone, with its gradient: that of its features, and the layers' mean.

    Args:
        synthetic (`LabelledFeatures`): Features with the layers beside them, of shape (n, D + D_1 + …).
        real (`Sequence[LabelledFeatures]`): Real features, and of each layer the means.
        W (`Sequence[torch.Tensor]`): A random probe for each of these spaces.
        objective (`str` or `Callable`, *optional*, defaults to `"lgm"`): Of the features; a function of a user's own
            is that of the layers too.

    Returns:
        As [`feature_gradient`], for all spaces together.
    """
    spaces = synthetic.z.split([each.z.shape[1] for each in real], dim=1)
    loss, dz, dy = feature_gradient(replace(synthetic, z=spaces[0]), real[0], W[0], objective)
    all_dz, share = [dz], 1 / max(1, len(spaces) - 1)
    of_layers: Literal["layer"] | ObjectiveFunction = objective if callable(objective) else "layer"
    for z, means, probe in zip(spaces[1:], real[1:], W[1:], strict=True):
        layer_loss, dz, layer_dy = feature_gradient(replace(synthetic, z=z), means, probe, of_layers)
        loss = loss + share * layer_loss
        all_dz.append(share * dz)
        dy = dy if dy is None or layer_dy is None else dy + share * layer_dy
    return loss, torch.cat(all_dz, dim=1), dy


def feature_gradient(
    synthetic: LabelledFeatures,
    real: LabelledFeatures,
    W: torch.Tensor,
    objective: Objective | Literal["layer"] | ObjectiveFunction = "lgm",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The loss and its gradient with respect to the synthetic features: all that pixels ever hear of an objective.

    Computed in float32 at least, whatever precision the features come in. Returns a scalar, a tensor of shape (n, D)
    in the features' own type, and the gradient with respect to labels (n, C), where they want one.
    """
    dtype = torch.promote_types(synthetic.z.dtype, torch.float32)
    z, y = synthetic.z.detach().to(dtype).requires_grad_(), synthetic.y
    learned = [z]
    if y.requires_grad:
        y = y.detach().to(dtype).requires_grad_()
        learned.append(y)
    features = LabelledFeatures(z, y, synthetic.weight, synthetic.cluster)
    compute = objective if callable(objective) else _OBJECTIVES[objective]
    loss = compute(features, real, W.to(dtype))
    dz, *dy = torch.autograd.grad(loss, learned, allow_unused=True)  # where clusters are matched, labels are not
    return loss.detach(), dz.to(synthetic.z.dtype), dy[0] if dy else None


_OBJECTIVES = {"lgm": linear_gradient_matching, "ridge": ridge_and_natural_gradient, "layer": layer_matching}


def _rounding(z: torch.Tensor) -> torch.Tensor:
    """What may be seen as variance of constant features (N, D) by rounding alone; above zero."""
    precision = torch.finfo(z.dtype)
    return (8 * precision.eps) ** 2 * z.square().sum(dim=1).mean() + precision.tiny**0.5


def _with_small_logits(W: torch.Tensor, real: LabelledFeatures) -> torch.Tensor:
    """A random probe at the scale at which real features get logits of a small size."""
    size = W.square().mean().sqrt() * real.norm.to(W)
    return W * (LOGITS / size.clamp(min=torch.finfo(W.dtype).tiny))


def _one_minus_cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 1 - F.cosine_similarity(a.flatten(), b.flatten(), dim=0)


def _logits(z: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
    return z @ W.T if b is None else z @ W.T + b


def _best_scale(features: LabelledFeatures, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What the logits have to be multiplied by for the least cross-entropy, by Newton's method; a scalar.

    It is convex in one number. Steps are held to a factor of three; the host waits for none of them.
    """
    logits = _logits(features.z, W, b)
    weight = features.weight / features.weight.sum()
    wanted = (weight * (features.targets(len(W)) * logits).sum(dim=1)).sum()
    spread, precision = logits.std(), torch.finfo(logits.dtype)
    is_flat = spread <= 8 * precision.eps * logits.abs().max()  # no factor is better than another
    scale = 1 / spread.clamp(min=precision.tiny)
    for _ in range(_NEWTON_STEPS):
        p = (scale * logits).softmax(dim=1)
        mean, square = (p * logits).sum(dim=1), (p * logits.square()).sum(dim=1)
        slope, curvature = (weight * mean).sum() - wanted, (weight * (square - mean.square())).sum()
        step = scale - slope / curvature.clamp(min=precision.tiny)
        scale = step.clamp(scale / 3, scale * 3)
    return torch.where(is_flat, 1.0, scale)
