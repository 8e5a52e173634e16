"""Images in any form as the centre crops that a backbone takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from .columns import find_image_column, with_image_feature
from .conversion import EXPECTED, is_one_image, to_pil
from .images import centre_crop, to_tensor
from .labelled_images import LabelledImages


def centre_crops(images: Any, geometry: tuple[int, float, str], batch_size: int) -> Iterator[torch.Tensor]:
    """The centre crops of images in any form, in batches of 8-bit tensors of shape (B, 3, size, size).

    Args:
        images: A `PIL.Image.Image`, an array as [`to_pil`] takes it, a list or a batch (N, H, W, 3) of either, a
            `datasets.Dataset` with a column of images, or [`LabelledImages`].
        geometry (`tuple[int, float, str]`): Side in pixels, resize ratio and filter; see [`Preprocessing`].
        batch_size (`int`): B at most.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(images, Dataset):
        images = _without_labels(images)
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and is_one_image(images)):
        images = [images]
    is_labelled = isinstance(images, LabelledImages)
    is_list = hasattr(images, "__len__") and hasattr(images, "__getitem__") and not isinstance(images, (str, dict))
    if not is_labelled and not is_list:
        found = type(images).__name__
        raise TypeError(f"Expected {EXPECTED}, a list of these, or a datasets.Dataset; found {found}.")

    def read(row: int) -> Image.Image:
        return images.image(row) if is_labelled else to_pil(images[row])

    for start in range(0, len(images), batch_size):
        rows = range(start, min(start + batch_size, len(images)))
        yield torch.stack([to_tensor(centre_crop(read(row), *geometry)) for row in rows])


def _without_labels(dataset: Dataset) -> LabelledImages:
    """The images of a dataset, whatever else it holds: read as those that have labels are."""
    column = find_image_column(dataset.features, None)
    source = with_image_feature(dataset.select_columns([column]).with_format(None), column)
    rows = torch.arange(len(dataset))
    return LabelledImages(source, column, rows, torch.zeros_like(rows), ["any"])
