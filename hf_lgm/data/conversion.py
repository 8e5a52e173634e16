"""Images as Python has them, Pillow's or arrays, to 8-bit RGB, the right way up."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from .decoding import upright
from .images import to_rgb

EXPECTED = "PIL images, or uint8 arrays of shape (H, W, 3) or (H, W)"
_ADVICE = "leave out the transform that makes tensors of them (ToTensor), or give whole numbers from 0 to 255 as uint8"
_MODES = (1, 3, 4)  # channels of an array: grey, RGB, RGBA


def to_pil(image: Any) -> Image.Image:
    """Any image as 8-bit RGB, the right way up; nothing but its pixels comes along.

    Args:
        image (`PIL.Image.Image`, `numpy.ndarray` or `torch.Tensor`): Arrays are uint8, of shape (H, W), (H, W, 3) or
            (H, W, 4); tensors are uint8 of shape (3, H, W) or (1, H, W), as torchvision reads them.

    Raises:
        TypeError: If it is none of these; of values in floats nothing says the range.
    """
    if isinstance(image, Image.Image):
        return Image.fromarray(np.asarray(to_rgb(upright(image))))
    array: np.ndarray
    if isinstance(image, torch.Tensor):
        kind, is_channels_first = f"a {str(image.dtype).removeprefix('torch.')} tensor", image.ndim == 3
        image = image.detach().cpu()
        array = (image.permute(1, 2, 0) if is_channels_first and len(image) in _MODES else image).numpy()
    elif isinstance(image, np.ndarray):
        array, kind = image, f"a {image.dtype} array"
    else:
        raise TypeError(f"Expected {EXPECTED}; found {type(image).__name__}.")
    if array.dtype != np.uint8:
        raise TypeError(f"Expected {EXPECTED}; found {kind}: {_ADVICE}.")
    if not is_one_image(array):
        raise TypeError(f"Expected {EXPECTED}; found {kind} of shape {tuple(image.shape)}.")
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def is_one_image(array: np.ndarray) -> bool:
    """Rather than several of one size, grey ones among them."""
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _MODES)
