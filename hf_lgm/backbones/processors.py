"""What image processors say and do: read from their keys, and asked where they can be."""

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.utils import cached_file

from ..data.images import centre_crop, to_tensor
from ..hub import first_line
from .architectures import as_patches, vision_config_of

if TYPE_CHECKING:
    from .preprocessing import Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

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
FILE_SAYS_ALL = {
    "DINOv3ViTImageProcessor",
    "Sam2ImageProcessor",
    "Sam3ImageProcessor",
    "Sapiens2ImageProcessor",
    "Tipsv2DptImageProcessor",
    "Tipsv2ImageProcessor",
}
FILES = ("preprocessor_config.json", "processor_config.json")

# Some processors say how many pixels an image may have where others say its side.
_MAX_SIDE = 4096

# Largest difference of values at which ours count as the processor's: float32 rounds.
_TOLERANCE = 1e-4

# Steps of 8-bit values by which a resize may be off: some processors resize numbers that are not rounded.
_ROUNDING = 2


def check_file(values: dict[str, Any]) -> None:
    """Refuse the file of a processor that may do more than the file says.

    Raises:
        ValueError: If it does something that is not understood, or is of a class that has to be asked and can't be.
    """
    unknown = [name for name, on in values.items() if name.startswith("do_") and on and name not in _UNDERSTOOD]
    if unknown:
        raise ValueError(cant_be_read(values, f"it does more than that: {', '.join(unknown)}"))
    if _needs_asking(str(values.get("image_processor_type", ""))):
        raise ValueError(cant_be_read(values, "it can't be asked without torchvision: pip install torchvision"))


def _needs_asking(kind: str) -> bool:
    """Whether a class of Transformers may do more than its file says, and has no variant for Pillow to ask."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES  # slow to load

    kind = kind.removesuffix("Fast")
    known = {kind for kinds in IMAGE_PROCESSOR_MAPPING_NAMES.values() if "pil" not in kinds for kind in kinds.values()}
    return kind in known - FILE_SAYS_ALL


def read_file(name_or_path: str, hub_kwargs: dict[str, Any]) -> dict[str, Any]:
    """What the image processor's file says; empty where there is none.

    Raises:
        ValueError: If a file is not JSON.
    """
    for name in FILES:
        path = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
        if path is None:
            continue
        with open(path, encoding="utf-8") as file:
            try:
                values = json.load(file)
            except ValueError as error:
                raise ValueError(f"its {name} is not JSON: {error}.") from error
        values = values.get("image_processor", values) if isinstance(values, dict) else values
        if not isinstance(values, dict):
            raise ValueError(f"its {name} holds no image processor: expected names and values.")
        if name == FILES[0] or "image_processor_type" in values or "image_mean" in values:
            return values
    return {}


def sides(
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
            raise ValueError(cant_be_read(values, f"{error}; give image_size for another one")) from error
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


def statistics(values: dict[str, Any], channels: int | None, is_file: bool) -> tuple[tuple, tuple]:
    """Mean and standard deviation for values in [0, 1]: rescaling, offset and normalisation in one."""
    channels = channels or 3
    mean, std = np.zeros(channels), np.ones(channels)
    own_std = values.get("image_std")
    own_std = np.array(per_channel(IMAGENET_STD if own_std is None else own_std, channels))
    if values.get("do_normalize", is_file):  # a class names all that it does, a file may leave out what is usual
        own_mean = values.get("image_mean")
        mean, std = np.array(per_channel(IMAGENET_MEAN if own_mean is None else own_mean, channels)), own_std
    factor = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255.0
    offset = 1.0 if values.get("rescale_offset") else 0.0
    mean, std = (mean + offset) / factor, std / factor
    if values.get("include_top"):  # EfficientNet divides by it once more
        std = std * own_std
    return tuple(mean.tolist()), tuple(std.tolist())


def per_channel(values: Any, channels: int) -> tuple[float, ...]:
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


def check_against(processor: Any, read: "Preprocessing") -> None:
    """Compare what was read of a processor with what it makes of an image of that side.

    Raises:
        ValueError: If it makes something else of it.
    """
    values = processor.to_dict()
    as_they_are = {name: False for name in ("do_resize", "do_center_crop") if name in values}
    image = _noise(read.image_size, read)
    try:
        given = _values_of(processor, image, read, as_they_are)
    except Exception as error:  # a processor of a repository may raise anything
        raise ValueError(cant_be_read(values, f"it fails with {type(error).__name__}: {first_line(error)}")) from error
    ours = _ours(image, replace(read, resize_ratio=1.0), values)
    if given.shape != ours.shape:
        raise ValueError(cant_be_read(values, f"it gives values of shape {tuple(given.shape)}"))
    difference = float((given - ours).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(ours.abs().max())):
        raise ValueError(cant_be_read(values, f"its values differ by {difference:.2g} from what was read"))


def check_geometry(processor: Any, read: "Preprocessing") -> None:
    """Compare resize and crop as they were read with what a processor makes of a larger square image.

    Raises:
        ValueError: If it makes something else of it; values may differ by the rounding of the resize.
    """
    values, image = processor.to_dict(), _noise(read.image_size + read.image_size // 3, read)
    given, ours = _values_of(processor, image, read, {}), _ours(image, read, values)
    if given.shape != ours.shape or not float((given - ours).abs().max()) <= _ROUNDING / 255 / min(read.std):
        raise ValueError(
            cant_be_read(values, "it resizes or crops a larger image otherwise; give image_size to crop the middle")
        )


def _noise(side: int, read: "Preprocessing") -> Image.Image:
    """An image in which every filter and every shift shows, of the channels that the backbone takes."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert("L" if len(read.mean) == 1 else "RGB")


def _values_of(processor: Any, image: Image.Image, read: "Preprocessing", flags: dict[str, Any]) -> torch.Tensor:
    """What a processor makes of an image."""
    values = processor.to_dict()
    if len(read.mean) == 1:  # three equal numbers would be too many for it
        named = [name for name in ("image_mean", "image_std") if values.get(name) is not None]
        flags = flags | {name: per_channel(values[name], 1) for name in named}
    return processor(images=[image], return_tensors="pt", **flags)["pixel_values"].float()


def _ours(image: Image.Image, read: "Preprocessing", values: dict[str, Any]) -> torch.Tensor:
    """The same by what was read; in patches where the processor cuts them."""
    mean, std = read.statistics()
    crop = to_tensor(centre_crop(image.convert("RGB"), *read.geometry))[None] / 255
    ours = (read.channels_of(crop) - mean) / std
    return as_patches(ours, values["patch_size"])["pixel_values"] if "max_num_patches" in values else ours


def cant_be_read(values: dict[str, Any], why: str) -> str:
    """A sentence that refuses a processor by name, and says what to do."""
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or "This image processor"
    return (
        f"{kind} can't be read as mean, standard deviation, resize and crop of a square image ({why}). Pass the model "
        "live, with what it takes: FrozenBackbone(model, Preprocessing(image_size=…, mean=…, std=…))"
    )
