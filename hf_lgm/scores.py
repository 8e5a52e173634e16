"""Shares of hits: over all images, over classes, over the worst group."""

import torch


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
