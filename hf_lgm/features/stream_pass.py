"""The pass over a stream: rows into feature shards, labels, and a random sample of each class's images."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from datasets import IterableDataset
from PIL import Image

from ..backbones.backbone import FrozenBackbone
from ..data.columns import class_indices, encode_groups, encode_labels, is_labelled, with_image_feature
from ..data.decoding import LEFT_OUT, UnreadableImage, encoded, named_rows, read_image, unreadable
from ..data.images import centre_crop, decoded_side, fast_centre_crop, to_tensor
from ..progress import progress
from ..randomness import seeded_generator
from ..settings import ColumnOptions
from .cache import FeatureCache, check_finite
from .stream_rows import StreamColumns, StreamRows

logger = logging.getLogger(__name__)

# An image as centre crops of each side, resize ratio and filter that a backbone asks for.
Crops = dict[tuple[int, float, str], torch.Tensor]

# Rows whose chances to be kept are drawn together.
_CHANCES = 1024


class ShardEncoding:
    """Features of rows that come one after the other, in the batches and shards of [`FeatureExtractor`].

    Args:
        backbones (`Sequence[FrozenBackbone]`): To encode through.
        caches (`Sequence[FeatureCache]`): One for each; shards that are there are not computed again.
        share (`tuple[int, int]`): Which of how many processes this is: it encodes every so many-th shard.
        batch_size (`int`): Images per forward pass.
    """

    def __init__(
        self,
        backbones: Sequence[FrozenBackbone],
        caches: Sequence[FeatureCache],
        share: tuple[int, int],
        batch_size: int,
    ) -> None:
        self.backbones, self.caches = backbones, caches
        self.rank, self.world = share
        self.batch_size, self.shard_rows = batch_size, caches[0].shard_rows
        self.geometries = {backbone.preprocessing.geometry for backbone in backbones}
        self._missing: dict[int, list[int]] = {}  # for each shard the backbones it is to be encoded through
        self._pending: list[Crops] = []  # of the next batch
        self._positions: list[int] = []  # likewise, in the stream
        self._features: list[list[torch.Tensor]] = [[] for _ in backbones]  # of this shard

    def backbones_for(self, index: int) -> list[int]:
        """The backbones that the row at `index` is to be encoded through by this process."""
        step = self.shard_rows
        shard = index // step
        if shard % self.world != self.rank:
            return []
        if shard not in self._missing:
            self._missing[shard] = [i for i, cache in enumerate(self.caches) if cache.read(shard * step) is None]
        return self._missing[shard]

    def add(self, index: int, position: int, crops: Crops) -> None:
        """The next row, from a position in the stream."""
        if self.backbones_for(index):
            self._pending.append(crops)
            self._positions.append(position)
        if len(self._pending) == self.batch_size:
            self._encode(index)
        if (index + 1) % self.shard_rows == 0:
            self.end_shard(index)

    def end_shard(self, index: int) -> None:
        """Write the shard of the row at `index`, the last that was added."""
        self._encode(index)
        start = index // self.shard_rows * self.shard_rows
        for features, cache in zip(self._features, self.caches, strict=True):
            if features:
                cache.write(start, torch.cat(features))
                features.clear()

    def _encode(self, index: int) -> None:
        if not self._pending:
            return
        for i in self.backbones_for(index):
            geometry = self.backbones[i].preprocessing.geometry
            batch = torch.stack([crops[geometry] for crops in self._pending])
            z = self.backbones[i].encode(batch, with_layers=True).cpu()
            check_finite(z, self._positions, self.backbones[i])
            self._features[i].append(z)
        self._pending, self._positions = [], []


class ImageSample:
    """A uniform sample of each class's images: those to which chance gives the smallest numbers.

    Args:
        per_class (`int`): How many to keep.
    """

    def __init__(self, per_class: int) -> None:
        self.per_class = per_class
        self._kept: dict[Any, list[tuple[float, int, bytes]]] = {}
        self._chances = (-1, torch.empty(0))  # of one block of rows

    def has_room(self, index: int, label: Any) -> bool:
        """Whether the row at `index`, the next, is kept for now."""
        if self.per_class == 0:
            return False
        kept = self._kept.get(label, [])
        return len(kept) < self.per_class or self._chance(index) < kept[-1][0]

    def add(self, index: int, position: int, label: Any, image: bytes) -> None:
        """Keep a row; the one with the largest number goes."""
        kept = self._kept.setdefault(label, [])
        kept.append((self._chance(index), position, image))
        kept.sort(key=lambda image: image[:2])
        del kept[self.per_class :]

    def _chance(self, index: int) -> float:
        block, offset = divmod(index, _CHANCES)
        if self._chances[0] != block:
            generator = seeded_generator(0, "kept pictures", block)  # a seed, whatever they are called now
            self._chances = block, torch.rand(_CHANCES, generator=generator)
        return self._chances[1][offset].item()

    def images(self) -> dict[int, bytes]:
        """Encoded images by position."""
        return {position: data for kept in self._kept.values() for _, position, data in kept}


class StreamPass:
    """One pass, with what it has gathered so far.

    Args:
        columns ([`StreamColumns`]): Where images and labels are.
        options ([`ColumnOptions`]): What is used.
        encoding ([`ShardEncoding`]): Where the images go.
        kept_per_class (`int`): How many are kept.
        num_threads (`int`): Threads that fetch and decode images.
    """

    def __init__(
        self,
        columns: StreamColumns,
        options: ColumnOptions,
        encoding: ShardEncoding,
        kept_per_class: int,
        num_threads: int,
    ) -> None:
        self.columns, self.options = columns, options
        self.encoding = encoding
        self.sample = ImageSample(kept_per_class)
        self.num_threads = num_threads
        self._token: str | None = None
        self.positions: list[int] = []
        self.values: list[Any] = []
        self.group_values: list[Any] = []
        self.seen: set[Any] = set()  # labels, also of classes that are not used
        self.unlabelled = 0
        self.bad: list[tuple[int, dict[str, Any] | None]] = []  # rows, and where their images are
        self.first_error: UnreadableImage | None = None

    def run(self, dataset: IterableDataset) -> StreamRows:
        """Read the stream to its end."""
        columns = self.columns
        names = [columns.image, columns.label, *([columns.group] if columns.group else [])]
        self._token = next(iter(dataset._token_per_repo_id.values()), None)
        # `decode(False)` first: of image files on the Hub, `datasets` decodes whatever the column is cast to later.
        plain = dataset.with_format(None).decode(False)
        stream = with_image_feature(plain.select_columns(names), columns.image, decode=False)
        known = (dataset.info.splits or {}).get(str(dataset.split))
        through = ", ".join(backbone.name for backbone in self.encoding.backbones)
        logger.info("Streaming: one pass, through %s; whether all classes have images is known after it", through)
        with ThreadPoolExecutor(self.num_threads) as executor:
            total = known.num_examples if known else None
            bar = progress(stream, desc="streamed images", total=total, unit="img")
            for position, row, image in self._read_ahead(bar, executor):
                self._take(position, row, image)
        self.encoding.end_shard(len(self.positions) - 1)
        if columns.wanted is not None and not isinstance(columns.features[columns.label], datasets.ClassLabel):
            class_indices(sorted(map(str, self.seen)), self.options.classes)  # refuses a name that is not there
        return self._rows()

    def _read_ahead(
        self, stream: Iterable[dict[str, Any]], executor: ThreadPoolExecutor
    ) -> Iterator[tuple[int, dict[str, Any], "_Image"]]:
        """The rows that are used, with pixels where a shard is still to be computed; two batches are under way."""
        ahead: deque[tuple[int, dict[str, Any], Future[_Image]]] = deque()
        used = ((position, row) for position, row in enumerate(stream) if self._is_used(row[self.columns.label]))
        for index, (position, row) in enumerate(used):  # the index as long as all can be read
            read = self._decode if self.options.skip_bad_images or self.encoding.backbones_for(index) else _Image
            ahead.append((position, row, executor.submit(read, row[self.columns.image])))
            if len(ahead) > 2 * self.encoding.batch_size:
                position, row, image = ahead.popleft()
                yield position, row, image.result()
        for position, row, image in ahead:
            yield position, row, image.result()

    def _take(self, position: int, row: dict[str, Any], image: "_Image") -> None:
        if image.error is None:
            self._add(position, row, image)
        elif self.options.skip_bad_images:
            self.bad.append((position, image.stored and {"path": image.stored["path"]}))
            self.first_error = self.first_error or self._unreadable(position, image.stored, image.error)
        else:
            raise self._unreadable(position, image.stored, image.error) from image.error

    def _unreadable(self, position: int, stored: dict[str, Any] | None, why: Exception) -> UnreadableImage:
        return unreadable(f"row {position} of the stream", self.columns.image, stored, why)

    def _is_used(self, label: Any) -> bool:
        if not is_labelled(label):
            self.unlabelled += 1
            return False
        self.seen.add(label)
        return self.columns.is_wanted(label)

    def _decode(self, stored: dict[str, Any] | None) -> "_Image":
        """One image as the backbones take it."""
        try:
            data = encoded(stored, self._token)
            crops = self._crops(data)
            path = stored["path"] if stored else None
            return _Image({"bytes": data, "path": path}, crops)
        except UnreadableImage as error:
            return _Image(stored, error=error)

    def _crops(self, data: bytes | None) -> Crops:
        """In each geometry, with the bits that the same image has on disk."""

        def read(needed: int | None = None) -> Image.Image:
            return read_image(data, self.options.max_image_pixels, self.columns.mode, needed)

        geometries = self.encoding.geometries
        if self.options.decode == "fast":
            return {of: fast_centre_crop(read(decoded_side(*of[:2])), *of) for of in geometries}
        image = read()
        return {geometry: to_tensor(centre_crop(image, *geometry)) for geometry in geometries}

    def _add(self, position: int, row: dict[str, Any], image: "_Image") -> None:
        index, label = len(self.positions), row[self.columns.label]
        self.positions.append(position)
        self.values.append(label)
        if self.columns.group:
            self.group_values.append(row[self.columns.group])
        if self.sample.has_room(index, label) and (data := self._encoded(position, image.stored)):
            self.sample.add(index, position, label, data)
        self.encoding.add(index, position, image.crops)

    def _encoded(self, position: int, stored: dict[str, Any] | None) -> bytes | None:
        """An image to keep, which may not have been decoded."""
        try:
            return encoded(stored, self._token)
        except UnreadableImage as error:
            raise self._unreadable(position, stored, error) from error

    def _rows(self) -> StreamRows:
        if self.unlabelled:
            logger.warning("%d rows of the stream have no label and are left out", self.unlabelled)
        if self.bad:
            total = len(self.positions) + len(self.bad)
            logger.warning(LEFT_OUT, len(self.bad), total, named_rows(self.bad, len(self.bad)))
            if self.first_error is not None and not self.positions:
                raise self.first_error
        features = self.columns.features
        labels, names = encode_labels(self.values, features[self.columns.label], self.positions)
        groups, group_names = None, None
        if self.columns.group:
            groups, group_names = encode_groups(self.group_values, features[self.columns.group])
        positions = torch.tensor(self.positions, dtype=torch.long)
        return StreamRows(positions, labels, names, groups, group_names, self.sample.images())


@dataclass(frozen=True)
class _Image:
    """As it is stored, and as crops where they are needed, or why there are none."""

    stored: dict[str, Any] | None
    crops: Crops = field(default_factory=dict)
    error: Exception | None = None
