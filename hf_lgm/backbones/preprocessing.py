"""What a backbone expects of its input, read from its image processor; the one transform for all real images."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.utils import cached_file

from ..hub import first_line
from .architectures import as_patches, vision_config_of

logger = logging.getLogger(__name__)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Resizing to 256 before a crop of 224: where nothing says how real images are resized.
DEFAULT_RESIZE_RATIO = 256 / 224

# What image processors do that is read here, or that changes no value of an image of the model's own side.
_UNDERSTOOD = {
    "do_center_crop",
    "do_convert_annotations",
    "do_convert_rgb",
    "do_flip_channel_order",
    "do_normalize",
    "do_pad",
    "do_reduce_labels",
    "do_rescale",
    "do_resize",
}
# Processors that need torchvision and do what their file says: compared with torchvision, see docs/processors.md.
_FILE_SAYS_ALL = {
    "CHMv2ImageProcessor",
    "DINOv3ViTImageProcessor",
    "DepthProImageProcessor",
    "RfDetrImageProcessor",
    "Sam2ImageProcessor",
    "Sam3ImageProcessor",
    "Sapiens2ImageProcessor",
    "Tipsv2DptImageProcessor",
    "Tipsv2ImageProcessor",
}
_FILES = ("preprocessor_config.json", "processor_config.json")

# Some processors say how many pixels an image may have where others say its side.
_MAX_SIDE = 4096

# Rec. 601, as Pillow's mode "L".
LUMINANCE = (0.299, 0.587, 0.114)

# Largest difference of values at which ours count as the processor's: float32 rounds.
_TOLERANCE = 1e-4


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
            mean=self.mean if mean is None else _per_channel(mean, len(self.mean)),
            std=self.std if std is None else _per_channel(std, len(self.std)),
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
            red, green, blue = LUMINANCE
            return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]
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
        is_file = isinstance(processor, dict)
        values = processor if is_file else processor.to_dict()
        values = values.get("image_processor", values)  # a multimodal processor's file holds it under this name
        unknown = [name for name, on in values.items() if name.startswith("do_") and on and name not in _UNDERSTOOD]
        if unknown and is_file:
            raise ValueError(_cant_be_read(values, f"it does more than that: {', '.join(unknown)}"))
        if is_file and _needs_asking(str(values.get("image_processor_type", ""))):
            raise ValueError(_cant_be_read(values, "it can't be asked without torchvision: pip install torchvision"))
        side, resized = _sides(values, config, image_size)
        mean, std = _statistics(values, getattr(vision_config_of(config), "num_channels", None), is_file)
        resample = Image.Resampling(values["resample"]).name.lower() if values.get("resample") is not None else None
        ratio = max(1.0, resized / side) if resized else DEFAULT_RESIZE_RATIO
        read = cls(side, mean, std, ratio, resample or cls.resample, bool(values.get("do_flip_channel_order")))
        if not is_file:
            _check_against(processor, read)
        return read

    @classmethod
    def from_timm(cls, values: dict[str, Any]) -> "Preprocessing":
        """Read from timm's `pretrained_cfg`.

        Raises:
            ValueError: If it asks for something that can't be read.
        """
        channels, height, width = values["input_size"]
        crop_mode, resample = values.get("crop_mode") or "center", values.get("interpolation") or "bicubic"
        if height != width or crop_mode == "border" or resample.upper() not in Image.Resampling.__members__:
            found = f"input_size {values['input_size']}, crop_mode {crop_mode}, interpolation {resample}"
            raise ValueError(_cant_be_read({"image_processor_type": "timm's pretrained_cfg"}, found))
        resized = math.floor(height / values.get("crop_pct", 0.875))
        mean = _per_channel(values.get("mean") or IMAGENET_MEAN, channels)
        std = _per_channel(values.get("std") or IMAGENET_STD, channels)
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
        except (OSError, ImportError, ValueError):
            processor = _read_file(name_or_path, hub_kwargs)
        if not processor:
            logger.warning("'%s' has no %s: using ImageNet's mean and std", name_or_path, " or ".join(_FILES))
        elif isinstance(processor, dict) and "image_mean" not in processor and processor.get("do_normalize", True):
            logger.warning("The image processor of '%s' says no mean: using ImageNet's mean and std", name_or_path)
        return cls.from_processor(processor, config, image_size)


def _needs_asking(kind: str) -> bool:
    """Whether a class of Transformers may do more than its file says, and has no variant for Pillow to ask."""
    kind = kind.removesuffix("Fast")
    known = {kind for kinds in IMAGE_PROCESSOR_MAPPING_NAMES.values() if "pil" not in kinds for kind in kinds.values()}
    return kind in known - _FILE_SAYS_ALL


def _read_file(name_or_path: str, hub_kwargs: dict[str, Any]) -> dict[str, Any]:
    """What the image processor's file says; empty where there is none.

    Raises:
        ValueError: If a file is not JSON.
    """
    for name in _FILES:
        path = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
        if path is None:
            continue
        with open(path, encoding="utf-8") as file:
            try:
                values = json.load(file)
            except ValueError as error:
                raise ValueError(f"its {name} is not JSON: {error}.") from error
        if name == _FILES[0] or "image_processor" in values:
            return values.get("image_processor", values)
    return {}


def _sides(
    values: dict[str, Any], config: "transformers.PreTrainedConfig | None", wanted: int | None
) -> tuple[int, int | None]:
    """Side of the input, and what the shortest side is resized to before the crop; `None` where nothing says."""
    size, crop, crops = values.get("size") or {}, values.get("crop_size") or {}, values.get("do_center_crop")
    if values.get("max_num_patches"):  # SigLIP 2: as many patches as fit
        size = values["patch_size"] * math.isqrt(values["max_num_patches"])
    try:
        resized = _side(size)
        side = _side(crop) if crops and crop else resized
        side = side or _side(getattr(vision_config_of(config), "image_size", None)) or 224
    except ValueError as error:
        if wanted is None:
            raise ValueError(_cant_be_read(values, f"{error}; give image_size for another one")) from error
        return wanted, wanted
    kind, crop_pct = values.get("image_processor_type", ""), values.get("crop_pct")
    if resized and crop_pct and (crops or resized < 384):  # ConvNeXt from 384 on takes all of it
        resized = int(resized / crop_pct)
    elif resized and kind.startswith("Levit"):
        resized = int(256 / 224 * resized)
    return side, resized if values.get("do_resize", True) else None


def _side(size: Any) -> int | None:
    """The side that a size, in any of its spellings, asks for.

    Raises:
        ValueError: If it is not square, or can't be one.
    """
    if isinstance(size, dict):
        sides = [size.get("height"), size.get("width")]
        size = sides if any(sides) else size.get("shortest_edge") or size.get("longest_edge")
    if isinstance(size, (list, tuple)):
        if len(set(size)) > 1:
            raise ValueError(f"images of {' x '.join(map(str, size))} pixels are not square")
        size = size[0]
    if size and size > _MAX_SIDE:
        raise ValueError(f"{size} is no side of an image")
    return int(size) if size else None


def _statistics(values: dict[str, Any], channels: int | None, is_file: bool) -> tuple[tuple, tuple]:
    """Mean and standard deviation for values in [0, 1]: rescaling, offset and normalisation in one."""
    channels = channels or 3
    mean, std = np.zeros(channels), np.ones(channels)
    own_std = values.get("image_std")
    own_std = np.array(_per_channel(IMAGENET_STD if own_std is None else own_std, channels))
    if values.get("do_normalize", is_file):  # a class names all that it does, a file may leave out what is usual
        own_mean = values.get("image_mean")
        mean, std = np.array(_per_channel(IMAGENET_MEAN if own_mean is None else own_mean, channels)), own_std
    factor = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255.0
    offset = 1.0 if values.get("rescale_offset") else 0.0
    mean, std = (mean + offset) / factor, std / factor
    if values.get("include_top"):  # EfficientNet divides by it once more
        std = std * own_std
    return tuple(mean.tolist()), tuple(std.tolist())


def _per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """One number per channel; one for all channels is repeated, and equal ones stand for one.

    Raises:
        ValueError: If there are others.
    """
    numbers = [values] if isinstance(values, (int, float)) else list(values)
    if len(set(numbers)) == 1:
        numbers = numbers[:1] * channels
    if len(numbers) != channels or channels not in (1, 3):
        raise ValueError(f"Expected means and standard deviations of {channels} channels (1 or 3), found {numbers}.")
    return tuple(map(float, numbers))


@torch.no_grad()
def _check_against(processor: Any, read: Preprocessing) -> None:
    """Compare what was read of a processor with what it makes of an image of that side.

    Raises:
        ValueError: If it makes something else of it.
    """
    values, side = processor.to_dict(), read.image_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert("L" if len(read.mean) == 1 else "RGB")
    mean, std = read.statistics()
    ours = (
        read.channels_of(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255) - mean
    ) / std
    as_they_are: dict[str, Any] = {name: False for name in ("do_resize", "do_center_crop") if name in values}
    if len(read.mean) == 1:  # three equal numbers would be too many for it
        named = (name for name in ("image_mean", "image_std") if values.get(name) is not None)
        as_they_are |= {name: _per_channel(values[name], 1) for name in named}
    try:
        given = processor(images=[image], return_tensors="pt", **as_they_are)["pixel_values"]
        if given.ndim == 3 and "max_num_patches" in values:
            ours = as_patches(ours, values["patch_size"])["pixel_values"]
        if given.shape != ours.shape:
            raise ValueError(f"it gives values of shape {tuple(given.shape)}")
    except Exception as error:  # a processor of a repository may raise anything
        raise ValueError(_cant_be_read(values, f"{type(error).__name__}: {first_line(error)}")) from error
    difference = float((given.float() - ours).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(ours.abs().max())):
        raise ValueError(_cant_be_read(values, f"its values differ by {difference:.2g} from what was read"))


def _cant_be_read(values: dict[str, Any], why: str) -> str:
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or "This image processor"
    return (
        f"{kind} can't be read as mean, standard deviation, resize and crop of a square image ({why}). Pass the model "
        "live, with what it takes: FrozenBackbone(model, Preprocessing(image_size=…, mean=…, std=…))"
    )
