"""Files that are whole or not there, with what is needed to see that they are still as they were written."""

import errno
import filecmp
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import Process

if TYPE_CHECKING:
    import torch

# Who writes a file that is not whole yet; and how earlier versions called it.
_WRITER = re.compile(r"\.(?P<pid>\d+)-(?P<started>\d*)-(?P<space>\d*)-[0-9a-f]{8}@(?P<host>.+)\.tmp")
_FORMER = re.compile(r"\.[0-9a-f]{32}\.tmp")

# After it nobody of another machine, or of an earlier version, still writes.
_SECONDS = 24 * 3600


def temporary_name(name: str) -> str:
    """Another name for a file until it is whole, which says who writes it."""
    own = Process.this()
    return f".{name}.{own.pid}-{own.started}-{own.space}-{uuid.uuid4().hex[:8]}@{own.host}.tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`: it goes there at the end, and away where that fails."""
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the disk may be gone
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_together(folder: Path, key: str, first: str) -> Iterator[Path]:
    """Where to write files that belong together, and go to a folder at the end.

    A kill leaves those that were there, or the new ones, or no file `key`; never that of one beside others of another.

    Args:
        folder (`Path`): Where they go.
        key (`str`): Without this file the others mean nothing; it comes last.
        first (`str`): The file that comes first.
    """
    remove_abandoned(folder)
    temporary = folder / temporary_name(folder.resolve().name[:50])
    try:
        temporary.mkdir()
        yield temporary
        if (folder / key).exists() and not filecmp.cmp(temporary / key, folder / key, shallow=False):
            (folder / key).unlink()
        names = [str(path.relative_to(temporary)) for path in temporary.rglob("*") if path.is_file()]
        for name in sorted(names, key=lambda name: (name == key, name != first, name)):
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(temporary / name, folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes have left half written, unless somebody may still write it."""
    for path in folder.glob("*.tmp"):
        if _is_abandoned(path):
            with suppress(OSError):  # another process was faster
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def sha256_of(path: Path) -> str:
    """A digest of what a file holds."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def save_tensors(tensors: "dict[str, torch.Tensor]", path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a file of safetensors; a fault of the disk is the error that it is for any other file.

    Raises:
        OSError: If it can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if not (found := re.search(r"os error (\d+)", str(error))):
            raise OSError(errno.EIO, str(error), str(path)) from error
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def _is_abandoned(path: Path) -> bool:
    try:
        is_old = time.time() - path.stat().st_mtime > _SECONDS
    except FileNotFoundError:
        return False
    if not (found := _WRITER.search(path.name)):
        return is_old and bool(_FORMER.search(path.name))
    writer = Process(found["host"], int(found["pid"]), found["started"], found["space"])
    return writer.is_gone or (is_old and not writer.is_here)
