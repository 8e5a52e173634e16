"""A streamed split, read once: what stays are features, labels, and a few images for the tables."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from datasets import IterableDataset

from ..backbones.backbone import FrozenBackbone
from ..data.labelled_images import LabelledImages
from ..settings import ColumnOptions
from .cache import SHARD_ROWS, FeatureCache, assets_folder
from .stream_pass import ShardEncoding, StreamPass
from .stream_rows import StreamColumns, StreamRows

logger = logging.getLogger(__name__)

# How labels are understood; those that an earlier version has cached are read again.
_LABELS = "by the names in each file"


class EncodedStream:
    """What one pass over a stream left behind: features on disk, and a few images.

    Args:
        key (`str`): Under which the features are, together with the backbone.
        rows ([`StreamRows`]): Those that were encoded.
        cache_dir (`Path`): Where the features are.
        shard_rows (`int`): How many there are in a shard.
        fingerprint (`str`): What identifies the images, from run to run.
        mode (`str`, *optional*): What the dataset converts its images to.
    """

    def __init__(
        self, key: str, rows: StreamRows, cache_dir: Path, shard_rows: int, fingerprint: str, mode: str | None = None
    ) -> None:
        self.key, self.rows, self.mode = key, rows, mode
        self.cache_dir, self.shard_rows = cache_dir, shard_rows
        self._fingerprint = fingerprint  # called as that of a `datasets.Dataset`

    def stored(self, row: int) -> dict[str, Any]:
        """The encoded image of a row, if it is one of those that are kept."""
        if row not in self.rows.images:
            raise LookupError(f"A stream is read once, and row {row} is not among the images that are kept.")
        return {"bytes": self.rows.images[row], "path": None}

    def features(self, backbone: FrozenBackbone, rows: torch.Tensor, with_layers: bool = False) -> torch.Tensor:
        """Features of shape (len(rows), D) of rows of the stream, with the backbone's layers beside them if asked for.

        Raises:
            ValueError: If the stream was not encoded through this backbone.
        """
        cache = FeatureCache(backbone, self.key, self.cache_dir, self.shard_rows, with_layers)
        z = cache.read_all(len(self.rows.positions))
        if z is None:
            layers = f" (with its layers: backbone.with_layers({len(cache.layers)}))" if cache.layers else ""
            raise ValueError(
                f"The stream was not encoded through {backbone.name}{layers}, or its features are gone: give all "
                "backbones to the StreamEncoder, which reads the stream once for all of them."
            )
        return z[torch.searchsorted(self.rows.positions, rows)]

    def has_image(self, rows: torch.Tensor) -> torch.Tensor:
        """Which rows are among the images that are kept, of shape (len(rows),)."""
        return torch.isin(rows, torch.tensor(sorted(self.rows.images), dtype=torch.long))


@dataclass(frozen=True)
class StreamEncoder:
    """Reads a streamed split once, through all backbones at a time; of the images it keeps a few of each class.

    The features have the same bits as those of the same split on disk. Several processes each read the whole stream,
    and encode their share of it; they decode no more than that, unless bad images are to be counted.

    Args:
        backbones (`Sequence[FrozenBackbone]`): All that will be asked for features.
        accelerator (`accelerate.Accelerator`, *optional*): Says which process this is, and on which device.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_threads (`int`, *optional*, defaults to 16): Threads that fetch and decode images: on the Hub each image
            file is a request, and some at a time hide most of the latency.
        kept_per_class (`int`, *optional*, defaults to 5): Images to keep of each class, drawn at random.
        shard_rows (`int`, *optional*, defaults to 1024): See [`FeatureExtractor`].
        pictures_per_class (`int`, *optional*): The former name of `kept_per_class`, until 0.3.
    """

    backbones: Sequence[FrozenBackbone]
    accelerator: Accelerator = field(default_factory=Accelerator)
    batch_size: int = 64
    num_threads: int = 16
    kept_per_class: int = 5
    shard_rows: int = SHARD_ROWS
    pictures_per_class: int | None = None

    def __post_init__(self) -> None:
        if self.pictures_per_class is not None:
            logger.warning("pictures_per_class is called kept_per_class now; the old name goes with 0.3.")
            object.__setattr__(self, "kept_per_class", self.pictures_per_class)

    def encode(
        self,
        dataset: IterableDataset,
        options: ColumnOptions | None = None,
        fingerprint: str | None = None,
        *,
        keep_images: bool = True,
    ) -> LabelledImages:
        """Features, labels and a few images of a streamed split.

        With a fingerprint they stay in the cache: a second call reads nothing of the stream, and one after a killed
        call encodes what is missing. A stream of a table that names image files is always read: they may have changed.

        Args:
            dataset (`datasets.IterableDataset`): One split.
            options ([`ColumnOptions`], *optional*): Columns and classes.
            fingerprint (`str`, *optional*): What identifies the split's files; without one, the features are in a
                temporary folder.
            keep_images (`bool`, *optional*, defaults to `True`): Keep `kept_per_class` of the images, or none.

        Raises:
            ValueError: If a column is missing or an image can't be read. What is wrong with the classes is known only
                after the pass.
        """
        options = options or ColumnOptions()
        if dataset.features is None:
            dataset = dataset._resolve_features()  # from the first rows; `datasets` has no public way
        columns = StreamColumns.find(dataset.features, options)
        if columns.names_files:  # which may be replaced, and are known only after the pass
            fingerprint = None
        folder = assets_folder("features") if fingerprint else self._temporary_folder()
        key = _digest(fingerprint or str(folder), asdict(options))
        per_class = self.kept_per_class if keep_images else 0
        index = folder / f"stream-{_digest(key, per_class, _LABELS)[:32]}.safetensors"
        caches = [
            FeatureCache(backbone.to(self.accelerator.device), key, folder, self.shard_rows, with_layers=True)
            for backbone in self.backbones
        ]
        known = StreamRows.load(index)
        rows = self._read_rows(dataset, columns, options, caches, known, per_class)
        if self.accelerator.is_main_process and rows is not known:
            rows.save(index)
            logger.info("%d of the stream's images are kept for tables, in %s", len(rows.images), index)
        # The key changes with a temporary folder; what is in it does not.
        content = key if fingerprint else _digest(rows.identity(), caches[0].digest(len(rows.positions)))
        images = LabelledImages(
            EncodedStream(key, rows, folder, self.shard_rows, content, columns.mode),
            columns.image,
            rows.positions,
            rows.labels,
            rows.class_names,
            rows.groups,
            rows.group_names,
            options.max_image_pixels,
            columns.declares_classes,
        )
        return images.with_classes(options.classes) if options.classes else images

    def _read_rows(
        self,
        dataset: IterableDataset,
        columns: StreamColumns,
        options: ColumnOptions,
        caches: list[FeatureCache],
        known: StreamRows | None,
        per_class: int,
    ) -> StreamRows:
        """The rows, read unless they are known; then all features are in the caches."""

        def is_complete(rows: StreamRows) -> bool:
            return all(cache.digest(len(rows.positions)) is not None for cache in caches)

        def read(share: tuple[int, int]) -> StreamRows:
            encoding = ShardEncoding(self.backbones, caches, share, self.batch_size)
            return StreamPass(columns, options, encoding, per_class, self.num_threads).run(dataset)

        share = (self.accelerator.process_index, self.accelerator.num_processes)
        rows = known if known is not None and is_complete(known) else read(share)
        self._check_same(rows)
        rows = rows if is_complete(rows) else read((0, 1))  # shards that are on the disks of other machines
        self._check_same(rows)
        return rows

    def _check_same(self, rows: StreamRows) -> None:
        """Wait for all processes; shards of one have to go with the labels of the others."""
        if len(set(gather_object([rows.identity()]))) > 1:
            raise ValueError(
                "The processes do not see the same stream: give each of them all of it, in one order (shuffle with a "
                "seed; do not split it by node)."
            )

    def _temporary_folder(self) -> Path:
        """A folder of the main process, removed when it ends."""
        _temporary_folders.append(tempfile.TemporaryDirectory(prefix="hf_lgm-stream-"))
        return Path(broadcast_object_list([_temporary_folders[-1].name])[0])


_temporary_folders: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
