"""One split of any dataset as labelled images: selections of rows, and the images behind them."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import PIL
import torch
from datasets import ClassLabel, Dataset, IterableDataset
from PIL import Image

from ..randomness import seeded_generator
from ..settings import MAX_IMAGE_PIXELS, ColumnOptions, Decode
from .columns import (
    UNLABELLED,
    check_same_classes,
    class_indices,
    encode_groups,
    encode_labels,
    find_image_column,
    find_label_column,
    listed,
    with_image_feature,
)
from .decoding import LEFT_OUT, NAMED_ROWS, UnreadableImage, encoded, named_rows, read_image, unreadable
from .file_signature import file_signature
from .images import centre_crop, decoded_side, fast_centre_crop, to_tensor
from .in_memory import as_dataset, not_a_split
from .threads import in_threads

logger = logging.getLogger(__name__)


class StreamReader(Protocol):
    """What turns a stream into labelled images: see [`StreamEncoder`]."""

    def encode(
        self,
        dataset: IterableDataset,
        options: ColumnOptions | None = None,
        fingerprint: str | None = None,
        *,
        keep_images: bool = True,
    ) -> "LabelledImages":
        """All of one split."""


@dataclass(frozen=True)
class LabelledImages:
    """Rows of one split: images that stay where they are, and their labels as class indices 0 … C - 1.

    Args:
        source (`datasets.Dataset` or [`EncodedStream`]): All rows of the split.
        image_column (`str`): The column that holds the images.
        rows (`torch.Tensor`): Shape (N,), the rows of the source that are meant, in their order.
        labels (`torch.Tensor`): Shape (N,), class indices.
        class_names (`list[str]`): Length C.
        groups (`torch.Tensor`, *optional*): Shape (N,), indices of groups, such as backgrounds; -1 for none.
        group_names (`list[str]`, *optional*): The groups' names.
        max_image_pixels (`int`, *optional*, defaults to 178956970): See [`ColumnOptions`].
        has_declared_classes (`bool`, *optional*, defaults to `True`): Whether the column declares its classes, as a
            `ClassLabel` does; else they are those of the rows, which may lack some.
        files (`str`, *optional*): Digest of the state of the files, where images are files: see `file_signature`.
        decode (`str`, *optional*, defaults to `"exact"`): See [`ColumnOptions`]; what features are made of. Images
            that a set keeps are always exact.
    """

    source: Any
    image_column: str
    rows: torch.Tensor
    labels: torch.Tensor
    class_names: list[str]
    groups: torch.Tensor | None = None
    group_names: list[str] | None = None
    max_image_pixels: int = MAX_IMAGE_PIXELS
    has_declared_classes: bool = True
    files: str = ""
    decode: Decode = "exact"

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        image_column_name: str | None = None,
        label_column_name: str | None = None,
        classes: Sequence[str | int] = (),
        group_column_name: str | None = None,
        skip_bad_images: bool = False,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        decode: Decode = "exact",
    ) -> "LabelledImages":
        """Find image and label column and encode the labels.

        Args:
            dataset (`datasets.Dataset`): One split.
            image_column_name (`str`, *optional*): See [`ColumnOptions`], also for the next six.
            label_column_name (`str`, *optional*): Likewise.
            classes (`Sequence[str | int]`, *optional*): Likewise.
            group_column_name (`str`, *optional*): Likewise.
            skip_bad_images (`bool`, *optional*, defaults to `False`): Likewise.
            max_image_pixels (`int`, *optional*, defaults to 178956970): Likewise.
            decode (`str`, *optional*, defaults to `"exact"`): Likewise.

        Raises:
            TypeError: If it is not one split in memory or on disk.
            ValueError: If a column is missing or not unique, or a label or class can't be understood.
        """
        if not isinstance(dataset, Dataset):
            raise TypeError(not_a_split(dataset))
        features = dataset.features
        image_column = find_image_column(features, image_column_name)
        label_column = find_label_column(features, label_column_name, group_column=group_column_name)
        labels, names = encode_labels(_values(dataset, label_column), features[label_column])
        groups, group_names = None, None
        if group_column_name is not None:
            group_column = find_label_column(features, group_column_name, "group_column_name")
            groups, group_names = encode_groups(_values(dataset, group_column), features[group_column])
        only_images = dataset.select_columns([image_column]).with_format(None)  # nothing else is decoded with them
        source, rows = with_image_feature(only_images, image_column), torch.arange(len(labels))
        files = file_signature(source, image_column)
        declared = isinstance(features[label_column], ClassLabel)
        described = names, groups, group_names, max_image_pixels, declared, files, decode
        images = cls(source, image_column, rows, labels, *described)
        if unlabelled := int((labels == UNLABELLED).sum()):
            logger.warning("%d of %d rows have no label and are left out", unlabelled, len(labels))
            images = images.select((labels != UNLABELLED).nonzero()[:, 0])
        images = images.with_classes(classes) if classes else images
        return images.without_bad_images() if skip_bad_images else images

    @classmethod
    def wrap(
        cls,
        images: Any,
        stream_encoder: StreamReader | None = None,
        keep_images: bool = True,
        options: ColumnOptions | None = None,
    ) -> "LabelledImages":
        """The images themselves, or those of a dataset; streams are read.

        Args:
            images ([`LabelledImages`], `datasets.Dataset` or `datasets.IterableDataset`): One split; also what
                [`as_dataset`] takes: lists of pairs, pairs of arrays, torch datasets.
            stream_encoder ([`StreamEncoder`], *optional*): Reads a stream.
            keep_images (`bool`, *optional*, defaults to `True`): Whether it keeps some images.
            options ([`ColumnOptions`], *optional*): Columns and classes of a dataset.

        Raises:
            TypeError: If it is none of these.
            ValueError: If there are options for what has its columns.
        """
        options = options or ColumnOptions()
        if isinstance(images, cls):
            if options != ColumnOptions():
                raise ValueError(
                    "image_column_name and label_column_name are for datasets, and LabelledImages know their columns: "
                    "name them in LabelledImages.from_dataset."
                )
            return images
        if isinstance(images, IterableDataset) and stream_encoder is not None:
            return stream_encoder.encode(images, options, keep_images=keep_images)
        return cls.from_dataset(as_dataset(images), **vars(options))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """What identifies the images: `datasets` derives it from the files, and the rows.

        Where a table names image files, also their sizes and modification times, which tell a file that was replaced
        or repaired.
        """
        files = f"{self.source._fingerprint}{self.files}{'' if self.decode == 'exact' else self.decode}"
        return hashlib.sha256(files.encode() + self.rows.numpy().tobytes()).hexdigest()

    def image(self, index: int, needed: int | None = None) -> Image.Image:
        """The image at an index of this selection, as 8-bit RGB.

        Args:
            index (`int`): Of this selection.
            needed (`int`, *optional*): Pixels of the shortest side that are enough; see `read_image`.

        Raises:
            UnreadableImage: If it can't be decoded; the message names the row of the source, and the file.
        """
        row = int(self.rows[index])
        stored = self._stored_image(row)
        try:
            mode = _mode(self.source, self.image_column)
            return read_image(encoded(stored), self.max_image_pixels, mode, needed)
        except UnreadableImage as error:
            split = f" of split '{self.source.split}'" if getattr(self.source, "split", None) else ""
            raise unreadable(f"row {row}{split}", self.image_column, stored, error) from error

    def _stored_image(self, row: int) -> dict[str, Any] | None:
        if self.is_streamed:
            return self.source.stored(row)
        return self._stored[row][self.image_column][0].as_py()

    @cached_property
    def _stored(self) -> Dataset:
        """The source, whose images come undecoded."""
        return self.source.with_format("arrow")

    def centre_crop(self, index: int, size: int, resize_ratio: float, resample: str = "bicubic") -> torch.Tensor:
        """The centre crop of the image at an index of this selection as an 8-bit tensor of shape (3, size, size).

        As `decode` says.
        """
        if self.decode == "fast":
            image = self.image(index, decoded_side(size, resize_ratio))
            return fast_centre_crop(image, size, resize_ratio, resample)
        return to_tensor(centre_crop(self.image(index), size, resize_ratio, resample))

    def centre_crops(self, size: int, resize_ratio: float, resample: str = "bicubic") -> torch.Tensor:
        """The centre crops of all images as 8-bit tensors, of shape (N, 3, size, size), exact whatever `decode` says.

        Args:
            size (`int`): Side in pixels.
            resize_ratio (`float`): See [`Preprocessing`].
            resample (`str`, *optional*, defaults to `"bicubic"`): Likewise.
        """
        exact = replace(self, decode="exact")
        crops = in_threads(lambda index: exact.centre_crop(index, size, resize_ratio, resample), range(len(self)))
        return torch.stack(crops) if crops else torch.empty(0, 3, size, size, dtype=torch.uint8)

    @property
    def is_streamed(self) -> bool:
        """Whether the images were read in one pass and are gone, but for a few."""
        return not isinstance(self.source, Dataset)

    def with_images(self) -> "LabelledImages":
        """Those whose images are at hand: all of them, unless they were streamed."""
        return self.select(self.source.has_image(self.rows).nonzero()[:, 0]) if self.is_streamed else self

    def select(self, indices: torch.Tensor) -> "LabelledImages":
        """Those at the given indices of this selection, in the given order."""
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, rows=self.rows[indices], labels=self.labels[indices], groups=groups)

    def with_classes(self, classes: Sequence[str | int], by_name: bool = False) -> "LabelledImages":
        """Only these classes, renumbered in the order given.

        Args:
            classes (`Sequence[str | int]`): Names or numbers.
            by_name (`bool`, *optional*, defaults to `False`): They are names, also where they look like numbers.

        Raises:
            ValueError: If one is not a class of this dataset, or stands twice.
        """
        names = self.class_names
        old = [names.index(str(name)) for name in classes] if by_name else class_indices(names, classes)
        new = torch.full((self.num_classes,), UNLABELLED)
        new[old] = torch.arange(len(old))
        labels = new[self.labels]
        kept = (labels != UNLABELLED).nonzero()[:, 0]
        return replace(self.select(kept), labels=labels[kept], class_names=[self.class_names[i] for i in old])

    def check_classes(self, images_per_class: int = 1) -> None:
        """Refuse what can't be distilled.

        Raises:
            ValueError: If there are fewer than two classes, or a class has no image, or fewer than are to be made.
        """
        if self.num_classes < 2:
            raise ValueError(f"Expected at least two classes, found {self.num_classes}: {self.class_names}")
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        empty = [name for name, count in zip(self.class_names, counts, strict=True) if count == 0]
        if empty:
            raise ValueError(
                f"{len(empty)} of {self.num_classes} classes have no image to distil: {listed(empty)}. "
                "Name the classes to use as classes."
            )
        if counts.min() < images_per_class:
            name = self.class_names[int(counts.argmin())]
            raise ValueError(
                f"images_per_class={images_per_class} is more than the {int(counts.min())} real images of class "
                f"'{name}'."
            )

    def aligned(self, class_names: list[str]) -> "LabelledImages":
        """The same images to evaluate on, with their classes numbered as in `class_names`.

        Raises:
            ValueError: If the classes are not the same, or there is no image. Classes that no row has are named in a
                warning.
        """
        if len(self) == 0:
            raise ValueError(
                "There is no labelled image to evaluate on: give another split as eval_dataset, or name it as "
                "eval_split."
            )
        if self.class_names == class_names:
            return self
        absent = sorted(set(class_names) - set(self.class_names))
        found = (
            self.class_names
            if self.has_declared_classes or len(absent) == len(class_names)
            else [*self.class_names, *absent]
        )
        check_same_classes(found, class_names, "The images to evaluate on have")
        if absent:
            logger.warning("%d classes have no image to evaluate on: %s", len(absent), listed(absent))
        new = torch.tensor([class_names.index(name) for name in self.class_names])
        return replace(self, labels=new[self.labels], class_names=class_names)

    def without_bad_images(self) -> "LabelledImages":
        """Those that can be decoded; the others are counted. `datasets` keeps the answer beside its own cache.

        Raises:
            UnreadableImage: If there is none.
        """
        how = {"max_pixels": self.max_image_pixels, "mode": _mode(self.source, self.image_column)}
        stored = with_image_feature(self.source, self.image_column, decode=False).select(self.rows.tolist())
        checked = stored.map(
            _is_readable,
            input_columns=[self.image_column],
            remove_columns=[self.image_column],
            desc="checking images",
            fn_kwargs=how,
            new_fingerprint=_digest(self.fingerprint, how, PIL.__version__),
        )
        is_readable = torch.tensor(checked["is_readable"][:])
        if not is_readable.all():
            bad = self.rows[~is_readable].tolist()
            named = [(row, self._stored_image(row)) for row in bad[:NAMED_ROWS]]
            logger.warning(LEFT_OUT, len(bad), len(self), named_rows(named, len(bad)))
            if not is_readable.any():
                self.image(0)  # says why of the first
        return self.select(is_readable.nonzero()[:, 0])

    def balanced_sample(self, max_samples: int, seed: int) -> "LabelledImages":
        """At most `max_samples` rows, as many of each class, drawn by seed, in their old order."""
        per_class = max_samples // self.num_classes
        if per_class == 0:
            raise ValueError(f"{max_samples} samples are fewer than one for each of the {self.num_classes} classes.")
        classes = self._shuffled_classes(seed)
        return self.select(torch.cat([indices[ranks < per_class] for indices, ranks in classes]).sort().values)

    def hold_out(self, share: float, seed: int) -> "tuple[LabelledImages, LabelledImages]":
        """Two disjoint parts, the second with `share` of every class: at least one image, but never the only one."""
        kept, held_out = [], []
        for indices, ranks in self._shuffled_classes(seed):
            is_held_out = ranks < (max(1, round(share * len(indices))) if len(indices) > 1 else 0)
            kept.append(indices[~is_held_out])
            held_out.append(indices[is_held_out])
        return self.select(torch.cat(kept).sort().values), self.select(torch.cat(held_out).sort().values)

    def _shuffled_classes(self, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each class its indices and their ranks in a random order."""
        return [
            (indices, torch.randperm(len(indices), generator=seeded_generator(seed, "sample", label)))
            for label, indices in enumerate(indices_by_class(self.labels, self.num_classes))
        ]


def indices_by_class(labels: torch.Tensor, num_classes: int) -> list[torch.Tensor]:
    """For each class the ascending indices of its labels."""
    counts = torch.bincount(labels, minlength=num_classes)
    return list(labels.argsort(stable=True).split(counts.tolist()))


def _values(dataset: Dataset, column: str) -> list[Any]:
    return dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def _is_readable(stored: dict[str, Any] | None, max_pixels: int, mode: str | None) -> dict[str, bool]:
    try:
        read_image(encoded(stored), max_pixels, mode)
    except UnreadableImage:
        return {"is_readable": False}
    return {"is_readable": True}


def _mode(source: Any, column: str) -> str | None:
    """What the dataset converts its images to."""
    return getattr(source.features[column], "mode", None) if isinstance(source, Dataset) else source.mode


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
