"""What a model says on the way to its features: hidden states of a few of its blocks, one vector per image each."""

from collections.abc import Sequence
from typing import Any

import torch

from .pooling import spatial_dimensions


def find_layers(output: Any, count: int) -> tuple[int, ...]:
    """Which hidden states to take: the last of each of the last `count` stages, or as many depths of a single stage.

    A stage is what comes before the number of positions changes. The depths of a plain transformer are evenly spread
    from the middle to the end: of three, at half, three quarters and all of it.

    Args:
        output: What the model returned for two images; `None` where it refused to show hidden states.
        count (`int`): How many, at most.

    Returns:
        `tuple[int, ...]`: Places among the hidden states, the deepest last; none where the model shows none.
    """
    states = getattr(output, "hidden_states", None) or ()
    positions = [_num_positions(state) for state in states]
    blocks = [i for i in range(1, len(states)) if positions[i]]  # the first one is what goes into the first block
    following = dict(zip(blocks, blocks[1:], strict=False))
    ends = [i for i in blocks if i not in following or positions[following[i]] != positions[i]]
    if len(ends) != 1:
        return tuple(ends[-count:])
    depth = len(blocks)
    shares = [1 - step / (2 * max(1, count - 1)) for step in range(count)]
    return tuple(sorted({blocks[max(1, round(share * depth)) - 1] for share in shares}))


def pool_layers(output: Any, layers: Sequence[int]) -> list[torch.Tensor]:
    """The mean over all positions of each of these hidden states, of shape (B, D) each."""
    return [_mean(output.hidden_states[layer]) for layer in layers]


def _mean(state: torch.Tensor) -> torch.Tensor:
    return state.mean(dim=spatial_dimensions(state) if state.ndim == 4 else 1)


def _num_positions(state: Any) -> int:
    """Tokens or places of a map; 0 for what is neither of two images."""
    if not isinstance(state, torch.Tensor) or state.ndim not in (3, 4) or len(state) != 2:
        return 0
    if state.ndim == 3:
        return state.shape[1]
    first, second = spatial_dimensions(state)
    return state.shape[first] * state.shape[second]
