"""What a command prints while it works: our own sentences. These and what libraries say are kept in `run.log`."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ..publishing.files import LOG_FILE, LOG_HEAD

_LIBRARIES = ("accelerate", "datasets", "diffusers", "huggingface_hub", "transformers")

# Records wait until it is known which folder is the run's.
_WAITING = 10_000
_log = MemoryHandler(_WAITING, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

# What moves a terminal's cursor, changes its title or turns text around, and halves of letters that can't be written.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class _Shown(logging.Filter):
    """What of all records is printed: ours, and errors of others."""

    everything = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether one is."""
        is_ours = record.name.startswith("hf_lgm") and record.levelno >= logging.INFO
        return self.everything or is_ours or record.levelno >= logging.ERROR


_shown = _Shown()


def printable(text: str) -> str:
    """Names, labels and errors may hold a stranger's words: what would steer the terminal is shown by its number."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str, file: TextIO | None = None) -> None:
    """Print what a command found, if not to standard output then to a file."""
    print(printable(text), file=file)


class _Printable(logging.Formatter):
    """Records as they may be printed, and kept in a file that is printed later."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or as many as the record has."""
        return printable(super().format(record))


class _Terminal(logging.Handler):
    """Standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line, or as many as the record has."""
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def speaking() -> Iterator[None]:
    """Print what this process has to say, as long as it lasts: of several only the first speaks, but for errors."""
    terminal = _Terminal(logging.DEBUG if is_first() else logging.ERROR)
    terminal.addFilter(_shown)
    terminal.setFormatter(_Printable())
    root, ours = logging.getLogger(), logging.getLogger("hf_lgm")
    ours.setLevel(logging.DEBUG)  # all of it goes to the log
    for handler in (terminal, _log):
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in (terminal, _log):
            root.removeHandler(handler)
        _close_log()
        _log.buffer.clear()  # of a command without a log
        logging.captureWarnings(False)
        _shown.everything = False


def show_everything() -> None:
    """Print what libraries say too, and leave them their progress bars."""
    _shown.everything = True


def quieten_libraries() -> None:
    """Send what libraries say to the log alone, and hide their bars but those of downloads. Loads them."""
    if _shown.everything:
        return
    import datasets
    import huggingface_hub
    import transformers

    logging.captureWarnings(True)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # loaded later, if at all
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()


def keep_log(folder: str | Path) -> None:
    """Write all records of a command, those that wait too, to the end of a run's own log."""
    if not is_first() or _log not in logging.getLogger().handlers:
        return
    path = Path(folder) / LOG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(LOG_HEAD, encoding="utf-8")
    _close_log()  # of several runs each has its own
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(_Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _log.setTarget(file)
    _log.capacity = 1  # from now on each is written at once
    _log.flush()


def _close_log() -> None:
    """Let go of the file, if there is one."""
    if isinstance(_log.target, logging.FileHandler):
        _log.flush()
        _log.target.close()
    _log.setTarget(None)
    _log.capacity = _WAITING


def is_first() -> bool:
    """Whether this is the first of the processes that were started together."""
    return os.environ.get("RANK", "0") == "0"
