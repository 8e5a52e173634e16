"""From logits to accuracies: over all images, over classes, over the worst group."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..data.labelled_images import LabelledImages
from ..publishing.results import ProbeResult

# Numbers that are scored at a time, for each seed.
_MAX_LOGITS = 2**24

# Largest over smallest class, from which on the mean over classes is worth a number of its own.
_UNBALANCED = 1.5


@dataclass(frozen=True)
class EvalFeatures:
    """What is scored on.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        class_names (`list[str]`): Length C.
        groups (`torch.Tensor`, *optional*): Shape (N,), numbers of their groups; -1 for none.
        group_names (`list[str]`, *optional*): The groups' names.
    """

    z: torch.Tensor
    y: torch.Tensor
    class_names: list[str]
    groups: torch.Tensor | None = None
    group_names: list[str] | None = None

    @classmethod
    def of(cls, images: LabelledImages, z: torch.Tensor) -> "EvalFeatures":
        """Of images and their features, on the features' device."""
        groups = None if images.groups is None else images.groups.to(z.device)
        return cls(z.float(), images.labels.to(z.device), images.class_names, groups, images.group_names)

    @torch.no_grad()
    def result(
        self, training_set: str, backbone: str, protocol: str, logits: Callable[[torch.Tensor], torch.Tensor]
    ) -> ProbeResult:
        """What a classifier scores.

        Args:
            training_set (`str`): See [`ProbeResult`], also for the next two.
            backbone (`str`): Likewise.
            protocol (`str`): Likewise.
            logits (`Callable`): Logits of shape (seeds, M, C) of features of shape (M, D); -inf for a class that is
                not predicted at all.
        """
        num_classes = len(self.class_names)
        k = 5 if num_classes > 5 else 1
        rows = max(1, _MAX_LOGITS // num_classes)  # at a time
        batches = zip(self.z.split(rows), self.y.split(rows), strict=True)
        best = torch.cat([_among_best(logits(z), y, k) for z, y in batches], dim=1)
        hits = best[..., 0]  # (seeds, N)
        scores = {"top-1": accuracy(hits)}
        if k > 1:
            scores["top-5"] = accuracy(best.any(dim=-1))
        present, sizes = self.y.unique(return_counts=True)
        if sizes.max() > _UNBALANCED * sizes.min():
            scores["macro"] = macro_accuracy(hits, self.y)
        names = [self.class_names[label] for label in present.tolist()]
        per_class = dict(zip(names, _mean_percent(group_accuracies(hits, self.y)), strict=True))
        per_group = {}
        if self.groups is not None and self.group_names is not None and (self.groups >= 0).any():
            shares, pairs = subgroup_accuracies(hits, self.y, self.groups)
            scores["worst group"] = shares.amin(dim=-1)
            names = [f"{self.class_names[label]} / {self.group_names[group]}" for label, group in pairs]
            per_group = dict(zip(names, _mean_percent(shares), strict=True))
        accuracies = {metric: (100 * values).tolist() for metric, values in scores.items()}
        return ProbeResult(training_set, backbone, protocol, accuracies, per_class, per_group)


def _among_best(logits: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
    """Which of the k best predictions is right, of shape (seeds, M, k), for logits (seeds, M, C) and classes (M,)."""
    best = logits.topk(k, dim=-1)
    return (best.indices == y[None, :, None]) & (best.values > -torch.inf)


def _mean_percent(shares: torch.Tensor) -> list[float]:
    """Means over the seeds of shares of shape (seeds, G)."""
    return [round(share, 2) for share in (100 * shares.mean(dim=0)).tolist()]


def accuracy(hits: torch.Tensor) -> torch.Tensor:
    """Share of hits among (…, N), of shape (…)."""
    return hits.double().mean(dim=-1)


def group_accuracies(hits: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Share of hits in each group that occurs, of shape (…, G).

    Args:
        hits (`torch.Tensor`): Shape (…, N).
        groups (`torch.Tensor`): Shape (N,), numbers of groups, such as classes.
    """
    _, index, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = hits.new_zeros(*hits.shape[:-1], len(counts), dtype=torch.float64)
    return sums.index_add_(-1, index, hits.double()) / counts


def macro_accuracy(hits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean over the classes y of shape (N,) of the share of hits (…, N), so that rare classes count."""
    return group_accuracies(hits, y).mean(dim=-1)


def subgroup_accuracies(
    hits: torch.Tensor, y: torch.Tensor, groups: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Share of hits in each pair of class and group that occurs, of shape (…, G), and these pairs.

    Args:
        hits (`torch.Tensor`): Shape (…, N).
        y (`torch.Tensor`): Shape (N,), classes.
        groups (`torch.Tensor`): Shape (N,), groups; -1 for none, which is no group.
    """
    known = groups >= 0
    count = int(groups.amax()) + 1
    numbers = y[known] * count + groups[known]
    return group_accuracies(hits[..., known], numbers), [divmod(pair, count) for pair in numbers.unique().tolist()]
