"""The files that a set consists of: their names, fetching them from the Hub, reading and writing them."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HTTPError

from ..hub import HubError, explain, first_line, must_use_cache
from ..whole_files import replacing

CONFIG_FILE = "lgm_config.json"

# Everything that a set consists of; what else lies in its folder is never read or published.
DATA_FILE = "data/train-00000-of-00001.parquet"
RESULTS_FILE = "results.json"
PREVIEW_FILE = "preview.png"
TIMELAPSE_FILE = "timelapse.gif"
LOG_FILE = "run.log"  # of a command; stays here
LOG_HEAD = "# What a run of hf_lgm said\n"
CARD_FILE = "README.md"
PUBLISHED_FILES = (CARD_FILE, DATA_FILE, PREVIEW_FILE, CONFIG_FILE, RESULTS_FILE)
DETAILS_FILE, TABLE_FILE = "details.json", "table.md"  # of a table, with RESULTS_FILE
TRANSFER_FILE, TRANSFER_FIGURE = "transfer.json", "transfer.png"
COMPARISON_FILE = "comparison.png"  # shows real images, so it is published only when asked for

# What a stranger's repository may make us read.
MAX_BYTES = {DATA_FILE: 2**33, CONFIG_FILE: 2**26, RESULTS_FILE: 2**26}


def fetch_files(name: str, revision: str | None, token: str | None) -> Path:
    """The files of a set on the Hub, in the cache."""
    cached = must_use_cache(name, "dataset", "sets")
    where: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    try:
        if not cached:
            info = HfApi(token=token).dataset_info(name, revision=revision, files_metadata=True)
            for file in info.siblings or []:
                if (file.size or 0) > MAX_BYTES.get(file.rfilename, file.size or 0):
                    raise ValueError(f"'{name}' is not a distilled set: {file.rfilename} has {file.size:,} bytes.")
        files = list(MAX_BYTES)
        return Path(snapshot_download(name, **where, token=token, allow_patterns=files, local_files_only=cached))
    except (HTTPError, OSError) as error:
        at = f" at revision '{revision}'" if revision else ""
        raise HubError(f"The set '{name}'{at} can't be fetched: {explain(error, name, 'dataset', 'read')}") from error


def read_json(path: Path, kind: type) -> Any:
    """What a file holds, if it holds such a thing; empty where there is none."""
    if not path.is_file():
        return kind()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON that can be read: {first_line(error)}. Is the set whole?") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path.name} holds a {type(found).__name__} where a {kind.__name__} was expected.")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write what `read_json` reads, under another name until it is whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
