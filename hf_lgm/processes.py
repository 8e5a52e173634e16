"""Which process wrote a file, and whether it still runs: for locks, and for what killed processes leave behind."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process of one machine.

    Args:
        host (`str`): The machine's name.
        pid (`int`): Its number there.
        started (`str`): When it was started, by the kernel's clock: numbers are given to others later. Empty where the
            system does not say.
        space (`str`): Within which its number is one: containers of one machine may have one name. Likewise.
    """

    host: str
    pid: int
    started: str
    space: str

    @classmethod
    def this(cls) -> "Process":
        """The one that asks."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _state_and_start(pid)[1], _space())

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine, so that it can be looked for."""
        return (self.host, self.space) == (socket.gethostname(), _space())

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; of another machine that is not known."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's
            pass
        state, started = _state_and_start(self.pid)
        return state in ("Z", "X") or started != self.started  # has ended and is still listed, or is another one


def _state_and_start(pid: int) -> tuple[str, str]:
    """What Linux says of a process; empty elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""
