"""A checkpoint, which any number of processes can resume."""

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainerState

from ..arguments import LGMArguments
from ..whole_files import save_tensors
from .checkpoint_folders import (
    CHECKSUMS,
    FILES,
    GIVE_UP,
    RUN,
    STATE,
    TENSORS,
    all_checkpoints,
    check_whole,
    checkpoint_folder,
    clear,
    is_ours,
    put_aside,
    write_checksums,
)

logger = logging.getLogger(__name__)

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
        return checkpoint_folder(output_dir, self.state.global_step)

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
        """Write to `checkpoint-<step>`, under another name until it is whole.

        Raises:
            FileExistsError: If somebody else's is there.
            OSError: If the disk does not take it; the message names the last checkpoint.
        """
        folder = self.folder(output_dir)
        if not is_ours(folder):
            raise FileExistsError(f"{folder} is somebody else's, and not written over: choose another output_dir.")
        temporary = folder.with_name(f".{folder.name}.tmp")
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            self._write(temporary)
        except OSError as error:
            with suppress(OSError):  # makes room, if there is still a disk
                clear(temporary)
            saved = all_checkpoints(output_dir)
            raise OSError(
                f"{folder} can't be written ({error.strerror or error}). Last good checkpoint: "
                f"{saved[-1] if saved else 'none'}. Make room, then go on with resume_from_checkpoint='auto'."
            ) from error
        aside = put_aside(folder) if folder.exists() else None
        temporary.rename(folder)
        if aside:
            clear(aside)
        return folder

    def _write(self, folder: Path) -> None:
        save_tensors(self.tensors, folder / TENSORS)
        self.state.save_to_json(str(folder / STATE))
        run = {"has_checksums": True, "seconds": self.seconds, "chunk_size": self.chunk_size}
        (folder / RUN).write_text(json.dumps({**run, "identity": self.identity}, indent=2))
        write_checksums(folder)
        for name in (*FILES, CHECKSUMS):  # on the disk before the name says so, in case the machine stops
            with (folder / name).open("rb") as handle:
                os.fsync(handle.fileno())

    @classmethod
    def load(cls, folder: str | Path, *, is_whole: bool = False) -> "Checkpoint":
        """Read one.

        Args:
            folder (`str` or `Path`): Where it is.
            is_whole (`bool`, *optional*, defaults to `False`): Whether its checksums have been looked at already.

        Raises:
            FileNotFoundError: If the folder is not a checkpoint.
            ValueError: If it is damaged.
        """
        folder = Path(folder)
        if not is_whole:
            check_whole(folder)
        try:
            run = json.loads((folder / RUN).read_text())
            state = TrainerState.load_from_json(str(folder / STATE))
            tensors = load_file(folder / TENSORS)
            checkpoint = cls(tensors, state, run["identity"], run["seconds"], run.get("chunk_size"))
        except (SafetensorError, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"resume_from_checkpoint: '{folder}' is damaged ({error}). {GIVE_UP}.") from error
        if not run.get("has_checksums"):
            logger.warning("%s was written by an earlier version, without checksums, and is taken as it is", folder)
        return checkpoint

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Refuse to go on with other settings or data than those it was made with; `max_steps` may be another.

        Raises:
            ValueError: If they differ; the message names what, with both values. Or if more is done than is asked for.
        """
        now, done = json.loads(json.dumps(identity)), self.state.global_step
        if now["max_steps"] < done:
            raise ValueError(
                f"The checkpoint at step {done} has done more than max_steps={now['max_steps']}: give {done} or more, "
                f"another output_dir, or {GIVE_UP}."
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
                f"Give the same ones, another output_dir, or {GIVE_UP}."
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
