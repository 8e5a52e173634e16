"""What makes the distiller a Trainer: callbacks, logs and checkpoints, evaluation, and what is saved and published."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from .backbones.backbone import FrozenBackbone
from .config import LGMConfig
from .data.labelled_images import LabelledImages
from .distillation.checkpoint import Checkpoint
from .distillation.checkpoint_folders import checkpoint_to_resume, remove_later_checkpoints, remove_old_checkpoints
from .distillation.initialization import Start
from .distillation.learned import Learned
from .distillation.output_folder import remove_earlier_run, remove_leftovers
from .distillation.real_images import StayingImages
from .distillation.run_lock import RunLock
from .distillation.signals import CheckpointSignals
from .distillation.synthetic import SyntheticImages
from .distillation.watch import LossWatch
from .distributed import answer_of_first
from .evaluation.evaluator import Evaluator
from .features.extraction import FeatureExtractor
from .hub import HubError
from .publishing.distilled_set import DistilledSet, features_of, planned_card, set_repository
from .publishing.provenance import describe_distillation
from .settings import ProbeProtocol

logger = logging.getLogger(__name__)

Callback = type[TrainerCallback] | TrainerCallback


class DistillationTrainer:
    """What Transformers' `Trainer` has around its steps, for [`LGMDistiller`], which has the steps and sets these."""

    args: LGMConfig
    accelerator: Accelerator
    backbones: list[FrozenBackbone]
    extractor: FeatureExtractor
    train_images: LabelledImages
    eval_images: LabelledImages | None
    start: Start
    start_pixels: torch.Tensor | None
    identity: dict[str, Any]
    staying: StayingImages
    learned: Learned
    provenance: dict[str, Any]
    results: list[dict[str, Any]]
    seconds: float
    chunk_size: int | None
    watch: LossWatch
    state: TrainerState
    control: TrainerControl
    callback_handler: CallbackHandler

    @property
    def images(self) -> SyntheticImages:
        """The synthetic images of this process, as parameters."""
        return self.learned.images

    def add_callback(self, callback: Callback) -> None:
        """Have one more callback, as `Trainer.add_callback` does.

        Args:
            callback (`TrainerCallback` or its class): Of a class one is made.
        """
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: Callback) -> TrainerCallback | None:
        """Remove a callback, as `Trainer.pop_callback` does, and return it; `None` where there is none such.

        Args:
            callback (`TrainerCallback` or its class): Of a class the first is meant.
        """
        return self.callback_handler.pop_callback(callback)

    def remove_callback(self, callback: Callback) -> None:
        """Remove a callback, as `Trainer.remove_callback` does.

        Args:
            callback (`TrainerCallback` or its class): Of a class the first is meant.
        """
        self.callback_handler.remove_callback(callback)

    @contextmanager
    def holding_output_dir(self) -> Iterator[None]:
        """Keep other runs out of `output_dir` while a block runs; every process must enter it.

        Raises:
            FileExistsError: If another run holds it; the message says which process, where, and since when.
        """
        lock = RunLock(self.args.output_dir)
        answer_of_first(self.accelerator, lock.acquire)
        try:
            yield
        finally:
            if self.accelerator.is_main_process:
                lock.release()

    def check_checkpoint(self) -> None:
        """Look whether the run can go on from the checkpoint that is named, before anything is done.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If it is damaged, or was made with other settings or data.
        """
        if self.args.resume_from_checkpoint not in (None, "auto"):
            Checkpoint.load(self.args.resume_from_checkpoint).check_identity(self.start.identity())

    def remove_earlier_run(self) -> None:
        """Remove what an earlier run has left in `output_dir`; every process must call it.

        Raises:
            FileExistsError: If it is not of a run of ours, or another run holds it.
        """
        with self.holding_output_dir():
            answer_of_first(self.accelerator, lambda: remove_earlier_run(self.args.output_dir))

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
        protocol, distilled = protocol or self.args.probe_protocol, self.distilled_set()
        for number, backbone in enumerate(self.backbones):
            evaluator = Evaluator(backbone, self.eval_images, protocol=protocol, extractor=self.extractor)
            result = evaluator.probe("distilled", [distilled] * protocol.seeds, distilled.views)
            self.results += result.rows()
            metrics |= result.metrics(f"_{backbone.name}" if number else "")
        self._log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def distilled_set(self) -> DistilledSet:
        """The images as they are now, rounded to 8 bits, with how they were made. Every process must ask for it."""
        pixels, names = self.staying.all_pixels(self.learned.all_pixels()), self.train_images.class_names
        soft = self.learned.all_labels() if self.learned.soft_labels.are_learned else None
        soft = None if soft is None else self.staying.all_labels(soft)
        labels = [label for label in range(len(names)) for _ in range(self.args.images_per_class)]
        rows = self.staying.source_index()
        distilled = DistilledSet.from_pixels(pixels, labels, names, self._described(), rows, soft)
        return distilled.with_results(self.results)

    def save_model(self, output_dir: str | Path | None = None, results: list[dict[str, Any]] | None = None) -> Path:
        """Write the folder that `load_dataset` and [`DistilledSet.from_pretrained`] read; returns it.

        Args:
            output_dir (`str` or `Path`, *optional*): Where to; `args.output_dir` where not given.
            results (`list[dict]`, *optional*): Rows of a larger table than that of the last `evaluate`.
        """
        folder = Path(output_dir or self.args.output_dir)
        self.results = self.results if results is None else results
        distilled = self.distilled_set()
        lock = RunLock(folder)

        def save() -> None:
            with lock:
                distilled.save_pretrained(folder)

        answer_of_first(self.accelerator, save)
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
        folder, address = self.save_model(), ""
        if self.accelerator.is_main_process:
            try:
                saved = DistilledSet.from_pretrained(folder)
                address = saved.push_to_hub(repo_id, **{**self._hub_arguments(), **kwargs})
            except HubError as error:
                again = f"DistilledSet.from_pretrained('{folder}').push_to_hub('{repo_id}')"
                typed = f"hf-lgm publish --folder {folder} --repo_id {repo_id}"
                raise HubError(
                    f"{error} The images are in {folder}; to publish them: {again}, or in a shell {typed}"
                ) from error
        [address] = broadcast_object_list([address])
        return address

    def open_repository(self, repo_id: str) -> None:
        """Create the repository that the images will be published in, or say what is in the way.

        Args:
            repo_id (`str`): `user/name`.

        Raises:
            HubError: If it can't be written to, holds something else, or the card would be refused.
        """
        if self.accelerator.is_main_process:
            config, names = self._described(), self.train_images.class_names
            features = features_of(names, self.staying.total > 0, self.learned.soft_labels.are_learned)
            card = planned_card(config, features, self.learned.total + self.staying.total, repo_id)
            set_repository(repo_id, config, **self._hub_arguments()).open(card)

    def _described(self) -> dict[str, Any]:
        """What `lgm_config.json` says."""
        run = {
            "steps": self.state.global_step,
            "seconds": round(self.seconds, 1),
            "device": self.accelerator.device.type,
            "processes": self.accelerator.num_processes,
        }
        if changed := [log["step"] for log in self.state.log_history if "max_steps" in log]:
            run["length_changed_at"] = changed
        images = self.train_images, self.eval_images
        described = describe_distillation(self.args, self.backbones, *images, self.provenance)
        settings = {"settings": self.start.settings(), "changed_settings": self.start.changed_settings()}
        return {**described, **settings, "began_as": self.start.beginning, "run": run}

    def _begin(self, resume_from_checkpoint: str | Path | bool | None) -> None:
        """Begin at step 0, or where a checkpoint stopped."""
        args, main = self.args, self.accelerator.is_main_process
        if main:
            remove_leftovers(args.output_dir)
        checkpoint = self._to_go_on_from(resume_from_checkpoint)
        self.learned = self.start.new(self.accelerator)
        self.callback_handler.model = self.images
        if args.init_weight or not checkpoint:
            self.start_pixels = self.start.pixels(self.learned.rows, self.staying)
        if checkpoint:
            self.learned.load_state_dict(checkpoint.tensors)
            self.state, self.seconds = checkpoint.state, checkpoint.seconds
            self.chunk_size = args.chunk_size or checkpoint.chunk_size
            if main:
                remove_later_checkpoints(args.output_dir, self.state.global_step)
                remove_old_checkpoints(args.output_dir, args.save_total_limit)
            self._note_length(checkpoint.identity["max_steps"])
        else:
            self.state, self.seconds, self.chunk_size = TrainerState(), 0.0, args.chunk_size
            self.start.apply(self.learned, self.start_pixels)
        if not args.init_weight:
            self.start_pixels = None  # is not needed again
        self.identity = self.start.identity()
        processes, steps = self.accelerator.num_processes, args.max_steps
        where = f"{self.accelerator.device}" if processes == 1 else f"{processes} x {self.accelerator.device}"
        logger.info("Distilling %d images in %d steps on %s", self.learned.total, steps, where)
        self.watch = LossWatch(self.accelerator.device)
        self.state.max_steps = args.max_steps
        self.state.compute_steps(args, args.max_steps)
        self.state.is_world_process_zero = main
        self.state.is_local_process_zero = self.accelerator.is_local_main_process

    def _to_go_on_from(self, resume_from_checkpoint: str | Path | bool | None) -> Checkpoint | None:
        """What is here, of a run that has ended and was made longer; else a checkpoint on the disk, if one is meant.

        Raises:
            ValueError: If it was made with other settings or data.
        """
        args, state = self.args, self.state
        is_longer = 0 < state.max_steps <= state.global_step and state.max_steps < args.max_steps
        if is_longer and resume_from_checkpoint in (None, True, "auto"):
            checkpoint, place = self._checkpoint(), "where the run had ended"
        else:
            wanted = resume_from_checkpoint or args.resume_from_checkpoint
            folder = answer_of_first(self.accelerator, lambda: checkpoint_to_resume(args.output_dir, wanted))
            if folder is None:
                return None
            checkpoint, place = Checkpoint.load(folder, is_whole=True), str(folder)
        checkpoint.check_identity(self.start.identity())
        logger.info("Going on at step %d from %s", checkpoint.state.global_step, place)
        return checkpoint

    def _note_length(self, before: int) -> None:
        """Where a run goes on to another length, say and record what that means."""
        done, now = self.state.global_step, self.args.max_steps
        if now == before:
            return
        logger.warning(
            "max_steps was %d and is %d. From step %d on, learning rate, growth and returns to the start are those of "
            "the new length; where they were others before, this is not a run of %d steps from its start.",
            before, now, done, now,
        )  # fmt: skip
        self.state.log_history.append({"max_steps": now, "step": done})

    def _log_evaluate_save(self, loss: torch.Tensor, signals: CheckpointSignals) -> None:
        """What the callbacks asked for, and the checkpoint that a signal asks for."""
        if self.control.should_log or self.control.should_save:
            self.watch.check(self.args.output_dir)
        if self.control.should_log:
            self._log({"loss": loss.item(), "levels": len(self.images.levels)})
        if self.control.should_evaluate:
            self.evaluate()
        if signum := signals.agreed():
            signals.obey(signum, self._save_checkpoint())
        elif self.control.should_save:
            self._save_checkpoint()

    def _checkpoint(self) -> Checkpoint:
        """All that there is now; every process must ask for it."""
        return Checkpoint(self.learned.state_dict(), self.state, self.identity, self.seconds, self.chunk_size)

    def _save_checkpoint(self) -> Path:
        """Write what all processes own; every process must call it."""
        checkpoint = self._checkpoint()
        checkpoint.check_finite()
        answer_of_first(self.accelerator, lambda: self._write_checkpoint(checkpoint))
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return checkpoint.folder(self.args.output_dir)

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """On the first process, which holds the folder."""
        RunLock(self.args.output_dir).check_held()
        checkpoint.save(self.args.output_dir)
        remove_old_checkpoints(self.args.output_dir, self.args.save_total_limit)

    def _log(self, logs: dict[str, float]) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _hub_arguments(self) -> dict[str, Any]:
        return {"private": self.args.hub_private_repo, "token": self.args.hub_token}
