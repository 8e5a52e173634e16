"""Sets as a stranger may write them, and a watch on what is opened, asked and started while they are read."""

import copy
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


def write_rows(folder, columns: dict, arrow_types=None, features=None, only_rows=False) -> Path:
    """A set in a folder whose parquet file has these columns and says these features of them.

    Args:
        folder: Where to.
        columns: Lists by name; `image` and `label` where not given.
        arrow_types: Types of columns that are not those of a set.
        features: What the file says of its columns, over what is usual.
        only_rows: Whether the other files are there already.
    """
    if not only_rows:
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


# What the JSON files of a set hold.
CONFIG = {
    "artifact": "distilled set",
    "training_set": "distilled",
    "command": "distill.py --model user/model",
    "settings": {
        "images_per_class": 2, "init": "noise", "flip": True, "crop_scale": [0.08, 1.0], "objective": "lgm",
        "parameterization": "pyramid", "probe_std": 0.01, "seed": 42, "learning_rate": 0.02, "vae": None,
    },
    "changed_settings": ["images_per_class"],
    "backbone": {
        "name": "user/model@16", "architecture": "Dinov2Model", "revision": None, "pooling": "pooler",
        "feature_size": 24, "image_size": 16, "resize_ratio": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    },
    "more_backbones": [{"name": "other", "revision": "0123456789abcdef"}],
    "source": {
        "dataset": "user/data", "name": "data", "config": "default", "split": "train", "eval_split": "test",
        "license": "other", "license_name": "own", "license_link": "https://own", "license_declared_by": "source",
        "revision": "0123456789abcdef", "num_images": 24, "gated": False, "label_column_name": "label",
    },
    "baseline": {"kind": "random", "seed": 1},
    "run": {"steps": 2, "seconds": 1.5, "device": "cpu", "processes": 1},
    "versions": {"hf_lgm": "0.2.0"},
}  # fmt: skip
ROW = {"training_set": "distilled", "backbone": "user/model@16", "protocol": "probe", "mean": 88.2, "std": 0.9}
RESULTS = [
    {**ROW, "metric": "top-1", "n_seeds": 5},
    {**ROW, "metric": "top-1", "n_seeds": 5, "training_set": "random real images"},
    {**ROW, "metric": "top-1", "n_seeds": 1, "training_set": "nearest class mean"},
]
INFO = {
    "features": make_set().dataset.features._to_yaml_list(),
    "num_examples": 6,
    "num_classes": 3,
    "num_bytes": 100,
    "download_size": 90,
}


def places(value, above=()):
    """The way to each value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*above, key)
        yield from places(value[key], (*above, key))


def replaced(value, way, new):
    """A copy in which another value stands at the end of a way."""
    value = copy.deepcopy(value)
    holder = value
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = new
    return value


# What breaks out of code, Markdown, HTML, YAML or a template, where it is printed as it is.
HOSTILE = [
    '"); import os; os.system("touch pwned"); ("',
    "'); import os; os.system('touch pwned'); ('",
    "\\",
    '\\"); pwned(); ("',
    "user/data\n```\n\n<script>window.pwned = 1</script>\n\n```python\npwned()",
    "`````\n# pwned",
    "~~~\n# pwned",
    "a`b``c```d",
    "a | b \\| c",
    "a \\",
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<!-- hidden",
    "<https://pwned.example>",
    "x](javascript:window.pwned=1)",
    "![x](https://pwned.example/x.png)",
    "[x]: https://pwned.example",
    "[^1]",
    "javascript:window.pwned=1",
    "data:text/html,<script>window.pwned=1</script>",
    "https://pwned.example/)[x](javascript:window.pwned=1)",
    "www.pwned.example",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "&#106;avascript:x",
    "{{ 7 * 7 }}{% for x in y %}{# z",
    "${7*7}",
    "---\npwned: true\n---",
    "---",
    "- pwned",
    "1. pwned",
    "# pwned",
    "> pwned",
    "===",
    "    pwned()",
    "key: value",
    "!!python/object/apply:os.system ['touch pwned']",
    "*a* **b** _c_ ~~d~~",
    "\x1b[31mred\x07\x00",
    "\u202egnp.exe",
    "a\u2028b\x85c\rd",
    "user/data@16); import os; (",
    "../../pwned",
    "",
    " ",
]
