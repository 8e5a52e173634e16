"""The folder that results go to: whose it is, and removing no more of it than what is ours.

What is ours is told by what is in a file, never by its name alone: other trainers write `checkpoint-500` too.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..publishing.files import (
    ANALYSIS_FILE,
    COMPARISON_FILE,
    CONFIG_FILE,
    DATA_FILE,
    DETAILS_FILE,
    LOG_FILE,
    LOG_HEAD,
    PREVIEW_FILE,
    PUBLISHED_FILES,
    RESULTS_FILE,
    TABLE_FILE,
    TIMELAPSE_FILE,
    TRANSFER_FIGURE,
    TRANSFER_FILE,
    VIDEO_FILE,
)
from ..publishing.timelapse import is_ours as is_our_timelapse
from ..whole_files import remove_abandoned
from . import checkpoint_folders
from .checkpoint_folders import all_checkpoints, is_ours, named_checkpoints, remove_checkpoint

SET_FILES = (*PUBLISHED_FILES, COMPARISON_FILE, TIMELAPSE_FILE, VIDEO_FILE, LOG_FILE)
TABLE_FILES = (TABLE_FILE, RESULTS_FILE, DETAILS_FILE, TRANSFER_FILE, TRANSFER_FIGURE, COMPARISON_FILE)
PROBE_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "head.safetensors")
_FRAMES = "runs/frames"


def check_is_ours(folder: str | Path, written: Sequence[str] = SET_FILES) -> None:
    """Refuse a folder in which somebody else's files are where ours would go, or that can't be written to.

    Args:
        folder (`str` or `Path`): Where results are to go; it need not be there.
        written (`Sequence[str]`, *optional*): The files that will be written.

    Raises:
        FileExistsError: If it holds such files; the message names one.
        PermissionError: If it can't be written to.
    """
    folder = Path(folder)
    foreign = [path.name for path in named_checkpoints(folder) if not is_ours(path)]
    foreign += [name for name in written if (folder / name).exists() and name not in _our_files(folder)]
    if foreign:
        raise FileExistsError(
            f"{folder} holds {foreign[0]}, which is not of a run of hf_lgm: choose another output_dir. Nothing was "
            "removed."
        )
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PermissionError(f"output_dir: {folder} can't be written, because of {nearest}: choose another one.")


def check_room(folder: str | Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder (`str` or `Path`): Where it would go; it need not be there.
        needed (`int`): Bytes.

    Raises:
        OSError: If there is less.
    """
    folder = Path(folder).absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if free < needed:
        raise OSError(
            f"output_dir: {folder} has {free / 2**20:,.0f} MB of room, and checkpoints and images need about "
            f"{needed / 2**20:,.0f} MB: choose another disk, or a smaller save_total_limit."
        )


def earlier_run(folder: str | Path) -> str | None:
    """What is left of an earlier run in a folder: its images or its last checkpoint; `None` for nothing."""
    if (Path(folder) / DATA_FILE).exists():
        return DATA_FILE
    return next((path.name for path in reversed(all_checkpoints(folder))), None)


def remove_earlier_run(folder: str | Path) -> None:
    """Remove the files of an earlier run, and nothing else.

    Raises:
        FileExistsError: If what is there is somebody else's.
    """
    folder = Path(folder)
    check_is_ours(folder)
    for path in all_checkpoints(folder):
        remove_checkpoint(path)
    remove_leftovers(folder)
    remove_frames(folder)
    others = [name for name in SET_FILES if name not in (DATA_FILE, CONFIG_FILE)]
    for name in (DATA_FILE, *others, CONFIG_FILE):  # without the first it is no set; the last says that all is ours
        (folder / name).unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed runs have left half written or half removed, of this folder's holder."""
    folder = Path(folder)
    checkpoint_folders.remove_leftovers(folder)
    for place in (folder, folder / DATA_FILE.partition("/")[0]):
        remove_abandoned(place)


def frame_folder(folder: str | Path | None) -> Path:
    """Where the frames of the time-lapse are."""
    return Path(folder or "") / _FRAMES


def frames(folder: str | Path | None) -> list[Path]:
    """The frames of the time-lapse, in their order."""
    return sorted(path for path in frame_folder(folder).glob("*.png") if re.fullmatch(r"\d{6,}", path.stem))


def remove_frames(folder: str | Path | None, after: int = -1) -> None:
    """Remove the frames of all steps, or of those after one; and the folder, where nothing else is in it."""
    for path in frames(folder):
        if int(path.stem) > after:
            path.unlink()
    with contextlib.suppress(OSError):  # is not empty, or not there
        frame_folder(folder).rmdir()
        frame_folder(folder).parent.rmdir()


def _our_files(folder: Path) -> set[str]:
    """Names in a folder that are ours, as what is beside them tells: a set's, a table's and so on."""
    config, rows, analysis = (_json_of(folder / name) for name in (CONFIG_FILE, DETAILS_FILE, ANALYSIS_FILE))
    found: set[str] = set()
    if isinstance(config, dict) and "dataset_info" in config:
        found |= {*SET_FILES} - {LOG_FILE}
    if isinstance(config, dict) and config.get("artifact") == "probe":
        found |= {*PROBE_FILES, *PUBLISHED_FILES}
    if isinstance(rows, list) and rows and all(isinstance(row, dict) and "training_set" in row for row in rows):
        found |= set(TABLE_FILES)
    if isinstance(analysis, dict) and analysis.get("artifact") == "analysis":
        found |= {ANALYSIS_FILE, *map(str, analysis.get("files", []))}
    if all_checkpoints(folder) or frames(folder) or is_our_timelapse(folder / TIMELAPSE_FILE):
        found |= {PREVIEW_FILE, TIMELAPSE_FILE, VIDEO_FILE}  # come before the set itself
    if _begins_with(folder / LOG_FILE, LOG_HEAD):
        found.add(LOG_FILE)
    return found


def _begins_with(path: Path, text: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(text.encode())) == text.encode()


def _json_of(path: Path) -> Any:
    """What a file holds; `None` where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
