"""The best real images by the objective of the distillation that exchanging one at a time reaches."""

import logging

import torch
import torch.nn.functional as F

from ..data.labelled_images import indices_by_class
from ..distillation.objectives import LabelledFeatures, balanced_weights, probe_gradient
from ..progress import progress
from ..randomness import seeded_generator

logger = logging.getLogger(__name__)

_PROBES = 4
_MAX_SWEEPS = 20


def matched_rows(
    z: torch.Tensor, y: torch.Tensor, num_classes: int, rows: torch.Tensor, probe_std: float = 0.01, seed: int = 0
) -> torch.Tensor:
    """Rows that no exchange of one image for another of its class improves, of the shape of `rows`: a local optimum.

    Coordinate descent on the objective of the distillation, `linear_gradient_matching`, averaged over a few random
    probes, with the centre crop of each image for its views. The gradient of a set is the sum of its images', each the
    outer product of an error (C,) and a feature (D + 1,), so that all images of a class are scored for all places of
    the class by three products of matrices.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of all real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.
        rows (`torch.Tensor`): Shape (n,), the rows to begin with.
        probe_std (`float`, *optional*, defaults to 0.01): Of the random probes.
        seed (`int`, *optional*, defaults to 0): Draws them.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    rows, of_each_class, places = rows.clone(), *(indices_by_class(of, num_classes) for of in (y, y[rows]))
    probes = [_Probe(z, y, num_classes, probe_std, seed, number) for number in range(_PROBES)]
    for sweep in range(_MAX_SWEEPS):
        before = rows.clone()
        for probe in probes:
            probe.begin(rows)
        for label in progress(range(num_classes), desc=f"matching, sweep {sweep + 1}", unit="class"):
            _exchange(rows, places[label], of_each_class[label], probes)
        if torch.equal(rows, before):
            return rows
    logger.warning(
        "Matched images still change after %d sweeps over all of them: these are not yet the best", _MAX_SWEEPS
    )
    return rows


def _exchange(rows: torch.Tensor, places: torch.Tensor, of_class: torch.Tensor, probes: "list[_Probe]") -> None:
    """Give each place of one class the best of its rows, one after the other."""
    scored = [_Candidates(probe, of_class) for probe in probes]
    least = max(1e-9, 16 * torch.finfo(probes[0].z.dtype).eps)  # what rounding gains could go on for ever
    for place in places:
        here = int((of_class == rows[place]).nonzero()[0, 0])
        scores = torch.stack([candidates.cosines(here) for candidates in scored]).mean(dim=0)
        taken = torch.isin(of_class, rows[places])
        best = int(scores.masked_fill(taken, -torch.inf).argmax())
        if scores[best] > scores[here] + least and not taken[best]:
            rows[place] = of_class[best]
            for candidates in scored:
                candidates.exchange(here, best)


class _Probe:
    """One random probe: the direction of the real gradient, and the gradient of the set with each image's share in it.

    Attributes:
        total (`torch.Tensor`): Shape (C, D + 1), the gradient of the set.
        along (`torch.Tensor`): A scalar, its product with the direction of the real gradient.
        square (`torch.Tensor`): A scalar, its squared length.

    Args:
        z (`torch.Tensor`): Shape (N, D).
        y (`torch.Tensor`): Shape (N,).
        num_classes (`int`): C.
        std (`float`): Of its weights.
        seed (`int`): With `number`, draws them.
        number (`int`): Which one it is.
    """

    total: torch.Tensor
    along: torch.Tensor
    square: torch.Tensor

    def __init__(self, z: torch.Tensor, y: torch.Tensor, num_classes: int, std: float, seed: int, number: int) -> None:
        generator = seeded_generator(seed, "matched probe", number)
        W = (std * torch.randn(num_classes, z.shape[1], generator=generator)).to(z)
        self.target = F.normalize(probe_gradient(LabelledFeatures(z, y, balanced_weights(y)), W).flatten(), dim=0)
        self.target = self.target.view(num_classes, -1)  # (C, D + 1)
        self.W, self.z, self.y = W, z, y

    def factors(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors (n, C) and features (n, D + 1), whose outer products are the images' gradients."""
        z = self.z[rows]
        errors = (z @ self.W.T).softmax(dim=1) - F.one_hot(self.y[rows], len(self.W)).to(z)
        return errors, torch.cat([z, z.new_ones(len(z), 1)], dim=1)

    def begin(self, rows: torch.Tensor) -> None:
        """Take these rows as the set."""
        errors, features = self.factors(rows)
        self.total = errors.T @ features
        self.along, self.square = (self.target * self.total).sum(), self.total.square().sum()


class _Candidates:
    """The images of one class, as gradients of one probe, and their products with what they are compared with.

    Args:
        probe ([`_Probe`]): Is told of exchanges.
        rows (`torch.Tensor`): Shape (n,).
    """

    def __init__(self, probe: _Probe, rows: torch.Tensor) -> None:
        self.probe = probe
        self.errors, self.features = probe.factors(rows)
        self.own = self.errors.square().sum(dim=1) * self.features.square().sum(dim=1)
        self.with_target, self.with_total = self._products(probe.target), self._products(probe.total)

    def cosines(self, here: int) -> torch.Tensor:
        """Cosine of the set's gradient with the real one, for each candidate in the place of the one here: (n,)."""
        along = self.probe.along - self.with_target[here] + self.with_target
        rest = self.probe.square - 2 * self.with_total[here] + self.own[here]
        squared = rest + 2 * (self.with_total - self._with(here)) + self.own
        return along / squared.clamp(min=1e-30).sqrt()

    def exchange(self, old: int, new: int) -> None:
        """Put one candidate in the place of another."""
        probe, change = self.probe, self._with(new) - self._with(old)
        probe.along = probe.along + self.with_target[new] - self.with_target[old]
        probe.square = probe.square + 2 * (self.with_total[new] - self.with_total[old]) + change[new] - change[old]
        probe.total.addr_(self.errors[new], self.features[new])
        probe.total.addr_(self.errors[old], self.features[old], alpha=-1)
        self.with_total = self.with_total + change

    def _with(self, number: int) -> torch.Tensor:
        """Products of all with one of them, of shape (n,)."""
        return (self.features @ self.features[number]) * (self.errors @ self.errors[number])

    def _products(self, gradient: torch.Tensor) -> torch.Tensor:
        """Products of all with a gradient (C, D + 1), of shape (n,)."""
        return ((self.features @ gradient.T) * self.errors).sum(dim=1)
