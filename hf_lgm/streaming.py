"""A streamed split, read once: what stays are features, labels, and a few pictures for the tables."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import IterableDataset

from .backbone import FrozenBackbone
from .data import LabelledImages
from .feature_cache import FeatureCache, assets_folder
from .stream_pass import StreamColumns, StreamOptions, StreamPass, StreamRows


class EncodedStream:
    """What one pass over a stream left behind: features on disk, and a few pictures.

    Args:
        fingerprint (`str`): What identifies the stream and what was used of it.
        rows ([`StreamRows`]): Those that were encoded.
        cache_dir (`Path`): Where the features are.
    """

    def __init__(self, fingerprint: str, rows: StreamRows, cache_dir: Path) -> None:
        self._fingerprint = fingerprint
        self.rows = rows
        self.cache_dir = cache_dir

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row not in self.rows.pictures:
            raise ValueError("a stream is read once, and this is not among the pictures that are kept")
        return {"image": datasets.Image().decode_example({"bytes": self.rows.pictures[row], "path": None})}

    def features(self, backbone: FrozenBackbone, rows: torch.Tensor) -> torch.Tensor:
        """Features of shape (len(rows), D) of rows of the stream.

        Raises:
            ValueError: If the stream was not encoded through this backbone.
        """
        z = FeatureCache(backbone, self._fingerprint, self.cache_dir).read_all(len(self.rows.positions))
        if z is None:
            raise ValueError(
                f"The stream was not encoded through {backbone.name}, or its features are gone: pass all backbones "
                "to encode_stream, which reads the stream once for all of them."
            )
        return z[torch.searchsorted(self.rows.positions, rows)]

    def has_picture(self, rows: torch.Tensor) -> torch.Tensor:
        """Which rows are among the pictures that are kept, of shape (len(rows),)."""
        return torch.isin(rows, torch.tensor(sorted(self.rows.pictures)))


def encode_stream(
    dataset: IterableDataset,
    backbones: Sequence[FrozenBackbone],
    accelerator: Accelerator | None = None,
    options: StreamOptions | None = None,
    *,
    fingerprint: str | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> LabelledImages:
    """Read a streamed split once, through all backbones at a time; images are not kept, but a few of each class.

    The features have the same bits as those of the same split on disk. With a fingerprint they stay in the cache: a
    second call reads nothing of the stream, and one after a killed call encodes what is missing. Several processes
    each read the whole stream, and decode and encode their share of it.

    Args:
        dataset (`datasets.IterableDataset`): One split.
        backbones (`Sequence[FrozenBackbone]`): All that will be asked for features.
        accelerator (`accelerate.Accelerator`, *optional*): Says which process this is, and on which device.
        options ([`StreamOptions`], *optional*): Columns and classes.
        fingerprint (`str`, *optional*): What identifies the split's files; without one, the features are in a
            temporary folder.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Threads that decode images.

    Raises:
        ValueError: If a column is missing or an image can't be read. What is wrong with the classes is known only
            after the pass.
    """
    accelerator, options = accelerator or Accelerator(), options or StreamOptions()
    if dataset.features is None:
        dataset = dataset._resolve_features()  # from the first rows; `datasets` has no public way
    columns = StreamColumns.find(dataset.features, options)
    folder = assets_folder("features") if fingerprint else _shared_temporary_folder()
    used = json.dumps([fingerprint or str(folder), asdict(options)], default=str)
    key = hashlib.sha256(used.encode()).hexdigest()
    caches = [FeatureCache(backbone.to(accelerator.device), key, folder) for backbone in backbones]
    index = folder / f"stream-{key[:32]}.safetensors"
    rows = StreamRows.load(index) if index.exists() else None
    # The second time alone: what is only on the disks of other machines.
    shares = [(accelerator.process_index, accelerator.num_processes), (0, 1)]
    for share in shares:
        if rows is None or any(cache.read_all(len(rows.positions)) is None for cache in caches):
            rows = StreamPass(columns, options, backbones, caches, share, batch_size, num_workers).run(dataset)
        accelerator.wait_for_everyone()
    assert rows is not None
    if accelerator.is_main_process and not index.exists():
        rows.save(index)
    images = LabelledImages(
        EncodedStream(key, rows, folder),
        "image",
        rows.positions,
        rows.labels,
        rows.class_names,
        rows.groups,
        rows.group_names,
    )
    return images.with_classes(options.classes) if options.classes else images


_temporary_folders: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def _shared_temporary_folder() -> Path:
    """A folder of the main process, removed when it ends."""
    _temporary_folders.append(tempfile.TemporaryDirectory(prefix="hf_lgm-stream-"))
    return Path(broadcast_object_list([_temporary_folders[-1].name])[0])
