"""One split of any `datasets` dataset as labelled images: its columns, classes and selections."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import torch
from datasets import ClassLabel, Dataset
from PIL import Image

from .preprocessing import to_rgb
from .randomness import seeded_generator

logger = logging.getLogger(__name__)

_UNLABELLED = -1


@dataclass(frozen=True)
class LabelledImages:
    """One split: images that stay where they are, and their labels as class indices 0 … C - 1.

    Args:
        dataset (`datasets.Dataset`): The column of the images, in files or memory.
        image_column (`str`): The column that holds the images.
        labels (`torch.Tensor`): Shape (N,), class indices.
        class_names (`list[str]`): Length C.
    """

    dataset: Dataset
    image_column: str
    labels: torch.Tensor
    class_names: list[str]

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        image_column_name: str | None = None,
        label_column_name: str | None = None,
        classes: Sequence[str | int] | None = None,
    ) -> "LabelledImages":
        """Find image and label column and encode the labels.

        Args:
            dataset (`datasets.Dataset`): One split.
            image_column_name (`str`, *optional*): Defaults to the one column of type `Image`.
            label_column_name (`str`, *optional*): Defaults to the one column of type `ClassLabel`.
            classes (`Sequence[str | int]`, *optional*): Names or indices of the classes to keep, in their new order.

        Raises:
            ValueError: If a column is missing or not unique, or a label or class can't be understood.
        """
        if not isinstance(dataset, Dataset):
            hint = (
                f"; choose one of its splits, such as dataset['{min(dataset)}']" if isinstance(dataset, dict) else ""
            )
            raise TypeError(f"Expected a datasets.Dataset, found {type(dataset).__name__}{hint}.")
        image_column = _find_column(dataset, datasets.Image, image_column_name, "image_column_name")
        label_column = _find_column(dataset, ClassLabel, label_column_name, "label_column_name")
        labels, names = _encode(dataset, label_column)
        pictures = dataset.select_columns([image_column]).with_format(None)  # nothing else is decoded with them
        if not pictures.features[image_column].decode:
            pictures = pictures.cast_column(image_column, datasets.Image())
        images = cls(pictures, image_column, labels, names)
        unlabelled = int((labels == _UNLABELLED).sum())
        if unlabelled:
            logger.warning("%d of %d rows have no label and are left out", unlabelled, len(labels))
            images = images.select((labels != _UNLABELLED).nonzero()[:, 0])
        return images.with_classes(classes) if classes else images

    @classmethod
    def wrap(cls, images: "Dataset | LabelledImages") -> "LabelledImages":
        """The images themselves, or those of a dataset whose columns speak for themselves."""
        return images if isinstance(images, cls) else cls.from_dataset(images)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """What identifies the rows: `datasets` derives it from the files and from every selection made."""
        return self.dataset._fingerprint

    def image(self, row: int) -> Image.Image:
        """The picture in one row, as 8-bit RGB.

        Raises:
            ValueError: If it can't be decoded; the message names the row.
        """
        try:
            image = self.dataset[int(row)][self.image_column]
            if image is None:
                raise ValueError("it is empty")
            return to_rgb(image)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for broken files
            raise ValueError(
                f"The image in row {row} (column '{self.image_column}') can't be read: {error}"
            ) from error

    def select(self, rows: torch.Tensor) -> "LabelledImages":
        """The given rows, in the given order."""
        return replace(self, dataset=self.dataset.select(rows.tolist()), labels=self.labels[rows])

    def with_classes(self, classes: Sequence[str | int]) -> "LabelledImages":
        """Only these classes, renumbered in the order given.

        Raises:
            ValueError: If one is not a class of this dataset, or stands twice.
        """
        old = [_class_index(self.class_names, wanted) for wanted in classes]
        if len(set(old)) != len(old):
            raise ValueError(f"--classes names a class twice: {', '.join(map(str, classes))}")
        new = torch.full((self.num_classes,), _UNLABELLED)
        new[old] = torch.arange(len(old))
        labels = new[self.labels]
        rows = (labels != _UNLABELLED).nonzero()[:, 0]
        return replace(self.select(rows), labels=labels[rows], class_names=[self.class_names[i] for i in old])

    def balanced_sample(self, max_samples: int, seed: int) -> "LabelledImages":
        """At most `max_samples` rows, as many of each class, drawn by seed, in their old order."""
        per_class = max_samples // self.num_classes
        if per_class == 0:
            raise ValueError(f"{max_samples} samples are fewer than one for each of the {self.num_classes} classes.")
        ranks = torch.cat([rank for _, rank in self._shuffled_classes(seed)])
        rows = torch.cat([rows for rows, _ in self._shuffled_classes(seed)])
        return self.select(rows[ranks < per_class].sort().values)

    def hold_out(self, share: float, seed: int) -> "tuple[LabelledImages, LabelledImages]":
        """Two disjoint parts of every class, the second with `share` of it (at least one image)."""
        rows, held_out = [], []
        for class_rows, ranks in self._shuffled_classes(seed):
            is_held_out = ranks < max(1, round(share * len(class_rows)))
            rows.append(class_rows[~is_held_out])
            held_out.append(class_rows[is_held_out])
        return self.select(torch.cat(rows).sort().values), self.select(torch.cat(held_out).sort().values)

    def _shuffled_classes(self, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each class its rows and their ranks in a random order."""
        classes = [(self.labels == label).nonzero()[:, 0] for label in range(self.num_classes)]
        return [
            (rows, torch.randperm(len(rows), generator=seeded_generator(seed, "sample", label)))
            for label, rows in enumerate(classes)
        ]


def _find_column(dataset: Dataset, feature: type, name: str | None, flag: str) -> str:
    columns = ", ".join(f"{column} ({_describe(kind)})" for column, kind in sorted(dataset.features.items()))
    if name is not None:
        if name not in dataset.features:
            raise ValueError(f"--{flag}: there is no column '{name}'. Found: {columns}.")
        if feature is datasets.Image and not isinstance(dataset.features[name], datasets.Image):
            raise ValueError(
                f"--{flag}: '{name}' has type {_describe(dataset.features[name])}, not Image. Columns: {columns}. Of "
                "paths or bytes, dataset.cast_column makes one."
            )
        return name
    found = [column for column, kind in dataset.features.items() if isinstance(kind, feature)]
    if len(found) != 1:
        raise ValueError(
            f"Expected one column of type {feature.__name__}, found {len(found)}. Columns: {columns}. "
            f"Name one with --{flag}."
        )
    return found[0]


def _describe(feature: Any) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _encode(dataset: Dataset, column: str) -> tuple[torch.Tensor, list[str]]:
    """Labels of shape (N,) and class names; strings and integers are numbered in sorted order."""
    feature = dataset.features[column]
    values = dataset.select_columns([column]).with_format("arrow")[:][column]
    if isinstance(feature, ClassLabel):
        return torch.from_numpy(values.fill_null(_UNLABELLED).to_numpy().copy()), list(feature.names)
    if not isinstance(feature, datasets.Value) or feature.dtype.startswith(("float", "timestamp", "binary")):
        raise ValueError(
            f"--label_column_name: '{column}' has type {_describe(feature)}: expected one class per image."
        )
    array = values.to_numpy()
    labelled = np.array([value is not None and value == value and value != _UNLABELLED for value in array], dtype=bool)
    names, inverse = np.unique(
        array[labelled].astype(str if feature.dtype.endswith("string") else int), return_inverse=True
    )
    labels = torch.full((len(array),), _UNLABELLED)
    labels[torch.from_numpy(labelled)] = torch.from_numpy(inverse)
    return labels, [str(name) for name in names]


def _class_index(names: list[str], wanted: str | int) -> int:
    if str(wanted) in names:
        return names.index(str(wanted))
    if str(wanted).isdigit() and int(wanted) < len(names):
        return int(wanted)
    raise ValueError(f"--classes: '{wanted}' is no class of this dataset. Found {len(names)}: {listed(names)}.")


def listed(names: list[str], limit: int = 10) -> str:
    """The first names, and how many there are in all."""
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
