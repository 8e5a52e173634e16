"""What a backbone expects of its input, read from its image processor; the one transform for all real images."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import transformers
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
    def from_processor(cls, processor: Any, config: "transformers.PreTrainedConfig | None" = None) -> "Preprocessing":
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
    def from_pretrained(
        cls, name_or_path: str, config: "transformers.PreTrainedConfig", **hub_kwargs: Any
    ) -> "Preprocessing":
        """Read from a repository or folder; ImageNet's statistics, with a warning, where it says nothing.

        Some processors have no class that works without torchvision (DINOv3, SAM 2): their JSON says the same. A timm
        model's configuration says it too.
        """
        if timm_values := getattr(config, "pretrained_cfg", None):
            return cls.from_timm(timm_values)
        try:
            return cls.from_processor(
                transformers.AutoImageProcessor.from_pretrained(name_or_path, backend="pil", **hub_kwargs), config
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
