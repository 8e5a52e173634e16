"""The pass itself: rows of a stream into feature shards, labels, and a random sample of each class's pictures."""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Features, IterableDataset
from datasets.utils.file_utils import xopen
from safetensors import safe_open
from tqdm.auto import tqdm

from . import feature_cache
from .backbone import FrozenBackbone
from .columns import UNLABELLED, encode_labels, find_image_column, find_label_column, with_image_feature
from .data import UNREADABLE, class_indices, readable
from .feature_cache import FeatureCache, write_tensors
from .preprocessing import square, to_tensor
from .randomness import seeded_generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamOptions:
    """What of a stream is used; see [`LabelledImages.from_dataset`] for all but the last.

    Args:
        image_column_name (`str`, *optional*): Column of the images.
        label_column_name (`str`, *optional*): Column of the labels.
        classes (`Sequence[str | int]`, *optional*): Classes to keep: of labels that are no `ClassLabel`, their names.
        group_column_name (`str`, *optional*): Column of the groups.
        skip_bad_images (`bool`, *optional*, defaults to `False`): Count images that can't be read.
        kept_per_class (`int`, *optional*, defaults to 5): Pictures to keep of each class, drawn at random.
    """

    image_column_name: str | None = None
    label_column_name: str | None = None
    classes: Sequence[str | int] = ()
    group_column_name: str | None = None
    skip_bad_images: bool = False
    kept_per_class: int = 5


@dataclass(frozen=True)
class StreamColumns:
    """The columns that are used, and which labels."""

    image: str
    label: str
    group: str | None
    features: Features
    wanted: frozenset[int | str] | None

    @classmethod
    def find(cls, features: Features, options: StreamOptions) -> "StreamColumns":
        """In the features of a stream, before it is read."""
        label, group = find_label_column(features, options.label_column_name), options.group_column_name
        wanted: frozenset[int | str] | None = None
        if options.classes and isinstance(features[label], datasets.ClassLabel):
            wanted = frozenset(class_indices(features[label].names, options.classes))
        elif options.classes:
            wanted = frozenset(str(name) for name in options.classes)
        return cls(
            find_image_column(features, options.image_column_name),
            label,
            group and find_label_column(features, group, "group_column_name"),
            features,
            wanted,
        )

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
        pictures (`dict[int, bytes]`): The encoded pictures that were kept, by row.
    """

    positions: torch.Tensor
    labels: torch.Tensor
    class_names: list[str]
    groups: torch.Tensor | None
    group_names: list[str] | None
    pictures: dict[int, bytes]

    def save(self, path: Path) -> None:
        """Write one file."""
        tensors = {"positions": self.positions, "labels": self.labels}
        if self.groups is not None:
            tensors["groups"] = self.groups
        tensors |= {f"picture {row}": _as_tensor(data) for row, data in self.pictures.items()}
        names = {"class_names": self.class_names, "group_names": self.group_names}
        write_tensors(path, tensors, {name: json.dumps(value) for name, value in names.items()})

    @classmethod
    def load(cls, path: Path) -> "StreamRows":
        """Read it back."""
        with safe_open(path, "pt") as file:
            names = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
        pictures = {
            int(name.split()[1]): value.numpy().tobytes()
            for name, value in tensors.items()
            if name.startswith("picture ")
        }
        return cls(
            tensors["positions"],
            tensors["labels"],
            names["class_names"],
            tensors.get("groups"),
            names["group_names"],
            pictures,
        )


class StreamPass:
    """One pass, with what it has gathered so far.

    Args:
        columns ([`StreamColumns`]): Where images and labels are.
        options ([`StreamOptions`]): What is used.
        backbones (`Sequence[FrozenBackbone]`): To encode through.
        caches (`Sequence[FeatureCache]`): One for each; shards that are there are not computed again.
        share (`tuple[int, int]`): Which of how many processes this is: it encodes every so many-th shard.
        batch_size (`int`): Images per forward pass.
        num_workers (`int`): Threads that decode.
    """

    def __init__(
        self,
        columns: StreamColumns,
        options: StreamOptions,
        backbones: Sequence[FrozenBackbone],
        caches: Sequence[FeatureCache],
        share: tuple[int, int],
        batch_size: int,
        num_workers: int,
    ) -> None:
        self.columns, self.options = columns, options
        self.backbones, self.caches = backbones, caches
        self.rank, self.world = share
        self.batch_size, self.num_workers = batch_size, num_workers
        self.positions: list[int] = []
        self.values: list[Any] = []
        self.group_values: list[Any] = []
        self.kept: dict[Any, list[tuple[float, int, bytes]]] = {}
        self.unlabelled, self.bad = 0, 0
        self._missing: dict[int, list[int]] = {}  # the backbones that the shard with this start still has to see
        self._pending: list[dict[tuple[int, float], torch.Tensor]] = []  # squares of the next batch
        self._shard: list[list[torch.Tensor]] = [[] for _ in backbones]  # features of this shard

    def run(self, dataset: IterableDataset) -> StreamRows:
        """Read the stream to its end."""
        columns = self.columns
        names = [columns.image, columns.label, *([columns.group] if columns.group else [])]
        stream = with_image_feature(dataset.select_columns(names), columns.image, decode=False)
        known = (dataset.info.splits or {}).get(str(dataset.split))
        through = ", ".join(backbone.name for backbone in self.backbones)
        logger.info("Streaming: one pass, through %s; what is wrong with the classes is known after it", through)
        with ThreadPoolExecutor(max(1, self.num_workers)) as executor:
            bar = tqdm(stream, "streamed images", known.num_examples if known else None, unit="img")
            for chunk in _chunks(enumerate(bar), self.batch_size):
                self._take(chunk, executor)
        self._end_shard()
        return self._rows()

    def _take(self, chunk: list[tuple[int, dict[str, Any]]], executor: ThreadPoolExecutor) -> None:
        """Some rows of the stream: their labels always, their pixels where a shard is still to be computed."""
        rows = [(position, row) for position, row in chunk if self._is_used(row[self.columns.label])]
        first = len(self.positions)
        is_needed = [
            self.options.skip_bad_images or bool(self._backbones_for(first + offset)) for offset in range(len(rows))
        ]
        stored = [row[self.columns.image] for _, row in rows]
        for (position, row), squares in zip(rows, executor.map(self._squares, stored, is_needed), strict=True):
            if not isinstance(squares, Exception):
                self._add(position, row, squares)
            elif self.options.skip_bad_images:
                self.bad += 1
            else:
                raise ValueError(
                    f"The image in row {position} of the stream (column '{self.columns.image}') can't be read: "
                    f"{squares}. --skip_bad_images true leaves such rows out."
                ) from squares

    def _is_used(self, label: Any) -> bool:
        if label is None or label != label or label == UNLABELLED:
            self.unlabelled += 1
            return False
        return self.columns.is_wanted(label)

    def _squares(self, stored: Any, is_needed: bool) -> dict[tuple[int, float], torch.Tensor] | Exception:
        """One picture as the backbones take it, once for each side and ratio."""
        if not is_needed:
            return {}
        try:
            image = readable(datasets.Image().decode_example(stored) if stored else None)
            geometries = {(p.image_size, p.resize_ratio) for p in (b.preprocessing for b in self.backbones)}
            return {geometry: to_tensor(square(image, *geometry)) for geometry in geometries}
        except UNREADABLE as error:
            return error

    def _add(self, position: int, row: dict[str, Any], squares: dict[tuple[int, float], torch.Tensor]) -> None:
        index, step = len(self.positions), feature_cache.SHARD_ROWS
        self.positions.append(position)
        self.values.append(row[self.columns.label])
        if self.columns.group:
            self.group_values.append(row[self.columns.group])
        self._keep(index, position, row)
        if self._backbones_for(index):
            self._pending.append(squares)
        if len(self._pending) == self.batch_size:
            self._encode_pending(index)
        if (index + 1) % step == 0:
            self._end_shard()

    def _keep(self, index: int, position: int, row: dict[str, Any]) -> None:
        """Keep the pictures of each class to which chance gives the smallest numbers: a uniform sample."""
        block, offset = divmod(index, feature_cache.SHARD_ROWS)
        if offset == 0:
            generator = seeded_generator(0, "kept pictures", block)
            self._chances = torch.rand(feature_cache.SHARD_ROWS, generator=generator).tolist()
        kept = self.kept.setdefault(row[self.columns.label], [])
        chance = self._chances[offset]
        if len(kept) == self.options.kept_per_class and chance >= kept[-1][0]:
            return
        kept.append((chance, position, _encoded_bytes(row[self.columns.image])))
        kept.sort(key=lambda picture: picture[:2])
        del kept[self.options.kept_per_class :]

    def _backbones_for(self, index: int) -> list[int]:
        """The backbones that row `index` is to be encoded through by this process."""
        shard, step = index // feature_cache.SHARD_ROWS, feature_cache.SHARD_ROWS
        if shard % self.world != self.rank:
            return []
        if shard not in self._missing:
            self._missing[shard] = [i for i, cache in enumerate(self.caches) if cache.read(shard * step) is None]
        return self._missing[shard]

    def _encode_pending(self, index: int) -> None:
        if not self._pending:
            return
        for i in self._backbones_for(index):
            p = self.backbones[i].preprocessing
            batch = torch.stack([squares[p.image_size, p.resize_ratio] for squares in self._pending])
            self._shard[i].append(self.backbones[i].encode(batch))
        self._pending = []

    def _end_shard(self) -> None:
        """Write what the shard of the last row has got."""
        index, step = len(self.positions) - 1, feature_cache.SHARD_ROWS
        self._encode_pending(index)
        for features, cache in zip(self._shard, self.caches, strict=True):
            if features:
                cache.write(index // step * step, torch.cat(features))
                features.clear()

    def _rows(self) -> StreamRows:
        total = len(self.positions) + self.bad
        if self.unlabelled:
            logger.warning("%d rows of the stream have no label and are left out", self.unlabelled)
        if self.bad:
            logger.warning("%d of %d images can't be read and are left out", self.bad, total)
        labels, names = encode_labels(self.values, self.columns.features[self.columns.label])
        groups, group_names = None, None
        if self.columns.group:
            groups, group_names = encode_labels(self.group_values, self.columns.features[self.columns.group])
        pictures = {position: data for kept in self.kept.values() for _, position, data in kept}
        return StreamRows(torch.tensor(self.positions), labels, names, groups, group_names, pictures)


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _encoded_bytes(stored: dict[str, Any]) -> bytes:
    """A picture as it is stored, wherever that is."""
    if stored["bytes"] is not None:
        return stored["bytes"]
    with xopen(stored["path"], "rb") as file:
        return file.read()


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
