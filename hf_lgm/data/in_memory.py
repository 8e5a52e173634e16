"""Labelled images that are in memory, or come from a torch dataset, as a `datasets.Dataset`."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from numbers import Integral
from typing import Any

import datasets
import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from PIL import Image

from .conversion import to_pil

_FORMS = "a list of pairs (image, label), a pair (images, labels), or a torch dataset of such pairs"


def as_dataset(images: Any) -> Any:
    """A `datasets.Dataset` with columns `image` and `label`, of labelled images in one of these forms.

    Images are as [`to_pil`] takes them, labels whole numbers or names. They are read whole, and kept without loss.
    What is a dataset already, or in none of these forms, comes back as it is.

    Args:
        images: A list of pairs `(image, label)`; a pair `(images, labels)` of two lists or arrays; a torch dataset
            with a length, whose items are pairs `(image, label)`: its `classes`, if it has any, are the names.

    Raises:
        TypeError: If there are no labels, an image is in floats, or a label is no whole number or name.
        ValueError: If there are not as many labels as images.
    """
    if isinstance(images, (Dataset, IterableDataset, dict, str)) or not hasattr(images, "__getitem__"):
        return images
    if isinstance(images, (Image.Image, np.ndarray, torch.Tensor)):
        raise TypeError(f"Expected labelled images, found {type(images).__name__} without labels: give {_FORMS}.")
    if isinstance(images, tuple) and len(images) == 2:
        return _of_columns(*images)
    if not hasattr(images, "__len__"):
        return images
    stored, labels = [], []
    for number in range(len(images)):
        image, label = _pair(images[number], number)
        stored.append(_stored(image, number))
        labels.append(label)
    return _dataset(stored, labels, _class_names(images))


def not_a_split(dataset: Any) -> str:
    """Why something is not the images of one split, in a sentence."""
    if isinstance(dataset, dict):
        return (
            f"Expected a datasets.Dataset, found {type(dataset).__name__}; choose one of its splits, such as "
            f"dataset['{min(dataset)}']."
        )
    if isinstance(dataset, IterableDataset):
        return "A streamed dataset has to be encoded in one pass first: StreamEncoder([backbone]).encode(dataset)."
    if isinstance(dataset, str):
        return f"Expected a datasets.Dataset, found '{dataset}': load it, load_dataset('{dataset}', split='train')."
    return f"Expected a datasets.Dataset, found {type(dataset).__name__}. Also taken: {_FORMS}."


def _of_columns(images: Any, labels: Any) -> Dataset:
    if isinstance(labels, str) or not (hasattr(images, "__len__") and hasattr(labels, "__len__")):
        found = f"{type(images).__name__} and {type(labels).__name__}"
        raise TypeError(f"Expected a pair (images, labels) of two lists or arrays, found {found}.")
    if len(images) != len(labels):
        raise ValueError(f"Expected a label for each image, found {len(images)} images and {len(labels)} labels.")
    stored = [_stored(image, number) for number, image in enumerate(images)]
    return _dataset(stored, list(labels), None)


def _pair(item: Any, number: int) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    found = f"{type(item).__name__}{f' of {len(item)}' if isinstance(item, (tuple, list)) else ''}"
    raise TypeError(f"Item {number} has no label: expected a pair (image, label), found {found}. Taken are {_FORMS}.")


def _stored(image: Any, number: int) -> dict[str, Any]:
    """The image as `datasets` stores it; a JPEG in memory would lose by being written as one again."""
    buffer = BytesIO()
    try:
        to_pil(image).save(buffer, format="PNG", compress_level=1)
    except (TypeError, ValueError, OSError) as error:
        raise type(error)(f"Image {number}: {error}") from error
    return {"bytes": buffer.getvalue(), "path": None}


def _dataset(images: Sequence[dict[str, Any]], labels: Iterable[Any], class_names: list[str] | None) -> Dataset:
    values = [_label(label, number) for number, label in enumerate(labels)]
    are_names = {isinstance(value, str) for value in values}
    if len(are_names) > 1:
        raise TypeError("Some labels are names and some are numbers: give either.")
    kind = ClassLabel(names=class_names) if class_names else Value("string" if True in are_names else "int64")
    features = Features({"image": datasets.Image(), "label": kind})
    return Dataset.from_dict({"image": images, "label": values}, features=features)


def _label(label: Any, number: int) -> str | int:
    value = label.item() if isinstance(label, (np.generic, torch.Tensor, np.ndarray)) and _is_single(label) else label
    if isinstance(value, (str, Integral)):
        return value if isinstance(value, str) else int(value)
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else f" {value}"
    raise TypeError(f"Label {number} is {type(value).__name__}{shape}: expected one whole number or name per image.")


def _is_single(label: Any) -> bool:
    return label.ndim == 0


def _class_names(dataset: Any) -> list[str] | None:
    """Those of a torch dataset, or of the one that it is a subset of; of synonyms as ImageNet has them all."""
    names = getattr(dataset, "classes", None)
    if not names:
        return _class_names(dataset.dataset) if hasattr(dataset, "dataset") else None
    return [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]
