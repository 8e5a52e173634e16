"""Reading many images at once: Pillow decodes and resizes without Python's lock, so that threads share the work."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

# Each holds an image, which may be large; and more would wait for Python's lock.
_MOST_THREADS = 8


def in_threads(read: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
    """What `read` makes of each item, in their order, by as many threads as torch computes with, up to eight.

    While the model computes there are none: its own threads, which wait by spinning, would take the cores from them.
    A process that a loader has started has one thread, and reads one item after the other.

    Args:
        read (`Callable`): Is called once for each item; the first error in their order is raised.
        items (`Sequence`): What is read, such as rows.
    """
    threads = min(torch.get_num_threads(), _MOST_THREADS, len(items))
    if threads < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as executor:
        return list(executor.map(read, items))
