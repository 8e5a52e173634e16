"""One run in a folder at a time: a file says which process holds it."""

import json
import logging
import os
import signal
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from huggingface_hub.utils import WeakFileLock

from ..processes import Process
from ..whole_files import replacing

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"

# How often the holder touches its lock, and after what time without that the holder of another machine counts as gone:
# seconds, by the clock of the disk.
_TOUCHED_EVERY, GONE_AFTER = 30.0, 600.0

# What ends a process without a word, unless it is asked first.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

# How often this process has taken each lock that it holds.
_held: dict[Path, int] = {}


@dataclass(frozen=True)
class Holder:
    """Who holds a folder.

    Args:
        process ([`Process`]): The process.
        since (`str`): Date and time.
    """

    process: Process
    since: str

    @property
    def is_this_process(self) -> bool:
        """Whether it is the one that asks."""
        return self.process == Process.this()

    @classmethod
    def read(cls, path: Path) -> "Holder | None":
        """Who holds a lock; `None` where nobody does.

        Raises:
            FileExistsError: If a file of that name is something else.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(Process(**found["process"]), found["since"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, LookupError) as error:
            raise FileExistsError(f"{path} is no lock of ours: remove it if no run is on there.") from error


class RunLock:
    """Holds a folder for this process while a block runs; may be taken by it again within.

    A lock of a process of this machine that does not run any more is taken over, and one of another machine that was
    not touched for `GONE_AFTER` seconds. The holder's thread touches it while its process lives.

    Args:
        folder (`str` or `Path`): The folder; it is created, and removed again if nothing comes into it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = Path(folder).absolute() / LOCK_FILE
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def check_free(self) -> None:
        """Refuse a folder that another process holds.

        Raises:
            FileExistsError: If one does; the message says which, and since when.
        """
        if (holder := Holder.read(self.path)) is None or holder.process.is_gone or holder.is_this_process:
            return
        process, advice = holder.process, ""
        if not process.is_here:
            if (age := self._age()) > GONE_AFTER:
                logger.warning(
                    "%s of process %d on %s was not touched for %.0f minutes: it is taken over",
                    self.folder / LOCK_FILE, process.pid, process.host, age / 60,
                )  # fmt: skip
                return
            minutes = max(1, round((GONE_AFTER - age) / 60))
            advice = (
                f" If it does not run any more, the folder is free in {minutes} minutes, or once "
                f"{self.folder / LOCK_FILE} is removed."
            )
        raise FileExistsError(
            f"output_dir: {self.folder} is in use by process {process.pid} on {process.host} since {holder.since}: "
            f"wait for it, stop it, or choose another output_dir.{advice}"
        )

    def acquire(self) -> None:
        """Take it.

        Raises:
            FileExistsError: If another process holds it.
        """
        if self.path not in _held:
            self._take()
        _held[self.path] = _held.get(self.path, 0) + 1

    def release(self) -> None:
        """Let go of it, where it was taken first."""
        _held[self.path] -= 1
        if not _held[self.path]:
            self._give_back()

    def check_held(self) -> None:
        """Take it again where somebody has removed the folder, and say so.

        Raises:
            FileExistsError: If another process has taken it since.
        """
        if (holder := Holder.read(self.path)) is not None:
            return None if holder.is_this_process else self.check_free()
        logger.warning(
            "output_dir: %s was removed while this run is on: what was in it is lost, what comes now is written there",
            self.folder,
        )
        self._write()

    def _age(self) -> float:
        """Seconds since the lock was touched: both times are the disk's, which may be another machine's."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f".{LOCK_FILE}") as now:
                return os.stat(now.name).st_mtime - self.path.stat().st_mtime
        except OSError:  # a disk that can't be written says so when it is
            return 0.0

    def _keep_touching(self, ended: threading.Event) -> None:
        while not ended.wait(_TOUCHED_EVERY) and self.path in _held:
            with suppress(OSError):  # removed, or the disk is away: `check_held` says so
                os.utime(self.path)

    def _take(self) -> None:
        self._write()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_touching, args=[self._ended], name="hf_lgm-run-lock", daemon=True).start()
        if threading.current_thread() is threading.main_thread():
            for signum in _ENDING:
                if signal.getsignal(signum) == signal.SIG_DFL:
                    self._before[signum] = signal.signal(signum, self._give_back_and_end)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self.path.with_name(f".{LOCK_FILE}")):  # while it is looked at and written
            self.check_free()
            with replacing(self.path) as temporary:
                holder = Holder(Process.this(), f"{datetime.now():%Y-%m-%d %H:%M:%S}")
                temporary.write_text(json.dumps(asdict(holder), indent=2), encoding="utf-8")

    def _give_back(self) -> None:
        self._ended.set()
        _held.pop(self.path, None)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        with suppress(OSError, ValueError):  # the disk may be gone
            if (holder := Holder.read(self.path)) and holder.is_this_process:
                self.path.unlink()
            self.path.with_name(f".{LOCK_FILE}").unlink(missing_ok=True)
            self.folder.rmdir()  # if it is empty

    def _give_back_and_end(self, signum: int, frame: FrameType | None) -> None:
        self._give_back()
        os.kill(os.getpid(), signum)
