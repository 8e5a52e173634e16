"""Checkpoints that are whole or not there, that any number of processes can resume, and signals that ask for one."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerState

_PREFIX = "checkpoint-"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_TENSORS, _STATE, _RUN = "synthetic.safetensors", "trainer_state.json", "run.json"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on with the same bits.

    Args:
        tensors (`dict[str, torch.Tensor]`): What is learned, `level.i` and `soft_labels`, with Adam's moments as
            `level.i.exp_avg` and `level.i.exp_avg_sq`, each of all n images, and Adam's `step`.
        state (`TrainerState`): Transformers' state, with the number of steps done.
        identity (`dict`): Settings and data that decide the result.
        seconds (`float`): Time spent on the steps so far.
        chunk_size (`int`, *optional*): Images encoded at a time; changes no more than the rounding.
    """

    tensors: dict[str, torch.Tensor]
    state: TrainerState
    identity: dict[str, Any]
    seconds: float
    chunk_size: int | None = None

    def save(self, output_dir: str | Path) -> Path:
        """Write to `checkpoint-<step>`, under another name until it is whole."""
        folder = Path(output_dir) / f"{_PREFIX}{self.state.global_step}"
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(self.tensors, temporary / _TENSORS)
        self.state.save_to_json(str(temporary / _STATE))
        run = {"seconds": self.seconds, "chunk_size": self.chunk_size, "identity": self.identity}
        (temporary / _RUN).write_text(json.dumps(run, indent=2))
        for file in temporary.iterdir():  # on the disk before the name says so, in case the machine stops
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Checkpoint":
        """Read one.

        Raises:
            FileNotFoundError: If the folder is not a checkpoint.
            ValueError: If it is damaged.
        """
        folder = Path(folder)
        if not (folder / _TENSORS).is_file():
            raise FileNotFoundError(
                f"--resume_from_checkpoint: '{folder}' is no checkpoint; expected {_TENSORS} in it."
            )
        try:
            run = json.loads((folder / _RUN).read_text())
            state = TrainerState.load_from_json(str(folder / _STATE))
            tensors = load_file(folder / _TENSORS)
            return cls(tensors, state, run["identity"], run["seconds"], run.get("chunk_size"))
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(f"--resume_from_checkpoint: '{folder}' is damaged ({error}): remove it.") from error

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Refuse to go on with other settings or data than those it was made with.

        Raises:
            ValueError: If they differ; the message names what, with both values.
        """
        now = json.loads(json.dumps(identity))
        changed = [
            f"{name}={_shown(self.identity.get(name))} there, {_shown(now.get(name))} now"
            for name in sorted(self.identity.keys() | now.keys())
            if self.identity.get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(
                f"The checkpoint at step {self.state.global_step} was made with other settings: {'; '.join(changed)}. "
                "Give the same ones, another --output_dir, or --overwrite to start anew."
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def state_tensors(learned: dict[str, nn.Parameter], optimizer: torch.optim.Adam) -> dict[str, torch.Tensor]:
    """One process's rows of everything that the steps change: each parameter with its two Adam moments."""
    tensors = {}
    for name, parameter in learned.items():
        tensors[name] = parameter.detach()
        tensors |= {f"{name}.{moment}": optimizer.state[parameter][moment] for moment in _MOMENTS}
    return tensors


def load_state_tensors(
    tensors: dict[str, torch.Tensor], rows: slice, learned: dict[str, nn.Parameter], optimizer: torch.optim.Adam
) -> None:
    """Put one process's rows of a checkpoint back; the images must have its number of levels."""
    for name, parameter in learned.items():
        with torch.no_grad():
            parameter.copy_(tensors[name][rows])
        moments = {moment: tensors[f"{name}.{moment}"][rows].to(parameter) for moment in _MOMENTS}
        step = tensors["step"].clone()
        optimizer.state[parameter] = {"step": step.to(parameter.device) if is_fused(parameter) else step, **moments}


def is_fused(parameter: torch.Tensor) -> bool:
    """Whether Adam takes one pass over a parameter and keeps its step there; without it, it wants as much again."""
    return parameter.device.type == "cuda"


def all_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [path for path in Path(output_dir).glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def remove_old_checkpoints(output_dir: str | Path, keep: int | None) -> None:
    """Leave the newest `keep`; all of them where it is `None`."""
    if keep:
        for folder in all_checkpoints(output_dir)[:-keep]:
            shutil.rmtree(folder)


def remove_later_checkpoints(output_dir: str | Path, step: int) -> None:
    """Remove what a run that goes on from `step` will write anew."""
    for folder in all_checkpoints(output_dir):
        if int(folder.name.removeprefix(_PREFIX)) > step:
            shutil.rmtree(folder)


@contextmanager
def checkpoint_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGUSR1 are noted in while the block runs, instead of what they did before.

    A SIGTERM that nobody has taken out of the list by its end does then what it would have done.
    """
    noted: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        noted.append(signum)

    before = {}
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        try:
            before[signum] = signal.signal(signum, note)
        except ValueError:  # not in the main thread: signals are somebody else's
            break
    try:
        yield noted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if signal.SIGTERM in noted:
            os.kill(os.getpid(), signal.SIGTERM)
