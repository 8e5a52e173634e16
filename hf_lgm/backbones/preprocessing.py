"""What a backbone expects of its input, read from its image processor; the one transform for all real images."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from PIL import Image

from .architectures import vision_config_of
from .processors import (
    FILE_SAYS_ALL,
    FILES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    cant_be_read,
    check_against,
    check_file,
    check_geometry,
    per_channel,
    read_file,
    sides,
    statistics,
)

logger = logging.getLogger(__name__)

# Resizing to 256 before a crop of 224: where nothing says how real images are resized.
DEFAULT_RESIZE_RATIO = 256 / 224

# Rec. 601, as Pillow's mode "L".
LUMINANCE = (0.299, 0.587, 0.114)


def luminance(images: torch.Tensor) -> torch.Tensor:
    """How bright images of shape (B, 3, height, width) are, of shape (B, 1, height, width)."""
    red, green, blue = LUMINANCE
    return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]


@dataclass(frozen=True)
class Preprocessing:
    """Geometry and normalisation of one backbone.

    Whatever an image processor does to the values of an image (rescale, move, normalise, twice) is one mean and one
    standard deviation per channel here.

    Args:
        image_size (`int`): Side of the backbone's square input in pixels.
        mean (`tuple[float, ...]`, *optional*): Per channel, for values in [0, 1]; defaults to ImageNet's. One number
            for a backbone of one channel, which is given the luminance.
        std (`tuple[float, ...]`, *optional*): Likewise.
        resize_ratio (`float`, *optional*, defaults to 256/224): The shortest side of a real image is resized to
            `resize_ratio * image_size` before the centre crop of `image_size`; 1 keeps all of a square image.
        resample (`str`, *optional*, defaults to `"bicubic"`): Pillow's filter for it, by its name in lower case.
        flip_channels (`bool`, *optional*, defaults to `False`): Whether the backbone takes blue, green, red.
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize_ratio: float = DEFAULT_RESIZE_RATIO
    resample: str = "bicubic"
    flip_channels: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            values = (values,) if isinstance(values, (int, float)) else values
            object.__setattr__(self, name, tuple(map(float, values)))
        found = len(self.mean), len(self.std)
        if found not in ((1, 1), (3, 3)):
            raise ValueError(f"mean and std need three numbers each, or one for grey images; found {found}.")
        if not all(std > 0 for std in self.std):
            raise ValueError(f"std must be above zero, found {self.std}.")
        if self.resize_ratio < 1:
            raise ValueError(
                f"resize_ratio must be at least 1, which keeps all of an image, found {self.resize_ratio:g}."
            )

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
            mean=self.mean if mean is None else per_channel(mean, len(self.mean)),
            std=self.std if std is None else per_channel(std, len(self.std)),
        )

    @property
    def geometry(self) -> tuple[int, float, str]:
        """Side, resize ratio and filter of the centre crops of real images."""
        return self.image_size, self.resize_ratio, self.resample

    @property
    def synthetic_size(self) -> int:
        """Side of the synthetic images: 256 where the backbone takes 224, as in the paper, else the backbone's own."""
        return 256 if self.image_size == 224 else self.image_size

    def channels_of(self, images: torch.Tensor) -> torch.Tensor:
        """The channels that the backbone takes, in its order, of images of shape (B, 3, side, side)."""
        if len(self.mean) == 1:
            return luminance(images)
        return images.flip(1) if self.flip_channels else images

    def statistics(self, device: torch.device | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, of shape (1, channels, 1, 1)."""
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return mean, std

    @classmethod
    def from_processor(
        cls, processor: Any, config: "transformers.PreTrainedConfig | None" = None, image_size: int | None = None
    ) -> "Preprocessing":
        """Read from an image processor, or from the dictionary that one is saved as.

        A processor is asked too: what it makes of an image of the side that was read has to be what was read of it.

        Args:
            processor: Image processor of Transformers, a processor with one, or what it is saved as.
            config (`PreTrainedConfig`, *optional*): The model's; says the side and the channels where those are not.
            image_size (`int`, *optional*): A side that is wanted, where the processor's is not square.

        Raises:
            ValueError: If the processor does something that can't be read.
        """
        processor = getattr(processor, "image_processor", processor)
        if isinstance(processor, type) or not (isinstance(processor, dict) or hasattr(processor, "to_dict")):
            raise TypeError(f"Expected an image processor of Transformers, found {processor!r}.")
        is_file = isinstance(processor, dict)
        values = processor if is_file else processor.to_dict()
        values = values.get("image_processor", values)  # a multimodal processor's file holds it under this name
        if is_file:
            check_file(values)
        try:
            read = cls._of(values, config, image_size, is_file)
        except (TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise ValueError(cant_be_read(values, f"a value is of another kind: {error}")) from error
        except ValueError as error:  # whose sentence may not say which processor
            said = str(error) if "can't be read" in str(error) else cant_be_read(values, str(error))
            raise ValueError(said) from error
        if not is_file:
            check_against(processor, read)
            if image_size is None:
                check_geometry(processor, read)
        return read

    @classmethod
    def _of(cls, values: dict[str, Any], config: Any, image_size: int | None, is_file: bool) -> "Preprocessing":
        """What the keys of an image processor say."""
        side, resized = sides(values, config, image_size)
        mean, std = statistics(values, getattr(vision_config_of(config), "num_channels", None), is_file)
        resample = values.get("resample")  # a number, or its name
        if resample is not None:
            resample = (
                Image.Resampling[resample.upper()] if isinstance(resample, str) else Image.Resampling(resample)
            ).name.lower()
        ratio = max(1.0, resized / side) if resized else DEFAULT_RESIZE_RATIO
        return cls(side, mean, std, ratio, resample or cls.resample, bool(values.get("do_flip_channel_order")))

    @classmethod
    def from_timm(cls, values: dict[str, Any]) -> "Preprocessing":
        """Read from timm's `pretrained_cfg`.

        Raises:
            ValueError: If it asks for something that can't be read.
        """
        if len(values.get("input_size") or ()) != 3:
            raise ValueError(cant_be_read({"image_processor_type": "timm's pretrained_cfg"}, "it has no input_size"))
        channels, height, width = values["input_size"]
        crop_mode, resample = values.get("crop_mode") or "center", values.get("interpolation") or "bicubic"
        if height != width or crop_mode == "border" or resample.upper() not in Image.Resampling.__members__:
            found = f"input_size {values['input_size']}, crop_mode {crop_mode}, interpolation {resample}"
            raise ValueError(cant_be_read({"image_processor_type": "timm's pretrained_cfg"}, found))
        resized = math.floor(height / (values.get("crop_pct") or 0.875))
        mean = per_channel(values.get("mean") or IMAGENET_MEAN, channels)
        std = per_channel(values.get("std") or IMAGENET_STD, channels)
        return cls(height, mean, std, resized / height, resample)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        config: "transformers.PreTrainedConfig",
        image_size: int | None = None,
        **hub_kwargs: Any,
    ) -> "Preprocessing":
        """Read from a repository or folder; ImageNet's statistics, with a warning, where it says nothing.

        Some processors have no class that works without torchvision (DINOv3, SAM 2): their JSON says the same. A timm
        model's configuration says it too.

        Raises:
            ValueError: If the processor does something that can't be read.
        """
        if timm_values := getattr(config, "pretrained_cfg", None):
            return cls.from_timm(timm_values)
        try:
            processor: Any = transformers.AutoImageProcessor.from_pretrained(name_or_path, backend="pil", **hub_kwargs)
        except Exception:  # a file that is no processor's may raise anything
            processor = read_file(name_or_path, hub_kwargs)
        if not processor:
            logger.warning("'%s' has no %s: using ImageNet's mean and std", name_or_path, " or ".join(FILES))
        elif isinstance(processor, dict):
            kind = str(processor.get("image_processor_type")).removesuffix("Fast")
            if kind not in FILE_SAYS_ALL:
                logger.warning("%s of '%s' can't be asked: its file is read as it stands", kind, name_or_path)
            if "image_mean" not in processor and processor.get("do_normalize", True):
                logger.warning("It says no mean: using ImageNet's mean and std")
        return cls.from_processor(processor, config, image_size)
