"""What the synthetic images are optimised for: pure functions of features, in which no image and no pixel occurs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

# Logits of real features that are held at a time, while the gradient is summed over all of them.
_BLOCK = 2**26


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of labelled images.

    Args:
        z (`torch.Tensor`): Shape (N, D), features.
        y (`torch.Tensor`): Shape (N,), class indices.
        weight (`torch.Tensor`): Shape (N,), what each sample counts; sums to 1.
    """

    z: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor


def balanced_weights(y: torch.Tensor) -> torch.Tensor:
    """Sample weights of shape (N,) that let every class that occurs count equally and sum to 1."""
    counts = torch.bincount(y)
    return 1 / (counts[y] * (counts > 0).sum())


def uniform_weights(y: torch.Tensor) -> torch.Tensor:
    """Sample weights of shape (N,) of the plain mean."""
    return torch.full(y.shape, 1 / len(y), device=y.device)


def probe_gradient(features: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """Gradient of the weighted cross-entropy with respect to a linear probe, of shape (C, D + 1).

    The last column belongs to the bias. In closed form `[(softmax(z W^T) - onehot(y))^T z, sum(softmax - onehot)]`, so
    that a gradient through it needs no double backward pass (paper, section 3.1, states the gradient itself).

    Args:
        features (`LabelledFeatures`): N samples.
        W (`torch.Tensor`): Shape (C, D), the probe's weights; its bias is zero.
    """
    total = W.new_zeros(W.shape[0], W.shape[1] + 1)
    rows = max(1, _BLOCK // len(W))
    for z, y, weight in zip(*(t.split(rows) for t in (features.z, features.y, features.weight)), strict=True):
        z, y, weight = z.to(W.device, W.dtype), y.to(W.device), weight.to(W.device)
        error = (z @ W.T).softmax(dim=1) - F.one_hot(y, len(W)).to(W.dtype)
        error = error * weight.to(W.dtype)[:, None]
        total = total + torch.cat([error.T @ z, error.sum(dim=0)[:, None]], dim=1)
    return total


def linear_gradient_matching(synthetic: LabelledFeatures, real: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between the gradients that the synthetic and the real features give one random probe.

    With W = 0 it is the matching of class means alone, which is SFM (arXiv 2602.05391).

    Args:
        synthetic (`LabelledFeatures`): Features of all views of all synthetic images.
        real (`LabelledFeatures`): Real features, no gradient needed.
        W (`torch.Tensor`): Shape (C, D), a random probe.
    """
    with torch.no_grad():
        g_real = probe_gradient(real, W)
    g_syn = probe_gradient(synthetic, W)
    return 1 - F.cosine_similarity(g_syn.flatten(), g_real.flatten(), dim=0)


def feature_gradient(
    synthetic: LabelledFeatures, real: LabelledFeatures, W: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and its gradient with respect to the synthetic features: all that pixels ever hear of an objective.

    Computed in float32 at least, whatever precision the features come in. Returns a scalar and a tensor of shape
    (n, D) in the features' own type.
    """
    dtype = torch.promote_types(synthetic.z.dtype, torch.float32)
    z = synthetic.z.detach().to(dtype).requires_grad_()
    loss = linear_gradient_matching(LabelledFeatures(z, synthetic.y, synthetic.weight), real, W.to(dtype))
    (dz,) = torch.autograd.grad(loss, z)
    return loss.detach(), dz.to(synthetic.z.dtype)
