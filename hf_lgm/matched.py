"""Real images chosen by the objective of the distillation: so that their gradient points where all images' points."""

import logging

import torch
import torch.nn.functional as F

from .data import indices_by_class
from .objectives import LabelledFeatures, balanced_weights, probe_gradient
from .randomness import seeded_generator

logger = logging.getLogger(__name__)

_PROBES = 4
_MAX_SWEEPS = 20


def matched_rows(
    z: torch.Tensor, y: torch.Tensor, num_classes: int, rows: torch.Tensor, probe_std: float = 0.01, seed: int = 0
) -> torch.Tensor:
    """Rows that no exchange of one image for another of its class improves, of the shape of `rows`: a local optimum.

    Coordinate descent on the objective of the distillation, `linear_gradient_matching`, averaged over a few random
    probes, with the centre view of each image for its views. The gradient of a set is the mean of its images', each
    the outer product of an error (C,) and a feature (D + 1,), so that all candidates for a place are scored by one
    product of matrices.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of all real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.
        rows (`torch.Tensor`): Shape (n,), the rows to begin with.
        probe_std (`float`, *optional*, defaults to 0.01): Of the random probes.
        seed (`int`, *optional*, defaults to 0): Draws them.
    """
    dtype = torch.float64 if z.device.type == "cpu" else torch.float32
    z, candidates = z.to(dtype), indices_by_class(y, num_classes)
    probes = [_Probe(z, y, num_classes, probe_std, seed, number) for number in range(_PROBES)]
    rows = rows.clone()
    for probe in probes:
        probe.total = probe.gradient_of(rows)
    for _ in range(_MAX_SWEEPS):
        before = rows.clone()
        for place, row in enumerate(rows.tolist()):
            of_class = candidates[int(y[row])]
            others = [probe.total - probe.gradient_of(rows[place : place + 1]) for probe in probes]
            scores = torch.stack([probe.cosines(rest, of_class) for probe, rest in zip(probes, others, strict=True)])
            scores = scores.mean(dim=0)
            taken = torch.isin(of_class, torch.cat([rows[:place], rows[place + 1 :]]))
            scores[taken] = -torch.inf
            best = int(scores.argmax())
            if scores[best] > scores[of_class == row][0] + 1e-9:  # else a tie could go on for ever
                rows[place] = of_class[best]
            for probe, rest in zip(probes, others, strict=True):
                probe.total = rest + probe.gradient_of(rows[place : place + 1])
        if torch.equal(rows, before):
            return rows
    logger.warning(
        "Matched images still change after %d sweeps over all of them: these are not yet the best", _MAX_SWEEPS
    )
    return rows


class _Probe:
    """One random probe: the direction of the real gradient, and each image's part of a set's gradient.

    Args:
        z (`torch.Tensor`): Shape (N, D).
        y (`torch.Tensor`): Shape (N,).
        num_classes (`int`): C.
        std (`float`): Of its weights.
        seed (`int`): With `number`, draws them.
        number (`int`): Which one it is.
    """

    total: torch.Tensor

    def __init__(self, z: torch.Tensor, y: torch.Tensor, num_classes: int, std: float, seed: int, number: int) -> None:
        generator = seeded_generator(seed, "matched probe", number)
        W = (std * torch.randn(num_classes, z.shape[1], generator=generator)).to(z)
        self.target = F.normalize(probe_gradient(LabelledFeatures(z, y, balanced_weights(y)), W).flatten(), dim=0)
        self.target = self.target.view(num_classes, -1)  # (C, D + 1)
        self.W, self.z, self.y = W, z, y

    def parts(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors (n, C) and features (n, D + 1), whose outer products are the images' gradients."""
        z = self.z[rows]
        errors = (z @ self.W.T).softmax(dim=1) - F.one_hot(self.y[rows], len(self.W)).to(z)
        return errors, torch.cat([z, z.new_ones(len(z), 1)], dim=1)

    def gradient_of(self, rows: torch.Tensor) -> torch.Tensor:
        """The sum of the images' gradients, of shape (C, D + 1)."""
        errors, features = self.parts(rows)
        return errors.T @ features

    def cosines(self, rest: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Cosine with the real gradient of `rest` (C, D + 1) and one candidate each, of shape (len(candidates),)."""
        errors, features = self.parts(candidates)
        along = (self.target * rest).sum() + ((features @ self.target.T) * errors).sum(dim=1)
        own = errors.square().sum(dim=1) * features.square().sum(dim=1)
        length = rest.square().sum() + 2 * ((features @ rest.T) * errors).sum(dim=1) + own
        return along / length.clamp(min=1e-30).sqrt()
