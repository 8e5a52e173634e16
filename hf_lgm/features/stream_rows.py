"""What of a stream is used, and what stays of it: positions, labels, and a few images."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Features
from safetensors import SafetensorError, safe_open

from ..data.columns import class_indices, find_image_column, find_label_column
from ..settings import ColumnOptions
from .cache import write_tensors

logger = logging.getLogger(__name__)

# What files in caches call an image that is kept, since 0.1.
_KEPT = "picture"


@dataclass(frozen=True)
class StreamColumns:
    """The columns that are used, and which labels."""

    image: str
    label: str
    group: str | None
    features: Features
    wanted: frozenset[int | str] | None

    @classmethod
    def find(cls, features: Features, options: ColumnOptions) -> "StreamColumns":
        """In the features of a stream, before it is read."""
        group = options.group_column_name
        label = find_label_column(features, options.label_column_name, group_column=group)
        wanted: frozenset[int | str] | None = None
        if options.classes and isinstance(features[label], datasets.ClassLabel):
            wanted = frozenset(class_indices(features[label].names, options.classes))
        elif options.classes and not any(str(name).isdigit() for name in options.classes):
            wanted = frozenset(str(name) for name in options.classes)
        # Otherwise a number may be a name or a place among the names, which are known after the pass.
        return cls(
            find_image_column(features, options.image_column_name),
            label,
            group and find_label_column(features, group, "group_column_name"),
            features,
            wanted,
        )

    @property
    def mode(self) -> str | None:
        """What the dataset converts its images to."""
        return getattr(self.features[self.image], "mode", None)

    @property
    def declares_classes(self) -> bool:
        """Whether the column of the labels says which classes there are."""
        return isinstance(self.features[self.label], datasets.ClassLabel)

    @property
    def names_files(self) -> bool:
        """Whether the column holds the paths of images."""
        return getattr(self.features[self.image], "dtype", "").endswith("string")

    def is_wanted(self, value: Any) -> bool:
        """Whether a row with this label is used."""
        if self.wanted is None:
            return True
        return (value if isinstance(self.features[self.label], datasets.ClassLabel) else str(value)) in self.wanted


@dataclass(frozen=True)
class StreamRows:
    """The rows that were encoded.

    Args:
        positions (`torch.Tensor`): Shape (N,), their rows in the stream, ascending.
        labels (`torch.Tensor`): Shape (N,), class indices.
        class_names (`list[str]`): Length C.
        groups (`torch.Tensor`, *optional*): Shape (N,), group indices.
        group_names (`list[str]`, *optional*): The groups' names.
        images (`dict[int, bytes]`): The encoded images that were kept, by row.
    """

    positions: torch.Tensor
    labels: torch.Tensor
    class_names: list[str]
    groups: torch.Tensor | None
    group_names: list[str] | None
    images: dict[int, bytes]

    def save(self, path: Path) -> None:
        """Write one file."""
        tensors = {"positions": self.positions, "labels": self.labels}
        if self.groups is not None:
            tensors["groups"] = self.groups
        tensors |= {f"{_KEPT} {row}": _as_tensor(data) for row, data in self.images.items()}
        names: dict[str, Any] = {"class_names": self.class_names, "group_names": self.group_names}
        names["sha256"] = self._digest()
        write_tensors(path, tensors, {name: json.dumps(value) for name, value in names.items()})

    @classmethod
    def load(cls, path: Path) -> "StreamRows | None":
        """Read it back; `None` if it is missing or damaged."""
        try:
            with safe_open(path, "pt") as file:
                names = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
            images = {
                int(name.split()[1]): value.numpy().tobytes()
                for name, value in tensors.items()
                if name.startswith(f"{_KEPT} ")
            }
            numbers = tensors["positions"], tensors["labels"]
            rows = cls(*numbers, names["class_names"], tensors.get("groups"), names["group_names"], images)
            if names["sha256"] == rows._digest():
                return rows
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, TypeError, LookupError):
            pass
        logger.warning("Reading the stream again: what is kept of it in %s is not as it was written", path)
        return None

    def identity(self) -> str:
        """A digest of rows, labels and groups."""
        groups = b"" if self.groups is None else self.groups.numpy().tobytes()
        names = json.dumps([self.class_names, self.group_names]).encode()
        parts = [self.positions.numpy().tobytes(), self.labels.numpy().tobytes(), groups, names]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def _digest(self) -> str:
        """The same of the images too."""
        digest = hashlib.sha256(self.identity().encode())
        for row, data in sorted(self.images.items()):
            digest.update(f"{row} {len(data)} ".encode() + data)
        return digest.hexdigest()


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
