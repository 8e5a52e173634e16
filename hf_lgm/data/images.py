"""One image at a time: to RGB, centre crop, to a tensor and back."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# Filters that torch has as well, for 8-bit images: within two levels of Pillow's, in a fraction of the time.
_OF_TORCH = ("bilinear", "bicubic")

# A longer image is cut in the middle before it is resized: a line of pixels would become gigabytes.
_MAX_RATIO = 16


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB: transparency over white, 16-bit values scaled rather than cut off."""
    if image.mode == "F":
        raise ValueError("floating-point images (mode 'F') have no agreed range: convert them to 8-bit RGB")
    if image.mode.startswith("I"):
        return _wide_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or _has_transparent_colour(image):
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _wide_to_rgb(image: Image.Image) -> Image.Image:
    """Of modes that hold more than 8 bits: "I;16" has 16; "I", a wide type, is used for 8 and for 16."""
    values = np.asarray(image)
    is_16_bit = image.mode != "I" or values.max(initial=0) > 255
    grey = (values >> 8 if is_16_bit else values).clip(0, 255).astype(np.uint8)
    if isinstance(colour := image.info.get("transparency"), int):
        grey[values == colour] = 255
    return Image.fromarray(grey).convert("RGB")


def _has_transparent_colour(image: Image.Image) -> bool:
    """Whether a colour is transparent; a mark that a conversion has left over is of another type."""
    if image.mode == "RGB":
        colour = image.info.get("transparency")
        return isinstance(colour, tuple) and len(colour) == 3
    return "transparency" in image.info


def centre_crop(image: Image.Image, size: int, resize_ratio: float, resample: str = "bicubic") -> Image.Image:
    """The middle `size` x `size` pixels of an image whose shortest side is resized to `resize_ratio * size`.

    Sides are rounded as Transformers' image processors and torchvision round them.
    """
    image = _within_ratio(to_rgb(image))
    width, height = _resized(image, size, resize_ratio)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling[resample.upper()])
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def fast_centre_crop(image: Image.Image, size: int, resize_ratio: float, resample: str = "bicubic") -> torch.Tensor:
    """The same as an 8-bit tensor of shape (3, size, size), within two levels of 255, by torch's resize.

    The image may be decoded smaller than it is stored, see `decoded_side`: then by a little more.
    """
    image = _within_ratio(to_rgb(image))
    width, height = _resized(image, size, resize_ratio)
    if resample not in _OF_TORCH or (width, height) == image.size:
        return to_tensor(centre_crop(image, size, resize_ratio, resample))
    left, top = (width - size) // 2, (height - size) // 2
    pixels = F.interpolate(to_tensor(image)[None], (height, width), mode=resample, antialias=True)[0]
    return pixels[:, top : top + size, left : left + size]


def decoded_side(size: int, resize_ratio: float) -> int:
    """Pixels of the shortest side that `fast_centre_crop` needs: twice what it resizes them to.

    Features then move by a few hundredths of the way to the nearest other image; of once as many by a tenth.
    """
    return 2 * round(size * resize_ratio)


def _resized(image: Image.Image, size: int, resize_ratio: float) -> tuple[int, int]:
    """Width and height of an image whose shortest side becomes `resize_ratio * size`."""
    resized, shortest = round(size * resize_ratio), min(image.size)
    width, height = (resized if side == shortest else int(resized * side / shortest) for side in image.size)
    return width, height


def _within_ratio(image: Image.Image) -> Image.Image:
    """The image, or the middle of one that is very long."""
    longest = _MAX_RATIO * min(image.size)
    if max(image.size) <= longest:
        return image
    left, top = (max(0, side - longest) // 2 for side in image.size)
    return image.crop((left, top, min(left + longest, image.width), min(top + longest, image.height)))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as a tensor of shape (3, height, width), 8-bit."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_images(pixels: torch.Tensor) -> list[Image.Image]:
    """8-bit images of a tensor of shape (n, 3, height, width) with values in [0, 1], rounded to the nearest."""
    values = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(value) for value in values]
