"""Who owns which rows, how rows of unequal number come together, and how numbers reach a device."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

Answer = TypeVar("Answer")

_SEVERAL = "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 -m hf_lgm.cli.distill"


def check_launch() -> None:
    """Refuse launches that could not be what was meant.

    Raises:
        ValueError: If several processes were meant and one was started (`accelerate launch --cpu --num_processes 2`
            does so and says nothing), or weights would be sharded, of which there are none to train.
    """
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            f"This launch was meant for several processes and started one. For several on a CPU: {_SEVERAL}"
        )
    for kind in ("DeepSpeed", "FSDP"):
        if os.environ.get(f"ACCELERATE_USE_{kind.upper()}", "false").lower() in ("1", "true"):
            raise ValueError(
                f"This launch asks for {kind}, which shards weights, and here none are trained: start it without, "
                "accelerate launch --num_processes N -m hf_lgm.cli.distill; each process owns a part of the images."
            )


def check_processes(accelerator: Accelerator) -> None:
    """Refuse processes that were started together and do not know each other, so that each would do all the work.

    Raises:
        ValueError: If there are some.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise ValueError(
            f"This launch started {started} processes, of which each works alone ({accelerator.num_processes} "
            f"connected). For several on a CPU: {_SEVERAL}"
        )


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


def answer_of_first(accelerator: Accelerator, ask: Callable[[], Answer]) -> Answer:
    """What the first process finds, on every process; what it raises, every process raises.

    Args:
        accelerator (`accelerate.Accelerator`): Connects the processes, all of which must ask.
        ask (`Callable`): Is called by the first one.

    Raises:
        OSError: As `ask` does.
        ValueError: Likewise.
    """
    answer: list[Answer | None] = [None]
    error: list[Exception | None] = [None]
    if accelerator.is_main_process:
        try:
            answer = [ask()]
        except (OSError, ValueError) as found:
            error = [found]
    [told, answered] = broadcast_object_list([error[0], answer[0]])
    if told is not None:
        raise told
    return answered


@contextmanager
def saying_who_is_missing() -> Iterator[None]:
    """Say in a sentence that another process has ended, where PyTorch says which connection was closed.

    Raises:
        ConnectionError: If one has.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError(
            "Another process of this run has ended, and this one can't go on alone. Look at what that one said, then "
            "start all of them again with resume_from_checkpoint='auto'."
        ) from error


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on a device, or the tensor itself if it is there; the host does not wait for what the device has to do.

    From memory that is not pinned it would.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
