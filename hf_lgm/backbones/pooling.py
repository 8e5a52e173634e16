"""One vector per image out of whatever a vision model returns."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from ..settings import Pooling


def default_pooling(model: nn.Module, output: Any, is_dual: bool, random_weights: Collection[str]) -> Pooling:
    """The part of its output that a model was trained to be read by.

    Args:
        model (`torch.nn.Module`): The model.
        output: What it returned.
        is_dual (`bool`): Whether images go through `get_image_features`.
        random_weights (`Collection[str]`): Parameters that were not in the checkpoint.
    """
    if is_dual or getattr(output, "image_embeds", None) is not None:
        return "projection"
    if isinstance(output, torch.Tensor):
        return "pooler" if output.ndim == 2 else "mean" if output.ndim == 3 else "gap"
    if getattr(output, "cls_token_value", None) is not None:
        return "cls"
    # Not a tanh head on the class token (ViT, DeiT), which most self-supervised checkpoints lack, nor a random one.
    is_unusable = hasattr(getattr(model, "pooler", None), "dense") or any("pooler" in name for name in random_weights)
    if getattr(output, "pooler_output", None) is not None and not is_unusable:
        return "pooler"
    if output.last_hidden_state.ndim == 4:
        return "gap"
    parameters = (name for name, _ in model.named_parameters())
    return "cls" if any(name.endswith(("cls_token", "class_embedding")) for name in parameters) else "mean"


def pool(output: Any, pooling: Pooling) -> torch.Tensor:
    """Features of shape (B, D).

    Args:
        output: What a model returned: a tensor, or an object with `last_hidden_state` and the like.
        pooling (`str`): What to take of it.

    Raises:
        ValueError: If the output has no such part.
    """
    is_tensor = isinstance(output, torch.Tensor)
    tokens: torch.Tensor = output if is_tensor else output.last_hidden_state
    if pooling == "projection" and getattr(output, "image_embeds", None) is not None:
        return output.image_embeds.flatten(1)
    if pooling == "cls" and getattr(output, "cls_token_value", None) is not None:
        return output.cls_token_value.flatten(1)
    if pooling in ("pooler", "projection"):
        pooled = output if is_tensor else getattr(output, "pooler_output", None)
        if pooled is None:
            raise ValueError(f"there is no {pooling} in its output: choose another feature_pooling, such as mean")
        return pooled.flatten(1)
    if (pooling == "gap") != (tokens.ndim == 4) or tokens.ndim < 3:
        kind = {3: "tokens", 4: "a map"}.get(tokens.ndim, "vectors")
        raise ValueError(
            f"it gives {kind} of shape {tuple(tokens.shape)}, which feature_pooling {pooling} does not fit: leave "
            "it out"
        )
    if pooling == "cls":
        return tokens[:, 0]
    return tokens.mean(dim=spatial_dimensions(tokens) if pooling == "gap" else 1)


def spatial_dimensions(feature_map: torch.Tensor) -> tuple[int, int]:
    """A square image has a square map: SAM 2 gives (B, h, w, D), the others (B, D, h, w)."""
    _, first, second, third = feature_map.shape
    return (1, 2) if first == second != third else (2, 3)
