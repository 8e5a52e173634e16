"""Checkpoints that are whole or not there, that any number of processes can resume, and signals that ask for one."""

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from ..arguments import LGMArguments

_PREFIX = "checkpoint-"
_FILES = _TENSORS, _STATE, _RUN = "synthetic.safetensors", "trainer_state.json", "run.json"

# How to begin anew, for whoever calls from Python or from a command.
_GIVE_UP = "give the run there up: distiller.remove_earlier_run(), or overwrite in a command"

# What settings were before there was a choice, where that is not their default.
_ONCE = {"channels": 3, "layers": 0, "view_sizes": [], "init_weight": 0.0, "lr_scheduler_type": "constant"}


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on with the same bits.

    Args:
        tensors (`dict[str, torch.Tensor]`): What is learned, `level.i` and `soft_labels`, with Adam's moments as
            `level.i.exp_avg` and `level.i.exp_avg_sq`, each of all n images, and Adam's `step`.
        state (`TrainerState`): Transformers' state, with the number of steps done.
        identity (`dict`): Settings and data that decide the result, from [`Start.identity`].
        seconds (`float`): Time spent on the steps so far.
        chunk_size (`int`, *optional*): Images encoded at a time; changes no more than the rounding.
    """

    tensors: dict[str, torch.Tensor]
    state: TrainerState
    identity: dict[str, Any]
    seconds: float
    chunk_size: int | None = None

    def folder(self, output_dir: str | Path) -> Path:
        """Where it belongs."""
        return Path(output_dir) / f"{_PREFIX}{self.state.global_step}"

    def check_finite(self) -> None:
        """Raise where a number is not finite, so that no good checkpoint is replaced.

        Raises:
            FloatingPointError: If a number is not finite.
        """
        if not all(tensor.isfinite().all() for tensor in self.tensors.values()):
            raise FloatingPointError(
                f"The images are not finite any more at step {self.state.global_step}: nothing is saved over the last "
                "good checkpoint. Try a smaller learning_rate."
            )

    def save(self, output_dir: str | Path) -> Path:
        """Write to `checkpoint-<step>`, under another name until it is whole."""
        folder = self.folder(output_dir)
        if not is_ours(folder):
            raise FileExistsError(f"{folder} is somebody else's, and not written over: choose another output_dir.")
        temporary = folder.with_name(f".{folder.name}.tmp")
        temporary.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, temporary / _TENSORS)
        self.state.save_to_json(str(temporary / _STATE))
        run = {"seconds": self.seconds, "chunk_size": self.chunk_size, "identity": self.identity}
        (temporary / _RUN).write_text(json.dumps(run, indent=2))
        for name in _FILES:  # on the disk before the name says so, in case the machine stops
            with (temporary / name).open("rb") as handle:
                os.fsync(handle.fileno())
        remove_checkpoint(folder)
        if folder.exists():  # with files of somebody's beside ours
            for name in _FILES:
                os.replace(temporary / name, folder / name)
            temporary.rmdir()
        else:
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
            raise FileNotFoundError(f"resume_from_checkpoint: '{folder}' is no checkpoint; expected {_TENSORS} in it.")
        try:
            run = json.loads((folder / _RUN).read_text())
            state = TrainerState.load_from_json(str(folder / _STATE))
            tensors = load_file(folder / _TENSORS)
            return cls(tensors, state, run["identity"], run["seconds"], run.get("chunk_size"))
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(f"resume_from_checkpoint: '{folder}' is damaged ({error}): remove it.") from error

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Refuse to go on with other settings or data than those it was made with; `max_steps` may be another.

        Raises:
            ValueError: If they differ; the message names what, with both values. Or if more is done than is asked for.
        """
        now, done = json.loads(json.dumps(identity)), self.state.global_step
        if now["max_steps"] < done:
            raise ValueError(
                f"The checkpoint at step {done} has done more than max_steps={now['max_steps']}: give {done} or more, "
                f"another output_dir, or {_GIVE_UP}."
            )
        defaults = {name: _ONCE.get(name, getattr(LGMArguments, name, None)) for name in now}  # of what came later
        then = defaults | self.identity | {"max_steps": now["max_steps"]}
        changed = [
            f"{name}={_shown(then[name])} there, {_shown(now.get(name))} now"
            for name in sorted(then)
            if then[name] != now.get(name)
        ]
        if changed:
            raise ValueError(
                f"The checkpoint at step {done} was made with other settings: {'; '.join(changed)}. "
                f"Give the same ones, another output_dir, or {_GIVE_UP}."
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def is_ours(folder: Path) -> bool:
    """Whether a folder is one of our checkpoints, by what is in it: other trainers' are called the same.

    Also one that is half removed, or of which nothing but hidden files is left. A link may lead into another run.
    """
    if folder.is_symlink():
        return False
    try:
        run = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return not any(not path.name.startswith(".") for path in folder.glob("*"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(run, dict) and "identity" in run


def is_checkpoint(folder: Path) -> bool:
    """Whether a run can go on from a folder."""
    return (folder / _TENSORS).is_file() and (folder / _RUN).is_file() and is_ours(folder)


def named_checkpoints(output_dir: str | Path) -> list[Path]:
    """Whatever in a folder is called as checkpoints are, anybody's, oldest first."""
    found = [path for path in Path(output_dir).glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def all_checkpoints(output_dir: str | Path) -> list[Path]:
    """Our checkpoints in a folder, oldest first."""
    return [path for path in named_checkpoints(output_dir) if is_checkpoint(path)]


def remove_checkpoint(folder: Path) -> None:
    """Remove the files that we wrote, the one that says so last, and the folder if nothing else is in it."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def remove_leftovers(output_dir: str | Path) -> None:
    """Remove what killed runs have left half written or half removed."""
    half = [path for path in named_checkpoints(output_dir) if is_ours(path) and not is_checkpoint(path)]
    for path in [*half, *Path(output_dir).glob(f".{_PREFIX}*.tmp")]:
        remove_checkpoint(path)


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
    """The checkpoint that a run goes on from; `None` for a run that begins.

    Args:
        output_dir (`str` or `Path`): Where the run's own are.
        wanted (`str`, `Path` or `bool`, *optional*): A checkpoint's folder, or `True` or `"auto"` for the newest one.

    Raises:
        ValueError: If `output_dir` has checkpoints and `wanted` is not given, or is one of another folder.
    """
    found = all_checkpoints(output_dir)
    if wanted in (True, "auto"):
        return found[-1] if found else None
    if found and not wanted:
        raise ValueError(
            f"{output_dir}: found {found[-1].name}: resume_from_checkpoint=True goes on there; or choose another "
            f"output_dir, or {_GIVE_UP}."
        )
    if found and wanted and Path(str(wanted)).resolve().parent != Path(output_dir).resolve():
        raise ValueError(
            f"{output_dir}: found {found[-1].name}, of another run than {wanted}: choose another output_dir, or "
            f"{_GIVE_UP}."
        )
    return Path(str(wanted)) if wanted else None


class LossWatch:
    """Notes the first step whose loss is not finite, on the device, so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._bad_step = torch.tensor(-1, device=device)

    def note(self, loss: torch.Tensor, step: int) -> None:
        """Look at one step's loss, a scalar."""
        self._bad_step = torch.where((self._bad_step < 0) & ~loss.isfinite(), step, self._bad_step)

    def check(self, output_dir: str | Path) -> None:
        """Stop at what was noted, whenever something is logged or saved.

        Raises:
            FloatingPointError: If there was such a step; the message names it and the last good checkpoint.
        """
        if int(self._bad_step) >= 0:
            saved = all_checkpoints(output_dir)
            raise FloatingPointError(
                f"The loss is not a finite number any more in step {int(self._bad_step)}. "
                f"Last good checkpoint: {saved[-1] if saved else 'none'}. Try a smaller learning_rate."
            )


class CheckpointSignals:
    """SIGTERM and SIGUSR1 ask for a checkpoint while the block runs, instead of what they did before.

    A SIGTERM that is not acted on by the end of the block is sent again then.

    Args:
        accelerator (`accelerate.Accelerator`): Connects the processes, which have to agree.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._noted: list[int] = []
        self._before: dict[int, Any] = {}
        self._hosts: Any = None
        self._accelerator = accelerator

    def __enter__(self) -> "CheckpointSignals":
        for signum in (signal.SIGTERM, signal.SIGUSR1):
            try:
                self._before[signum] = signal.signal(signum, lambda number, frame: self._noted.append(number))
            except ValueError:  # not in the main thread: signals are somebody else's
                break
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if signal.SIGTERM in self._noted:
            os.kill(os.getpid(), signal.SIGTERM)

    def agreed(self) -> int:
        """The signal that any process was sent, 0 for none; they do not arrive everywhere in the same step."""
        own = max(self._noted, default=0)
        if self._accelerator.num_processes == 1:
            return own
        if self._hosts is None:  # what hosts tell each other waits for no device
            self._hosts = torch.distributed.new_group(backend="gloo")
        agreed = torch.tensor(own)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._hosts)
        return int(agreed)

    def obey(self, signum: int) -> None:
        """After the checkpoint: die of SIGTERM, as the sender expects; go on after SIGUSR1."""
        self._noted.clear()
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
