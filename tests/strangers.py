"""Sets as a stranger may write them, and a watch on what is opened, asked and started while they are read."""

import io
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sets import make_set

PRIVATE = "private"  # in the path of whatever may not be opened
STORED = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_SEEN: list[tuple[str, str]] = []
_WATCHED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_is_on = False


def _hook(event, args):
    if _is_on and (event in _WATCHED or (event == "open" and PRIVATE in str(args[0]))):
        _SEEN.append((event, str(args[:2])))


@contextmanager
def watch():
    """What is opened of the private files, asked of the network, or started, within."""
    global _is_on
    if _hook not in _INSTALLED:
        sys.addaudithook(_hook)
        _INSTALLED.append(_hook)
    _SEEN.clear()
    _is_on = True
    try:
        yield _SEEN
    finally:
        _is_on = False


_INSTALLED: list = []


def png(side=8, colour="black", size=None) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size or (side, side), colour).save(data, "PNG")
    return data.getvalue()


def stored(count=3, data=None):
    """Images as `datasets` stores them."""
    return [{"bytes": data or png(), "path": None} for _ in range(count)]


def write_rows(folder, columns: dict, arrow_types=None, features=None) -> Path:
    """A set in a folder whose parquet file has these columns and says these features of them.

    Args:
        folder: Where to.
        columns: Lists by name; `image` and `label` where not given.
        arrow_types: Types of columns that are not those of a set.
        features: What the file says of its columns, over what is usual.
    """
    make_set(3).save_pretrained(folder)
    columns = {"image": stored(), "label": [0, 1, 2], **columns}
    columns = {name: values for name, values in columns.items() if values is not None}
    types = {"image": STORED, "label": pa.int64(), "source_index": pa.int64(), **(arrow_types or {})}
    said = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]},
        "source_index": {"_type": "Value", "dtype": "int64"},
        "soft_label": {"_type": "List", "feature": {"_type": "Value", "dtype": "float32"}, "length": 3},
        **(features or {}),
    }
    said = {name: kind for name, kind in said.items() if name in columns and kind is not None}
    arrays = {name: pa.array(values, type=types.get(name)) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": said}})})
    pq.write_table(table, Path(folder) / "data/train-00000-of-00001.parquet")
    return Path(folder)
