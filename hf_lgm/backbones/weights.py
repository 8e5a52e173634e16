"""Weights that a checkpoint does not have: whether features need them, and where they may be."""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

# Weights that are looked for and named: each takes a forward pass.
_SHOWN = 3

# What weights of whole numbers have beside them.
_SCALES = ("scale", "scale_inv", "scales", "absmax", "SCB", "qweight", "qzeros", "zero_point")


@contextmanager
def without_report() -> Iterator[None]:
    """Without the table in which Transformers lists what a checkpoint lacks: what matters of it is an error here."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@torch.no_grad()
def check_weights(backbone: Any, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse features that depend on weights which were not in the checkpoint, or not in their shape: random ones.

    Args:
        backbone ([`FrozenBackbone`]): What gives the features.
        missing (`Collection[str]`): Names of such weights.
        unexpected (`Collection[str]`): Names in the checkpoint that the model does not know.

    Raises:
        ValueError: If they do; the message names the weights, and a prefix that hides them.
    """
    if scales := [name for name in sorted(unexpected) if name.endswith(_SCALES)]:
        raise ValueError(f"{backbone.name}: its weights are quantised ({scales[0]}): give a checkpoint of floats.")
    hidden_poolers = [name for name in missing if "pooler" in name]
    if prefix := hidden_by(hidden_poolers, unexpected):
        raise ValueError(f"{backbone.name}: {_explain(sorted(hidden_poolers)[:_SHOWN], prefix, unexpected)}")
    state, side = backbone.model.state_dict(), backbone.image_size
    suspects = {name: state[name] for name in sorted(missing) if name in state and state[name].is_floating_point()}
    if not suspects:
        return
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(backbone.mean)
    before = backbone(image)
    needed = (name for name, weight in suspects.items() if _changes(lambda: backbone(image), before, weight))
    if first := list(itertools.islice(needed, _SHOWN)):
        prefix = hidden_by(list(suspects), unexpected)
        raise ValueError(f"{backbone.name}: {_explain(first, prefix, unexpected)}")


def _changes(features: Callable[[], torch.Tensor], before: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether features change with a weight. Not a number would not show all: attention may hide it."""
    kept = weight.clone()
    weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight)
    after = features()
    weight.copy_(kept)
    return not torch.equal(before, after)


def _explain(needed: Sequence[str], prefix: str | None, unexpected: Collection[str]) -> str:
    shown = f"{', '.join(needed)}{' and others' if len(needed) == _SHOWN else ''}"
    said = f"weights that its features need are not in the checkpoint, or in another shape: {shown}"
    if prefix:
        return f"{said}. There they begin with '{prefix}': give strip_prefix '{prefix}'."
    others = f", which has others instead, such as {min(unexpected)}" if unexpected else ""
    return (
        f"{said}{others}. They would be random: use a whole checkpoint, another feature_pooling where that does "
        "without them, or load the model in Python: FrozenBackbone(model, Preprocessing(image_size=…))."
    )


def hidden_by(needed: Sequence[str], unexpected: Collection[str]) -> str | None:
    """The prefix with which most of the needed names are in the checkpoint; `None` where there is none.

    Args:
        needed (`Sequence[str]`): Names in the model.
        unexpected (`Collection[str]`): Names in the checkpoint.
    """
    ends = set(needed)
    found = Counter(name[:start] for name in unexpected for start in range(1, len(name)) if name[start:] in ends)
    return found.most_common(1)[0][0] if found else None
