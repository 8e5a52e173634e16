"""How the learning rate falls, by Transformers' names for it."""

from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

# Constant for half of a run, then straight to zero, where nothing else is said of it.
_STABLE_DECAY = {"decay_type": "linear", "min_lr_ratio": 0.0}


def learning_rate_factor(name: str, max_steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by, as a function of the step.

    A function and no scheduler: the optimizer is a new one whenever the pyramid grows.

    Args:
        name (`str`): One of Transformers' `SchedulerType`; `warmup_stable_decay` is constant for half of the run and
            then falls in a straight line to zero.
        max_steps (`int`): Length of the run.

    Raises:
        ValueError: If it is none of these, or one that needs more than the step.
    """
    kwargs = {**_STABLE_DECAY, "num_decay_steps": max_steps - max_steps // 2} if name == "warmup_stable_decay" else {}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        scheduler = get_scheduler(name, optimizer, 0, max_steps, kwargs)
    except (ValueError, TypeError) as error:
        raise ValueError(f"lr_scheduler_type='{name}' can't be used here ({error}). {_EXPECTED}") from error
    if not isinstance(scheduler, LambdaLR):
        raise ValueError(f"lr_scheduler_type='{name}' needs more than the step. {_EXPECTED}")
    return scheduler.lr_lambdas[0]


_EXPECTED = "Expected constant, linear, cosine, polynomial, warmup_stable_decay or the like."
