"""Signals that ask for a checkpoint, of whichever process they are sent to."""

import logging
import os
import signal
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)

# Where processes got several, the last one here counts.
_SIGNALS = (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)


class CheckpointSignals:
    """SIGTERM, SIGINT and SIGUSR1 ask for a checkpoint while the block runs, instead of what they did before.

    A second SIGINT ends the block at once. A signal to end that is not acted on by the end of the block is sent again
    then.

    Args:
        accelerator (`accelerate.Accelerator`): Connects the processes, which have to agree.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._noted: set[int] = set()
        self._before: dict[int, Any] = {}
        self._hosts: Any = None
        self._accelerator = accelerator

    def __enter__(self) -> "CheckpointSignals":
        for signum in _SIGNALS:
            try:
                self._before[signum] = signal.signal(signum, self._note)
            except ValueError:  # not in the main thread: signals are somebody else's
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()
        if isinstance(error, KeyboardInterrupt):
            self._noted.discard(signal.SIGINT)
        for signum in self._noted - {signal.SIGUSR1}:
            if error is not None:  # what is not said now never is
                logger.error("%s", error)
            os.kill(os.getpid(), signum)

    def agreed(self) -> int:
        """The signal that any process was sent, 0 for none; they do not arrive everywhere in the same step."""
        own = max((_SIGNALS.index(signum) + 1 for signum in self._noted), default=0)
        if self._accelerator.num_processes > 1:
            if self._hosts is None:  # what hosts tell each other waits for no device
                self._hosts = torch.distributed.new_group(backend="gloo")
            agreed = torch.tensor(own)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._hosts)
            own = int(agreed)
        return _SIGNALS[own - 1] if own else 0

    def obey(self, signum: int, saved: object) -> None:
        """After the checkpoint: end as the sender expects, or go on after SIGUSR1.

        Args:
            signum (`int`): The signal.
            saved: What was saved, to be said.

        Raises:
            KeyboardInterrupt: After SIGINT.
        """
        logger.warning("Signal %d: saved %s", signum, saved)
        self._noted.clear()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt(f"{saved} is saved: resume_from_checkpoint='auto' goes on there.")
        if signum == signal.SIGTERM:
            self._let_go()
            os.kill(os.getpid(), signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and signum in self._noted:
            raise KeyboardInterrupt("The second time; nothing more was saved.")
        if signum == signal.SIGINT:
            logger.warning("Stopping after this step, with a checkpoint; a second Ctrl-C stops at once")
        self._noted.add(signum)

    def _let_go(self) -> None:
        """Signals do again what they did before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
