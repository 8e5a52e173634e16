"""How models of one family are called where that differs from the others: text beside images, patches, masks."""

import inspect
from typing import Any, cast

import torch
import transformers
from torch import nn


def prepare(model: nn.Module) -> nn.Module:
    """The model frozen, in eval mode, with nothing left that draws at random.

    Raises:
        ValueError: If it takes something other than images.
    """
    takes_text(model)
    if _model_type(model) == "vit_mae":
        cast(Any, model).config.mask_ratio = 0.0  # drops patches at random, in eval mode too
    return model.eval().requires_grad_(False)


def takes_text(model: nn.Module) -> bool:
    """Whether images go through `get_image_features`, as in models of images and text.

    Raises:
        ValueError: If there is no way in for images.
    """
    main_input = getattr(model, "main_input_name", "pixel_values")
    if not isinstance(model, transformers.PreTrainedModel):
        return False
    if "pixel_values" in (main_input, _argument_names(model, "forward")[1]):
        return False  # code of a repository often leaves main_input_name at its default, input_ids
    if hasattr(model, "get_image_features"):
        return True
    raise ValueError(
        f"{type(model).__name__} takes '{main_input}', not images. Expected a vision model, or a dual model with "
        "get_image_features; pass its vision part live: FrozenBackbone(module, Preprocessing(image_size=…))."
    )


def call_model(model: nn.Module, pixels: torch.Tensor, **kwargs: Any) -> Any:
    """The model's own output for normalised images.

    Args:
        model (`torch.nn.Module`): A model that [`prepare`] has seen.
        pixels (`torch.Tensor`): Shape (B, 3, side, side).
        kwargs: What the model is asked besides.
    """
    method = image_method(model)
    encode: Any = model if method == "forward" else getattr(model, method)
    accepted = _argument_names(model, method)
    side = pixels.shape[-1]
    if {"pixel_attention_mask", "spatial_shapes"} <= set(accepted):  # SigLIP 2 with native aspect ratio
        return encode(**as_patches(pixels, vision_config(model).patch_size), **kwargs)
    if "interpolate_pos_encoding" in accepted and not _is_native(model, side):
        kwargs["interpolate_pos_encoding"] = True
    if _model_type(model) == "vit_mae":  # shuffles the patches, unless told an order
        num_patches = (side // vision_config(model).patch_size) ** 2
        kwargs["noise"] = torch.arange(num_patches, device=pixels.device).expand(len(pixels), -1)
    return encode(pixels, **kwargs)


def image_method(model: nn.Module) -> str:
    """The name of the method that images go through."""
    return "get_image_features" if takes_text(model) else "forward"


def vision_config(model: nn.Module) -> Any:
    """The configuration that says what its images are like; `None` for a module without one."""
    return vision_config_of(getattr(model, "config", None))


def vision_config_of(config: Any) -> Any:
    """The part of a model's configuration that says what its images are like."""
    return getattr(config, "vision_config", config)


def _model_type(model: nn.Module) -> str | None:
    return getattr(getattr(model, "config", None), "model_type", None)


def _is_native(model: nn.Module, side: int) -> bool:
    """Whether position embeddings fit without being interpolated."""
    native = getattr(vision_config(model), "image_size", None)
    return native is None or list(native if isinstance(native, (list, tuple)) else [native] * 2) == [side, side]


def _argument_names(model: nn.Module, method: str) -> list[str]:
    """In their order, `self` first."""
    return list(inspect.signature(getattr(type(model), method)).parameters)


def as_patches(pixels: torch.Tensor, patch_size: int) -> dict[str, torch.Tensor]:
    """All patches of square images, none of them padding, each flattened as (row, column, channel)."""
    batch, channels, side = pixels.shape[:3]
    grid = side // patch_size
    patches = pixels.reshape(batch, channels, grid, patch_size, grid, patch_size).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": patches.reshape(batch, grid * grid, -1),
        "pixel_attention_mask": pixels.new_ones(batch, grid * grid, dtype=torch.int32),
        "spatial_shapes": torch.full((batch, 2), grid, device=pixels.device),
    }
