"""Images that a table names by path: whether it does, and whether the files are still the same."""

import hashlib
import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetBuilder, IterableDataset
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.parquet.parquet import Parquet


def file_signature(dataset: Dataset, column: str) -> str:
    """A digest of size and modification time of every image file on this machine that the rows name.

    Nothing is read: some ten microseconds a file, where all contents may take hours. Images that are stored in the
    table itself have none, nor have files elsewhere.

    Args:
        dataset (`datasets.Dataset`): Of images, by path or stored.
        column (`str`): Their column.
    """
    digest, has_files = hashlib.sha256(), False
    for stored in dataset.data.column(column).chunks:  # as they lie: nothing is copied
        for path in _paths(stored):
            has_files = True
            digest.update(f"{path}\0{_state(path)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest() if has_files else ""


def names_files(builder: DatasetBuilder, stream: IterableDataset) -> bool:
    """Whether a table on this machine has paths where others have images, as its first row tells."""
    files = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    if not isinstance(builder, (Parquet, Arrow)) or any("://" in file for file in files):
        return False  # folders know their files, and the columns of other tables are of strings
    row: dict[str, Any] = next(iter(stream.decode(False)), {})
    return any(isinstance(value, dict) and value.get("path") and not value.get("bytes") for value in row.values())


def _paths(stored: pa.StructArray) -> list[str]:
    """Of images that are files on this machine."""
    is_file = pc.is_null(pc.struct_field(stored, "bytes"))
    paths = pc.struct_field(stored, "path").filter(is_file).drop_null().to_pylist()
    return [path for path in paths if "://" not in path]


def _state(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return "absent"
    return f"{found.st_size} {found.st_mtime_ns}"
