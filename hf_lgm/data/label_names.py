"""Class names of each file: `datasets` takes those of the first for all, and reads the others' integers as its own."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, DatasetBuilder, Features, Value
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_hub import try_to_load_from_cache

from .columns import listed

logger = logging.getLogger(__name__)

# What `datasets` and pandas call a file's own description of its columns.
_OWN_FEATURES = b"huggingface"


def map_labels_by_name(builder: DatasetBuilder) -> None:
    """Have a builder number the classes of each file by their names, on disk and in streams.

    Only files of parquet and arrow bring class names with them.

    Args:
        builder (`datasets.DatasetBuilder`): Before it has read anything.
    """
    if isinstance(builder, (Parquet, Arrow)):
        reader = _ByName(builder)
        builder._cast_table, builder._generate_tables = reader.cast, reader.tables


def files_disagree(builder: DatasetBuilder) -> bool:
    """Whether those of a builder's files that are on this disk, or its card, name classes differently.

    What `datasets` has prepared of such files itself may have wrong labels.
    """
    if not isinstance(builder, (Parquet, Arrow)):
        return False
    paths = [_local(str(file)) for files in (builder.config.data_files or {}).values() for file in files]
    in_files = [_class_names(_schema(path)) for path in paths if path is not None]
    card = builder.info.features
    found = [*in_files, *([_names_in(card)] if card is not None else [])]
    for column in {column for names in found for column in names}:
        lists = [names.get(column) for names in found]
        if card is not None:  # which may name the integers of files that have no names
            lists = [names for names in lists if names is not None]
        if any(names != lists[0] for names in lists):
            return True
    return False


class _ByName:
    """Reads a builder's files one by one, so that each is known by its name when its table is cast.

    Args:
        builder (`datasets.DatasetBuilder`): Of parquet or arrow files.
    """

    def __init__(self, builder: Parquet | Arrow) -> None:
        self.builder = builder
        self.from_card = builder.info.features is not None
        self.file = ""
        self._generate, self._cast = builder._generate_tables, builder._cast_table
        self._said: set[str] = set()

    def tables(self, files: list[str], **of_each: Any) -> Iterator[tuple[Any, pa.Table]]:
        """What the builder reads of each file."""
        for number, file in enumerate(files):
            self.file = file
            of_this = {name: values and values[number : number + 1] for name, values in of_each.items()}
            yield from self._generate(files=[file], **of_this)

    def cast(self, table: pa.Table) -> pa.Table:
        """A table of one file in the types of the dataset, its classes numbered by their names."""
        own, features = _own_features(table.schema), self.builder.info.features or {}
        for column, feature in features.items():
            if column in table.column_names:
                table = self._renumbered(table, column, own.get(column), feature)
        return self._cast(table)

    def _renumbered(self, table: pa.Table, column: str, own: Any, feature: Any) -> pa.Table:
        """The table with one column as the dataset understands it."""
        values, is_class = table[column], isinstance(feature, ClassLabel)
        if isinstance(own, ClassLabel):
            if is_class and own.names == feature.names:
                return table
            kind = getattr(feature, "dtype", type(feature).__name__)
            if not is_class and not kind.endswith("string"):
                self._refuse(column, f"class names ({listed(own.names)})", kind)
            if is_class and set(own.names) != set(feature.names):
                differing = sorted(set(own.names) ^ set(feature.names))
                self._refuse(column, f"other class names (the difference: {listed(differing)})", listed(feature.names))
            self._say(column)
            values = _as_names(values, own.names)
        if is_class and pa.types.is_integer(values.type) and not self.from_card and not _all_unlabelled(values):
            self._refuse(column, "integers without names", f"class names ({listed(feature.names)})")
        if is_class and _is_text(values.type):
            if unknown := sorted(set(pc.unique(values).drop_null().to_pylist()) - set(feature.names)):
                self._refuse(column, f"classes that are not among them: {listed(unknown)}", listed(feature.names))
            values = _as_indices(values, feature.names)
        kinds = {_kind(values.type), _kind(feature.pa_type)} if isinstance(feature, Value) else set()
        if len(kinds - {None}) > 1:
            self._refuse(column, f"values of type {values.type}", feature.dtype)
        return table.set_column(table.column_names.index(column), column, values)

    def _say(self, column: str) -> None:
        if self.file not in self._said:  # once, not for each of its tables
            self._said.add(self.file)
            logger.warning("%s: column '%s' numbers its classes otherwise; mapped by name", self.file, column)

    def _refuse(self, column: str, found: str, expected: str) -> None:
        raise ValueError(
            f"{self.file}: column '{column}' has {found}; the dataset's card or first file says {expected}. "
            "Write all files, and the card, with the same classes."
        )


def _as_names(values: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Names for indices; none for -1."""
    in_range = pc.and_(pc.greater_equal(values, 0), pc.less(values, len(names)))
    unknown = pc.and_(pc.invert(in_range), pc.not_equal(values, -1))
    if len(wrong := values.filter(unknown).drop_null()):
        raise ValueError(f"A class label is {wrong[0]}, which is none of the {len(names)} classes of its file.")
    return pc.take(pa.array(names, pa.string()), pc.if_else(in_range, values, None))


def _as_indices(values: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    return pc.cast(pc.index_in(values, value_set=pa.array(names, pa.string())), pa.int64())


def _all_unlabelled(values: pa.ChunkedArray) -> bool:
    return pc.all(pc.equal(values, -1)).as_py() in (True, None)


def _kind(type_: pa.DataType) -> str | None:
    """What labels of a type are, of which none stands for another; `None` for a type that labels do not have."""
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return "number"
    return "text" if _is_text(type_) else None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _names_in(features: Features) -> dict[str, list[str]]:
    return {column: kind.names for column, kind in features.items() if isinstance(kind, ClassLabel)}


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    return _names_in(_own_features(schema))


def _own_features(schema: pa.Schema) -> Features:
    """As `datasets` has written them into the file; of other files there are none."""
    if _OWN_FEATURES not in (schema.metadata or {}):
        return Features()
    return Features.from_arrow_schema(schema)


def _schema(path: Path) -> pa.Schema:
    if path.suffix != ".arrow":
        return pq.read_schema(path)
    with path.open("rb") as file:
        try:
            return pa.ipc.open_stream(file).schema
        except pa.ArrowInvalid:
            return pa.ipc.open_file(file).schema


def _local(file: str) -> Path | None:
    """Where a file is on this disk; `None` if it is not."""
    if on_hub := re.fullmatch(r"hf://datasets/([^@]+)@([^/]+)/(.+)", file):
        repo_id, revision, path = on_hub.groups()
        cached = try_to_load_from_cache(repo_id, path, revision=unquote(revision), repo_type="dataset")
        return Path(cached) if isinstance(cached, str) else None
    return Path(file) if Path(file).is_file() else None
