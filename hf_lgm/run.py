"""What any optimisation of images has: logs, checkpoints, signals, going on where it stopped, saving, publishing."""

import functools
import logging
import os
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from .backbone import FrozenBackbone
from .checkpoint import (
    Checkpoint,
    all_checkpoints,
    is_fused,
    load_state_tensors,
    remove_later_checkpoints,
    remove_old_checkpoints,
    state_tensors,
)
from .config import LGMConfig
from .data import LabelledImages
from .distilled_set import DistilledSet
from .evaluation import evaluate_probe
from .hub import HubError
from .parallel import gather_rows
from .probe import ProbeProtocol
from .soft_labels import SoftLabels
from .synthetic import SyntheticImages

logger = logging.getLogger(__name__)


class ResumableRun(ABC):
    """What [`LGMDistiller`] does between its steps. Not to be used alone: the method is in the subclass."""

    args: LGMConfig
    accelerator: Accelerator
    backbones: list[FrozenBackbone]
    eval_images: LabelledImages | None
    images: SyntheticImages
    soft_labels: SoftLabels
    optimizer: torch.optim.Adam
    state: TrainerState
    control: TrainerControl
    callback_handler: CallbackHandler
    labels: torch.Tensor
    owned: range
    seconds: float
    chunk_size: int | None
    results: list[dict[str, Any]]
    _bad_step: torch.Tensor

    @abstractmethod
    def distilled_set(self) -> DistilledSet:
        """The images as they are now; every process must ask for it."""

    @abstractmethod
    def _new_images(self) -> SyntheticImages:
        """Images of this process, with their first level."""

    @abstractmethod
    def _new_soft_labels(self) -> SoftLabels:
        """Labels of this process's images."""

    @abstractmethod
    def _initialize_images(self) -> None:
        """Put the images where a new run begins."""

    def _new_optimizer(self) -> torch.optim.Adam:
        """Adam, without memory."""
        args = self.args
        groups: list[dict[str, Any]] = [{"params": list(self.images.levels)}]
        if self.soft_labels.are_learned:
            groups.append({"params": [self.soft_labels.probabilities], "lr": args.label_learning_rate})
        betas, fused = (args.adam_beta1, args.adam_beta2), is_fused(self.images.levels[0]) or None
        return torch.optim.Adam(groups, args.learning_rate, betas, args.adam_epsilon, fused=fused)

    def _learned(self) -> dict[str, nn.Parameter]:
        """Everything that the steps change, by the names that checkpoints have for it."""
        levels = {f"level.{number}": level for number, level in enumerate(self.images.levels)}
        return {**levels, "soft_labels": self.soft_labels.probabilities} if self.soft_labels.are_learned else levels

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """Everything that has to be the same for a resumed run to give the same bits."""

    def evaluate(self, protocol: ProbeProtocol | None = None) -> dict[str, float]:
        """Accuracy, in percent, of probes trained on the 8-bit images as they are now.

        Returns `eval_accuracy`, `eval_accuracy_std`, `eval_accuracy_top5` with more than five classes, and
        `eval_accuracy_worst_group` where there are groups; of several backbones the first one's, and the others' with
        their names behind.

        Args:
            protocol ([`ProbeProtocol`], *optional*): How they are trained; `args.probe_protocol` where not given.

        Raises:
            ValueError: If there is no `eval_dataset`.
        """
        if self.eval_images is None:
            raise ValueError("evaluate() needs an eval_dataset: pass one to LGMDistiller.")
        self.results, metrics = [], dict[str, float]()
        for number, backbone in enumerate(self.backbones):
            result = evaluate_probe(
                backbone,
                self.distilled_set(),
                self.eval_images,
                accelerator=self.accelerator,
                protocol=protocol or self.args.probe_protocol,
                batch_size=self.args.per_device_eval_batch_size,
                num_workers=self.args.dataloader_num_workers,
            )
            self.results += result.rows()
            metrics |= result.metrics(f"_{backbone.name}" if number else "")
        self._log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | Path | None = None, results: list[dict[str, Any]] | None = None) -> Path:
        """Write the folder that `load_dataset` and [`DistilledSet.from_pretrained`] read; returns it.

        Args:
            output_dir (`str` or `Path`, *optional*): Where to; `args.output_dir` where not given.
            results (`list[dict]`, *optional*): Rows of a larger table than that of the last `evaluate`.
        """
        folder = Path(output_dir or self.args.output_dir)
        self.results = self.results if results is None else results
        distilled = self.distilled_set()
        if self.accelerator.is_main_process:
            distilled.save_pretrained(folder)
        self.accelerator.wait_for_everyone()
        return folder

    def push_to_hub(self, repo_id: str | None = None, **kwargs: Any) -> str:
        """Save the images, and publish them as a Hub dataset; returns its address.

        Args:
            repo_id (`str`, *optional*): `user/name`; `args.hub_dataset_id` where not given.
            kwargs: See [`DistilledSet.push_to_hub`].

        Raises:
            HubError: If it did not work. What was saved stays in `args.output_dir`.
        """
        repo_id = repo_id or self.args.hub_dataset_id
        if repo_id is None:
            raise ValueError("push_to_hub needs to know where to: give repo_id, or set hub_dataset_id.")
        folder, distilled, address = self.save_model(), self.distilled_set(), ""
        if self.accelerator.is_main_process:
            try:
                address = distilled.push_to_hub(repo_id, **{**self._hub_arguments(), **kwargs})
            except HubError as error:
                again = f"python scripts/publish.py --folder {folder} --repo_id {repo_id}"
                raise HubError(f"{error} The images are in {folder}; to publish them: {again}") from error
        [address] = broadcast_object_list([address])
        return address

    def open_repository(self, repo_id: str) -> None:
        """Create the repository that the images will be published in, or say what is in the way.

        Args:
            repo_id (`str`): `user/name`.

        Raises:
            HubError: If it can't be written to, or holds something else.
        """
        distilled = self.distilled_set()
        if self.accelerator.is_main_process:
            distilled.repository(repo_id, **self._hub_arguments()).open()

    def _hub_arguments(self) -> dict[str, Any]:
        return {"private": self.args.hub_private_repo, "token": self.args.hub_token}

    def _log_evaluate_save(self, loss: torch.Tensor, signals: list[int]) -> None:
        """What the callbacks asked for, and the checkpoint that a signal asks for."""
        if self.control.should_log or self.control.should_save:
            self._check_finite()
        if self.control.should_log:
            self._log({"loss": loss.item(), "levels": len(self.images.levels)})
        if self.control.should_evaluate:
            self.evaluate()
        if signum := self._agreed_signal(signals):
            logger.warning("Signal %d: saved %s", signum, self._save_checkpoint())
            signals.clear()
            if signum == signal.SIGTERM:  # die of it, as the sender expects
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
        elif self.control.should_save:
            self._save_checkpoint()

    def _agreed_signal(self, signals: list[int]) -> int:
        """The signal that any process was sent, 0 for none; they do not arrive everywhere in the same step."""
        own = max(signals, default=0)
        if self.accelerator.num_processes == 1:
            return own
        agreed = torch.tensor(own)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._host_group)
        return int(agreed)

    @functools.cached_property
    def _host_group(self) -> torch.distributed.ProcessGroup:
        """The processes' hosts: what they tell each other waits for no device."""
        return torch.distributed.new_group(backend="gloo")

    def _log(self, logs: dict[str, float]) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _watch(self, loss: torch.Tensor, step: int) -> None:
        """Note the first step whose loss is not finite, on the device, so that no step waits for it."""
        self._bad_step = torch.where((self._bad_step < 0) & ~loss.isfinite(), step, self._bad_step)

    def _check_finite(self) -> None:
        """Stop at what was noted, whenever something is logged or saved."""
        if int(self._bad_step) >= 0:
            saved = all_checkpoints(self.args.output_dir)
            raise FloatingPointError(
                f"The loss is not a finite number any more in step {int(self._bad_step)}. "
                f"Last good checkpoint: {saved[-1] if saved else 'none'}. Try a smaller --learning_rate."
            )

    def _start(self, resume_from_checkpoint: str | Path | bool | None) -> None:
        """Begin at step 0, or where a checkpoint stopped."""
        args = self.args
        resume_from_checkpoint = resume_from_checkpoint or args.resume_from_checkpoint
        found = all_checkpoints(args.output_dir)
        folder = Path(str(resume_from_checkpoint)) if resume_from_checkpoint else None
        if resume_from_checkpoint in (True, "auto"):
            folder = found[-1] if found else None
        elif found and not folder:
            raise ValueError(
                f"{args.output_dir}: found {found[-1].name}: resume_from_checkpoint=True goes on there; or choose "
                "another output_dir, or remove it."
            )
        [folder] = broadcast_object_list([folder])  # the first process decides, should the others see other files
        self.images, self.soft_labels = self._new_images(), self._new_soft_labels()
        self.callback_handler.model = self.images
        if folder:
            self._restore(Checkpoint.load(folder))
            if self.accelerator.is_main_process:
                remove_later_checkpoints(args.output_dir, self.state.global_step)
            logger.info("Going on at step %d from %s", self.state.global_step, folder)
        else:
            self.state, self.seconds, self.chunk_size = TrainerState(), 0.0, self.args.chunk_size
            self._initialize_images()
            self.optimizer = self._new_optimizer()
        logger.info("%d process(es), on %s", self.accelerator.num_processes, self.accelerator.device)
        self._bad_step = torch.tensor(-1, device=self.accelerator.device)
        self.state.max_steps = args.max_steps
        self.state.compute_steps(args, args.max_steps)
        self.state.is_world_process_zero = self.accelerator.is_main_process
        self.state.is_local_process_zero = self.accelerator.is_local_main_process

    def _save_checkpoint(self) -> Path:
        """Write what all processes own; every process must call it."""
        rows = state_tensors(self._learned(), self.optimizer)
        tensors = {name: gather_rows(self.accelerator, t, len(self.labels)).cpu() for name, t in rows.items()}
        tensors["step"] = self.optimizer.state[self.images.levels[0]]["step"].cpu()
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise FloatingPointError(
                f"The images are not finite any more at step {self.state.global_step}: nothing is saved over the last "
                "good checkpoint. Try a smaller --learning_rate."
            )
        if self.accelerator.is_main_process:
            checkpoint = Checkpoint(tensors, self.state, self._identity(), self.seconds, self.chunk_size)
            checkpoint.save(self.args.output_dir)
            remove_old_checkpoints(self.args.output_dir, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return folder

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take this process's slice of a checkpoint, whatever number of processes wrote it."""
        checkpoint.check_identity(self._identity())
        self.images.set_num_levels(
            sum(name.startswith("level.") and name[6:].isdigit() for name in checkpoint.tensors)
        )
        self.optimizer = self._new_optimizer()
        rows = slice(self.owned.start, self.owned.stop)
        load_state_tensors(checkpoint.tensors, rows, self._learned(), self.optimizer)
        self.state, self.seconds = checkpoint.state, checkpoint.seconds
        self.chunk_size = self.args.chunk_size or checkpoint.chunk_size
