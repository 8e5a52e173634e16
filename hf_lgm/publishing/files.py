"""The files that a set consists of: their names, fetching them from the Hub, reading and writing them."""

import json
import shutil
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
TIMELAPSE_FILE, VIDEO_FILE = "timelapse.gif", "timelapse.mp4"
LOG_FILE = "run.log"  # of a command; stays here
LOG_HEAD = "# What a run of hf_lgm said\n"
CARD_FILE = "README.md"
PUBLISHED_FILES = (CARD_FILE, DATA_FILE, PREVIEW_FILE, CONFIG_FILE, RESULTS_FILE)
DETAILS_FILE, TABLE_FILE = "details.json", "table.md"  # of a table, with RESULTS_FILE
TRANSFER_FILE, TRANSFER_FIGURE = "transfer.json", "transfer.png"
ANALYSIS_FILE, ANALYSIS_PAGE = "analysis.json", "analysis.md"  # with plots, which the first one names
COMPARISON_FILE = "comparison.png"  # shows real images, so it is published only when asked for

# What a stranger's repository may make us read.
MAX_BYTES = {DATA_FILE: 2**33, CONFIG_FILE: 2**26, RESULTS_FILE: 2**26}
MAX_FIGURE_BYTES = 2**26
_MAX_DEPTH = 100  # of brackets in brackets


def fetch_files(
    name: str,
    revision: str | None,
    token: str | None,
    repo_type: str = "dataset",
    limits: dict[str, int] = MAX_BYTES,
) -> Path:
    """The files of a set or a probe on the Hub, in the cache.

    Args:
        name (`str`): Hub id.
        revision (`str`, *optional*): Branch, tag or commit.
        token (`str`, *optional*): Access token.
        repo_type (`str`, *optional*, defaults to `"dataset"`): Or `"model"`.
        limits (`dict[str, int]`, *optional*): The files, and how many bytes each may have.

    Raises:
        HubError: If they can't be had; the message says what to do.
        ValueError: If one is larger. It is not downloaded then.
    """
    cached = must_use_cache(name, repo_type, "sets" if repo_type == "dataset" else None)
    where: dict[str, Any] = {"repo_type": repo_type, "revision": revision}
    try:
        if not cached:
            info: Any = HfApi(token=token).repo_info(name, **where, files_metadata=True)
            for file in info.siblings or []:
                _check_size(name, file.rfilename, file.size or 0, limits)
        return Path(snapshot_download(name, **where, token=token, allow_patterns=[*limits], local_files_only=cached))
    except (HTTPError, OSError) as error:
        at = f" at revision '{revision}'" if revision else ""
        what = f"The set '{name}'" if repo_type == "dataset" else f"'{name}'"
        raise HubError(f"{what}{at} can't be fetched: {explain(error, name, repo_type, 'read')}") from error


def check_files(name: str, folder: Path, limits: dict[str, int] = MAX_BYTES) -> None:
    """Refuse files that are too large, or are links to what is not in the folder: they would be read from there.

    Args:
        name (`str`): What messages call the folder.
        folder (`Path`): The folder.
        limits (`dict[str, int]`, *optional*): The files, and how many bytes each may have.

    Raises:
        ValueError: If there is one.
    """
    for file in limits:
        if not (folder / file).is_file():
            continue
        if not lies_in(folder / file, folder):
            raise ValueError(f"{file} of '{name}' is a link to a file elsewhere: copy that file into the folder.")
        _check_size(name, file, (folder / file).stat().st_size, limits)


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a file is in a folder when links are followed; in the Hub's cache these lead to the folder `blobs`."""
    place, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs"
    return place.is_relative_to(home) or (home.parent.name == "snapshots" and place.is_relative_to(blobs))


def _check_size(name: str, file: str, size: int, limits: dict[str, int]) -> None:
    if size > limits.get(file, size):
        raise ValueError(f"{file} of '{name}' has {size:,} bytes: expected at most {limits[file]:,}.")


def read_json(path: Path, kind: type) -> Any:
    """What a file holds, if it holds such a thing; empty where there is none."""
    if not path.is_file():
        return kind()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is no JSON that can be read: {first_line(error)}. Is the file whole?"
        ) from error
    if not isinstance(found, kind):
        raise ValueError(f"{path.name} holds a {type(found).__name__} where a {kind.__name__} was expected.")
    if why := _can_not_be_written(found):
        raise ValueError(f"{path.name} holds {why}, which can't be written again. Is the file whole?")
    return found


def _can_not_be_written(value: Any) -> str | None:
    """What in a value of JSON is half a character, one of a pair alone, or too deep; `None` for nothing."""
    level, depth = [value], 0
    while level and depth <= _MAX_DEPTH:
        holders = [one for one in level if isinstance(one, (dict, list))]
        keys = [key for one in holders if isinstance(one, dict) for key in one]
        try:
            "".join([*keys, *(one for one in level if isinstance(one, str))]).encode()
        except UnicodeEncodeError:
            return "half a character"
        level = [item for one in holders for item in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return f"more than {_MAX_DEPTH} brackets in brackets" if level else None


def write_json(path: Path, value: Any) -> None:
    """Write what `read_json` reads, under another name until it is whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_file(source: Path, path: Path) -> None:
    """Copy a file over another, which is whole at any time."""
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)
