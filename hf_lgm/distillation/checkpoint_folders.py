"""The checkpoints in a folder: which are ours, which are whole, which one a run goes on from, and removing them.

A checkpoint is there under its name from one moment to the next, and is gone likewise: it is written and removed under
names that nobody reads. Beside its files lie their checksums, so that damage is noticed.
"""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..whole_files import sha256_of

logger = logging.getLogger(__name__)

_PREFIX = "checkpoint-"
FILES = TENSORS, STATE, RUN = "synthetic.safetensors", "trainer_state.json", "run.json"
CHECKSUMS = "checksums.json"

# How to begin anew, for whoever calls from Python or from a command.
GIVE_UP = "give the run there up: distiller.remove_earlier_run(), or overwrite in a command"


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    """Where the checkpoint of a step belongs."""
    return Path(output_dir) / f"{_PREFIX}{step}"


def write_checksums(folder: Path) -> None:
    """Write down what the files of a checkpoint hold."""
    sums = {name: sha256_of(folder / name) for name in FILES}
    (folder / CHECKSUMS).write_text(json.dumps({"files": sums, "sha256": _digest(sums)}, indent=2))


def damage_of(folder: Path) -> str | None:
    """Which file of a checkpoint is not as it was written; `None` if it is whole, as far as is known.

    Earlier versions wrote no checksums.

    Raises:
        OSError: If a file can't be read, which says nothing of what is in it.
    """
    if not (folder / CHECKSUMS).is_file():
        return f"{CHECKSUMS} is missing" if _has_checksums(folder) else None
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        is_sound = set(sums["files"]) == {*FILES} and sums["sha256"] == _digest(sums["files"])
    except (ValueError, TypeError, LookupError, RecursionError):
        is_sound = False
    if not is_sound:
        return f"{CHECKSUMS} is not as it was written"
    for name, expected in sums["files"].items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of(folder / name) != expected:
            return f"{name} is not as it was written"
    return None


def is_ours(folder: Path) -> bool:
    """Whether a folder is one of our checkpoints, by what is in it: other trainers' are called the same.

    Also one that is damaged, that an earlier version has half removed, or of which nothing but hidden files is left.
    A link may lead into another run.
    """
    if folder.is_symlink():
        return False
    checksums = _json_of(folder / CHECKSUMS)
    if isinstance(checksums, dict) and isinstance(files := checksums.get("files"), dict) and TENSORS in files:
        return True
    if not (folder / RUN).exists():
        return not any(not path.name.startswith(".") for path in folder.glob("*"))
    run = _json_of(folder / RUN)
    return isinstance(run, dict) and "identity" in run


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, whole or damaged, and not one that an earlier version has half removed."""
    written = (folder / CHECKSUMS).is_file() or _has_checksums(folder)
    return is_ours(folder) and (written or ((folder / TENSORS).is_file() and (folder / RUN).is_file()))


def named_checkpoints(output_dir: str | Path) -> list[Path]:
    """Whatever in a folder is called as checkpoints are, anybody's, oldest first."""
    found = [path for path in Path(output_dir).glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def all_checkpoints(output_dir: str | Path) -> list[Path]:
    """Our checkpoints in a folder, oldest first."""
    return [path for path in named_checkpoints(output_dir) if is_checkpoint(path)]


def whole_checkpoints(output_dir: str | Path) -> list[Path]:
    """Those of them that are as they were written, oldest first. Reads all of them."""
    return [path for path in all_checkpoints(output_dir) if damage_of(path) is None]


def put_aside(folder: Path) -> Path:
    """Give a checkpoint a name that nobody reads; returns that."""
    aside = folder.with_name(f".{folder.name}.removed")
    if aside.exists():
        clear(aside)
    return folder.rename(aside)


def clear(aside: Path) -> None:
    """Remove our files in a folder of a hidden name; what somebody else has put there goes back where it was."""
    for name in (*FILES, CHECKSUMS):
        (aside / name).unlink(missing_ok=True)
    home = aside.with_name(aside.name[1:].rpartition(".")[0])
    for path in list(aside.iterdir()):
        home.mkdir(exist_ok=True)
        if not (home / path.name).exists():
            path.rename(home / path.name)
    with suppress(OSError):
        aside.rmdir()


def remove_checkpoint(folder: Path) -> None:
    """Remove the files that we wrote, and the folder if nothing else is in it: from one moment to the next."""
    if folder.exists():
        clear(put_aside(folder))


def remove_leftovers(output_dir: str | Path) -> None:
    """Remove what killed runs have left half written or half removed."""
    for path in named_checkpoints(output_dir):
        if is_ours(path) and not is_checkpoint(path):  # by earlier versions
            remove_checkpoint(path)
    for ending in ("tmp", "removed"):
        for path in Path(output_dir).glob(f".{_PREFIX}*.{ending}"):
            clear(path)


def remove_old_checkpoints(output_dir: str | Path, keep: int | None) -> None:
    """Leave the newest `keep`; all of them where it is `None`."""
    remove_leftovers(output_dir)
    if keep:
        for folder in all_checkpoints(output_dir)[:-keep]:
            remove_checkpoint(folder)


def remove_later_checkpoints(output_dir: str | Path, step: int) -> None:
    """Remove what a run that goes on from `step` will write anew."""
    for folder in all_checkpoints(output_dir):
        if int(folder.name.removeprefix(_PREFIX)) > step:
            remove_checkpoint(folder)


def checkpoint_to_resume(output_dir: str | Path, wanted: str | Path | bool | None) -> Path | None:
    """The checkpoint that a run goes on from, a whole one; `None` for a run that begins.

    Args:
        output_dir (`str` or `Path`): Where the run's own are.
        wanted (`str`, `Path` or `bool`, *optional*): A checkpoint's folder, or `True` or `"auto"` for the newest one
            that is whole: what is made again from there has the same bits.

    Raises:
        ValueError: If `output_dir` has checkpoints and `wanted` is not given, or is one of another folder; or if it is
            damaged, or all are.
    """
    found = all_checkpoints(output_dir)
    if wanted in (True, "auto"):
        return _newest_whole(output_dir, found)
    if found and not wanted:
        raise ValueError(
            f"{output_dir}: found {found[-1].name}: resume_from_checkpoint=True goes on there; or choose another "
            f"output_dir, or {GIVE_UP}."
        )
    if found and wanted and Path(str(wanted)).resolve().parent != Path(output_dir).resolve():
        raise ValueError(
            f"{output_dir}: found {found[-1].name}, of another run than {wanted}: choose another output_dir, or "
            f"{GIVE_UP}."
        )
    if not wanted:
        return None
    check_whole(Path(str(wanted)))
    return Path(str(wanted))


def check_whole(folder: Path) -> None:
    """Refuse what is no checkpoint, or a damaged one.

    Raises:
        FileNotFoundError: If it is none.
        ValueError: If a file is not as it was written; the message names it, and a checkpoint that is whole.
    """
    if not is_checkpoint(folder):
        raise FileNotFoundError(f"resume_from_checkpoint: '{folder}' is no checkpoint; expected {TENSORS} in it.")
    if damage := damage_of(folder):
        others = [path for path in whole_checkpoints(folder.parent) if path != folder]
        whole = f"{others[-1]} is whole: give that" if others else f"No other there is whole: {GIVE_UP}"
        raise ValueError(f"resume_from_checkpoint: '{folder}' is damaged ({damage}). {whole}.")


def _newest_whole(output_dir: str | Path, found: list[Path]) -> Path | None:
    """The newest whole one of these. Begins nothing anew where there were some: what is damaged may be mended.

    Raises:
        ValueError: If all are damaged.
    """
    damaged: dict[str, str] = {}
    for folder in reversed(found):
        if (damage := damage_of(folder)) is None:
            for name, why in damaged.items():
                logger.warning("%s is damaged (%s): going on from %s, with the same bits", name, why, folder.name)
            return folder
        damaged[folder.name] = damage
    if damaged:
        named = "; ".join(f"{name} ({why})" for name, why in damaged.items())
        raise ValueError(f"{output_dir}: no checkpoint is whole: {named}. Bring one back from a copy, or {GIVE_UP}.")
    return None


def _has_checksums(folder: Path) -> bool:
    """Whether a checkpoint says that there are checksums beside it."""
    run = _json_of(folder / RUN)
    return isinstance(run, dict) and bool(run.get("has_checksums"))


def _digest(sums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _json_of(path: Path) -> Any:
    """What a file holds; `None` where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
