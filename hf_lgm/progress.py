"""How far a long piece of work is: a bar where somebody looks, a line a minute where it is written down."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as shown_bar

_SECONDS = 60


def progress(iterable: Iterable[Any] | None = None, **kwargs: Any) -> tqdm:
    """A bar of tqdm's on a terminal and in a notebook; elsewhere, as in a file, a line a minute.

    Args:
        iterable (`Iterable`, *optional*): What is gone through.
        kwargs (*optional*): Of `tqdm.tqdm`: `total`, `desc`, `unit`, `disable`.
    """
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return shown_bar(iterable, dynamic_ncols=True, **kwargs)
    return _Lines(iterable, mininterval=_SECONDS, maxinterval=_SECONDS, **kwargs)


class _Lines(tqdm):
    """Writes nothing before the first minute is over, then lines of their own, and none at the end."""

    disable: bool
    said_at: float | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """One line, unless there was one less than a minute ago: whatever is printed asks for one after it."""
        if self.said_at is None:  # at the very beginning
            self.said_at = self._time()
        elif not self.disable and self._time() - self.said_at >= self.mininterval:
            self.said_at = self._time()
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """What is written stays."""

    def close(self) -> None:
        """Without a last line."""
        if not self.disable:
            self.disable = True
            self._decr_instances(self)
