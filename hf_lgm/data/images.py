"""One image at a time: to RGB, centre crop, to a tensor and back."""

import numpy as np
import torch
from PIL import Image

# What Pillow raises for broken files.
UNREADABLE = (OSError, ValueError, SyntaxError)


def readable(image: Image.Image | None) -> Image.Image:
    """The image in 8-bit RGB; raises one of `UNREADABLE` if there is none."""
    if image is None:
        raise ValueError("it is empty")
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB: transparency over white, 16-bit values scaled rather than cut off."""
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


def centre_crop(image: Image.Image, size: int, resize_ratio: float, resample: str = "bicubic") -> Image.Image:
    """The middle `size` x `size` pixels of an image whose shortest side is resized to `resize_ratio * size`.

    Sides are rounded as Transformers' image processors and torchvision round them.
    """
    image = to_rgb(image)
    resized, shortest = round(size * resize_ratio), min(image.size)
    width, height = (resized if side == shortest else int(resized * side / shortest) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling[resample.upper()])
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as a tensor of shape (3, height, width), 8-bit."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_images(pixels: torch.Tensor) -> list[Image.Image]:
    """8-bit images of a tensor of shape (n, 3, height, width) with values in [0, 1], rounded to the nearest."""
    values = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(value) for value in values]
