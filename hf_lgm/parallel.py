"""Who owns which rows, and how rows of unequal number come together."""

import torch
from accelerate import Accelerator


def owned_range(total: int, rank: int, world: int) -> range:
    """The rows of one process: contiguous, sizes differ by at most one, and the first process always has some."""
    share, rest = divmod(total, world)
    start = rank * share + min(rank, rest)
    return range(start, start + share + (rank < rest))


def gather_rows(accelerator: Accelerator, rows: torch.Tensor, total: int) -> torch.Tensor:
    """All processes' owned rows, of shape (total, …), on every process.

    Slices are padded to one length first: a gather of uneven ones aborts the process.
    """
    world = accelerator.num_processes
    if world == 1:
        return rows
    longest = -(-total // world)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = accelerator.gather(padded).split(longest)
    return torch.cat([part[: len(owned_range(total, rank, world))] for rank, part in enumerate(parts)])
