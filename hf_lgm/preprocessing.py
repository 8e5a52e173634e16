"""What a backbone expects of its input, read from its image processor; the one transform for all real images."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.utils import cached_file

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Resizing to 256 before a crop of 224: where a processor does not crop, and so has no ratio of its own.
DEFAULT_RESIZE_RATIO = 256 / 224


@dataclass(frozen=True)
class Preprocessing:
    """Geometry and normalisation of one backbone.

    Args:
        image_size (`int`): Side of the backbone's square input in pixels.
        mean (`tuple[float, ...]`, *optional*): Per channel, for values in [0, 1]; defaults to ImageNet's.
        std (`tuple[float, ...]`, *optional*): Likewise.
        resize_ratio (`float`, *optional*, defaults to 256/224): The shortest side of a real image is resized to
            `resize_ratio * image_size` before the centre crop of `image_size`; 1 keeps all of a square image.
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize_ratio: float = DEFAULT_RESIZE_RATIO

    def override(
        self,
        image_size: int | None = None,
        resize_ratio: float | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> "Preprocessing":
        """The same with what a user asked for."""
        return replace(
            self,
            image_size=self.image_size if image_size is None else image_size,
            resize_ratio=self.resize_ratio if resize_ratio is None else resize_ratio,
            mean=tuple(mean or self.mean),
            std=tuple(std or self.std),
        )

    @property
    def synthetic_size(self) -> int:
        """Side of the synthetic images: 256 where the backbone takes 224, as in the paper, else the backbone's own."""
        return 256 if self.image_size == 224 else self.image_size

    @classmethod
    def from_processor(cls, processor: Any, config: PreTrainedConfig | None = None) -> "Preprocessing":
        """Read from an image processor, or from the dictionary that one is saved as."""
        values = processor if isinstance(processor, dict) else processor.to_dict()
        values = values.get("image_processor", values)  # a multimodal processor's file holds it under this name
        size, crop = values.get("size") or {}, values.get("crop_size") or {}
        image_size = _side(crop) if values.get("do_center_crop") and crop else _side(size)
        if image_size is None and values.get("max_num_patches"):  # SigLIP 2: as many patches as fit
            image_size = values["patch_size"] * math.isqrt(values["max_num_patches"])
        image_size = image_size or _side(getattr(getattr(config, "vision_config", config), "image_size", None)) or 224
        resized = _side(size) if values.get("do_center_crop") else None
        ratio = max(1.0, resized / image_size) if resized else DEFAULT_RESIZE_RATIO
        normalize = values.get("do_normalize", True)
        mean = values.get("image_mean") or IMAGENET_MEAN
        std = values.get("image_std") or IMAGENET_STD
        return cls(
            image_size, tuple(mean) if normalize else (0.0,) * 3, tuple(std) if normalize else (1.0,) * 3, ratio
        )

    @classmethod
    def from_timm(cls, values: dict[str, Any]) -> "Preprocessing":
        """Read from timm's `pretrained_cfg`."""
        return cls(
            values["input_size"][-1],
            tuple(values.get("mean", IMAGENET_MEAN)),
            tuple(values.get("std", IMAGENET_STD)),
            1 / values.get("crop_pct", 1 / DEFAULT_RESIZE_RATIO),
        )

    @classmethod
    def from_pretrained(cls, name_or_path: str, config: PreTrainedConfig, **hub_kwargs: Any) -> "Preprocessing":
        """Read from a repository or folder; ImageNet's statistics, with a warning, where it says nothing.

        Some processors have no class that works without torchvision (DINOv3, SAM 2): their JSON says the same. A timm
        model's configuration says it too.
        """
        if timm_values := getattr(config, "pretrained_cfg", None):
            return cls.from_timm(timm_values)
        try:
            return cls.from_processor(
                AutoImageProcessor.from_pretrained(name_or_path, backend="pil", **hub_kwargs), config
            )
        except (OSError, ImportError, ValueError):
            path = cached_file(
                name_or_path, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False, **hub_kwargs
            )
        if path is not None:
            with open(path, encoding="utf-8") as file:
                return cls.from_processor(json.load(file), config)
        logger.warning("'%s' has no preprocessor_config.json: using ImageNet's mean and std", name_or_path)
        return cls.from_processor({}, config)


def _side(size: Any) -> int | None:
    """The side that a processor's size, in any of its spellings, asks for."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height")
    if isinstance(size, (list, tuple)):
        size = min(size)
    return int(size) if size else None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit RGB: transparency over white, 16-bit values scaled rather than cut off."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # "I;16" has 16 bits; "I", a wide type, is used for 8 and for 16
        values = np.asarray(image).astype(np.int64)
        is_16_bit = image.mode != "I" or values.max(initial=0) > 255
        image = Image.fromarray((values >> 8 if is_16_bit else values).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point images (mode 'F') have no agreed range: convert them to 8-bit RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int, resize_ratio: float) -> Image.Image:
    """The centre view of a picture: shortest side to `resize_ratio * size`, centre crop of `size`."""
    image = to_rgb(image)
    scale = round(size * resize_ratio) / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as a tensor of shape (3, height, width), 8-bit."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_images(pixels: torch.Tensor) -> list[Image.Image]:
    """8-bit pictures of a tensor of shape (n, 3, height, width) with values in [0, 1], rounded to the nearest."""
    values = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(value) for value in values]
