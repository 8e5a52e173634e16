"""The rows of a set, read from parquet: bytes of images and numbers, checked once, on entry.

A file may be anybody's, and name files of this machine or addresses where an image should be, in columns of its own
too. Only the columns of a set are read, no name of a file gets past here, and none is opened.
"""

import json
import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetInfo, Features, List, Value
from datasets import Image as ImageFeature
from datasets.table import InMemoryTable
from PIL import Image

from ..data.images import to_rgb
from ..hub import first_line
from ..settings import MAX_IMAGE_PIXELS
from ..values import shown
from .files import DATA_FILE, MAX_BYTES
from .schema import CLASS_NAMES

COLUMNS = ("image", "label", "source_index", "soft_label")
MAX_ROWS = 1_000_000
MAX_PIXELS = MAX_IMAGE_PIXELS // 2  # of one image; of larger ones Pillow warns

# What Pillow decodes itself, and knows by its first bytes. For EPS it starts a program.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_AT_ONCE = 2**31  # bytes that a few rows may become, in a file that was made to fill memory
_ROUNDING = 1e-3  # of a sum of probabilities


def features_of(class_names: list[str], has_real_images: bool = False, has_soft_labels: bool = False) -> Features:
    """The columns of a set of images."""
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=class_names)})
    if has_real_images:
        features["source_index"] = Value("int64")
    if has_soft_labels:
        features["soft_label"] = List(Value("float32"), length=len(class_names))
    return features


def read_rows(path: Path) -> Dataset:
    """The rows of a set, in memory.

    Args:
        path (`Path`): A parquet file.

    Raises:
        ValueError: If a column, a row or an image is not as it must be; the message says which.
    """
    try:
        return _rows(path)
    except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:  # a damaged file
        raise _refused("", "a parquet file", first_line(error)) from error


def own_images(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Images as `datasets` stores them, without the names of files that stand beside their bytes.

    Raises:
        ValueError: If an image is not here, but in a file or at an address. It is not opened.
    """
    chunks, before = [], 0
    for chunk in images.chunks:
        data = chunk.field("bytes")
        elsewhere = pc.and_(chunk.is_valid(), data.is_null()).to_numpy(zero_copy_only=False)
        if elsewhere.any():
            row = before + int(elsewhere.argmax())
            named = chunk[row - before].as_py().get("path")
            found = f"the name of a file, {shown(named)}" if named else "nothing"
            raise ValueError(f"{DATA_FILE}, row {row}, image: expected the image itself, found {found}.")
        names = pa.nulls(len(chunk), pa.string())
        stored = pa.StructArray.from_arrays([data.cast(pa.binary()), names], ["bytes", "path"], mask=chunk.is_null())
        chunks.append(stored)
        before += len(chunk)
    return pa.chunked_array(chunks, ImageFeature.pa_type)


def _rows(path: Path) -> Dataset:
    with pq.ParquetFile(path) as file:
        features = _features(file.schema_arrow)
        table = _read(file, list(features))
    _check_labels(table, len(features["label"].names))
    _check_sources(table)
    columns = [_column(table[name], features.arrow_schema.field(name).type) for name in features]
    table = pa.table(columns, names=list(features))
    if "image" in features:
        _check_images(table)
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=features))


def _features(schema: pa.Schema) -> Features:
    """The columns that are read, by what the file says of them. No type that it names is made."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        said = {name: dict(said[name]) for name in COLUMNS if name in schema.names and name in said}
    except (KeyError, TypeError, ValueError, RecursionError):
        said = {}
    kinds = {name: str(found.get("_type")) for name, found in said.items()}
    is_set = kinds.get("label") == "ClassLabel" and {"image", "source_index"} & set(schema.names)
    if not is_set or len(set(schema.names)) < len(schema.names):
        found = ", ".join(map(repr, schema.names[:10]))
        raise ValueError(f"{DATA_FILE}: expected columns image and label (a ClassLabel), found {found or 'none'}.")
    names = said["label"].get("names")
    if not CLASS_NAMES.fits(names):
        raise _refused(", label, names", CLASS_NAMES.said, shown(names))
    for name, fits in _ARROW_TYPES.items():
        if name in schema.names and not fits(schema.field(name).type):
            raise _refused(f", {name}", _SAID[name], f"the type {str(schema.field(name).type)[:100]}")
    if "image" in schema.names and kinds.get("image") != "Image":
        raise _refused(", image", _SAID["image"], shown(kinds["image"]) if "image" in kinds else "no type")
    features = features_of(names, "source_index" in schema.names, "soft_label" in schema.names)
    return Features({name: kind for name, kind in features.items() if name in schema.names})


def _is_image(kind: pa.DataType) -> bool:
    at = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return at >= 0 and (pa.types.is_binary(kind.field(at).type) or pa.types.is_large_binary(kind.field(at).type))


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_floating(kind.value_type)


_ARROW_TYPES = {
    "image": _is_image,
    "label": pa.types.is_integer,
    "source_index": pa.types.is_integer,
    "soft_label": _is_list_of_numbers,
}
_SAID = {
    "image": "bytes of images",
    "label": "whole numbers",
    "source_index": "whole numbers",
    "soft_label": "lists of numbers",
}


def _read(file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    """Some columns of a file, a few rows at a time: a small file may be made to fill memory."""
    rows, groups = file.metadata.num_rows, range(file.metadata.num_row_groups)
    if not 0 < rows <= MAX_ROWS:
        raise _refused("", f"1 to {MAX_ROWS:,} rows", f"{rows:,}")
    sizes = [file.metadata.row_group(group).total_byte_size for group in groups]
    at_once = max(1, min(1024, _AT_ONCE // max(1, *sizes)))
    batches, read = [], 0
    for batch in file.iter_batches(batch_size=at_once, columns=columns):
        read += batch.nbytes
        if read > MAX_BYTES[DATA_FILE]:
            raise _refused("", f"at most {MAX_BYTES[DATA_FILE]:,} bytes of rows", "more")
        batches.append(batch)
    table = pa.Table.from_batches(batches)
    if len(table) != rows:
        raise _refused("", f"{rows:,} rows", f"{len(table):,}")
    return table


def _column(found: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_struct(wanted):
        return own_images(found)
    if pa.types.is_fixed_size_list(wanted):
        flat = pc.list_flatten(found).combine_chunks().cast(wanted.value_type)
        return pa.chunked_array([pa.FixedSizeListArray.from_arrays(flat, type=wanted)])
    return found.cast(wanted)


def _check_labels(table: pa.Table, num_classes: int) -> None:
    """Labels are classes, soft ones distributions over them."""
    for row, label in enumerate(table["label"].to_pylist()):
        if label is None or not 0 <= label < num_classes:
            raise _refused(f", row {row}, label", f"a class, 0 to {num_classes - 1}", str(label))
    if "soft_label" not in table.column_names:
        return
    said = f"{num_classes} numbers that are not negative and sum to 1"
    for row, label in enumerate(table["soft_label"]):
        values = np.array(label.as_py() or [np.nan], dtype=float)
        is_distribution = len(values) == num_classes and bool((values >= 0).all())
        if not (is_distribution and abs(values.sum() - 1) <= _ROUNDING):
            raise _refused(f", row {row}, soft_label", said, f"{len(values)} that sum to {values.sum():g}")


def _check_sources(table: pa.Table) -> None:
    """Rows of the source are rows; where an image is missing, its row is known."""
    nothing = [None] * len(table)
    sources = table["source_index"].to_pylist() if "source_index" in table.column_names else nothing
    is_here = table["image"].is_valid().to_pylist() if "image" in table.column_names else nothing
    for row, (source, here) in enumerate(zip(sources, is_here, strict=True)):
        if source is not None and not 0 <= source < 2**63:
            raise _refused(f", row {row}, source_index", "a row of the source, 0 or more", str(source))
        if source is None and not here:
            raise _refused(f", row {row}, image", "an image, or a source_index that says which one it is", "neither")


def _check_images(table: pa.Table) -> None:
    """Images can be decoded, have one size, and are not too large."""
    first: tuple[int, tuple[int, int]] | None = None
    count = len(table) - table["image"].null_count
    for row, stored in enumerate(table["image"]):
        if not stored.is_valid:
            continue
        where, size = f", row {row}, image", _size_of(stored["bytes"].as_py(), row)
        if first is None:
            first = row, size
            if 3 * count * math.prod(size) > MAX_BYTES[DATA_FILE]:
                most = f"images of at most {MAX_BYTES[DATA_FILE]:,} bytes in memory"
                raise _refused(where, most, f"{count:,} of {size[0]} x {size[1]} pixels")
        if size != first[1]:
            (width, height), (other_width, other_height) = first[1], size
            found = f"{other_width} x {other_height}"
            raise _refused(where, f"{width} x {height} pixels, as in row {first[0]}", found)


def _size_of(data: bytes, row: int) -> tuple[int, int]:
    """Width and height of an image that is decoded once, to know that it can be."""
    where = f", row {row}, image"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what stands beside the pixels
        try:
            with Image.open(BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
            if width * height <= MAX_PIXELS:
                decoded: Any = ImageFeature().decode_example({"bytes": data, "path": None})
                return to_rgb(decoded).size
        except Exception as error:  # broken files make decoders raise anything
            formats = ", ".join(_FORMATS)
            raise _refused(where, f"an image ({formats})", f"bytes that give {type(error).__name__}") from error
    raise _refused(where, f"at most {MAX_PIXELS:,} pixels", f"{width} x {height}")


def _refused(where: str, expected: str, found: str) -> ValueError:
    return ValueError(f"{DATA_FILE}{where}: expected {expected}, found {found}. Is the file whole?")
