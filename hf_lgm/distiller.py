"""The method: synthetic images whose gradient for a random probe points where the real images' gradient points."""

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import TrainOutput

from .backbones.backbone import FrozenBackbone, check_names_differ
from .config import LGMConfig
from .data.labelled_images import LabelledImages
from .distillation.callbacks import callback_handler
from .distillation.checkpoint import (
    Checkpoint,
    CheckpointSignals,
    LossWatch,
    checkpoint_to_resume,
    remove_later_checkpoints,
    remove_old_checkpoints,
)
from .distillation.encoding import ChunkedEncoding, chunk_size_that_fits, encode_views
from .distillation.initialization import Start
from .distillation.objectives import LabelledFeatures, gradient_over_spaces, uniform_weights
from .distillation.output_folder import check_is_ours, check_room, remove_earlier_run
from .distillation.real_features import drawn_backbones, real_features
from .distillation.real_images import StayingImages
from .distillation.synthetic import SyntheticImages
from .distillation.view_sizes import ViewSizes
from .distributed import check_processes, gather_rows, to_device
from .evaluation.evaluator import Evaluator
from .features.extraction import FeatureExtractor
from .features.streaming import StreamEncoder
from .hub import HubError
from .publishing.distilled_set import DistilledSet, features_of, planned_card, set_repository
from .publishing.provenance import describe_distillation
from .randomness import seeded_generator
from .settings import ProbeProtocol

logger = logging.getLogger(__name__)

Model = str | nn.Module | FrozenBackbone


class LGMDistiller:
    """Distils a labelled image dataset through a frozen backbone by linear gradient matching (arXiv 2511.16674).

    Trainer-style: `train`, `evaluate`, `save_model` and `push_to_hub`, with Transformers' callbacks and trackers. Each
    process owns a slice of the synthetic images with its optimizer state; what processes exchange is features.

    Args:
        model (`str`, `torch.nn.Module`, [`FrozenBackbone`], or a list of them): Hub id or folder, a live model, or a
            backbone. The images are made for all that are given, each with its own features, geometry and
            normalisation; the loss is the mean of theirs.
        args ([`LGMConfig`], *optional*): The settings.
        train_dataset (`datasets.Dataset`, `datasets.IterableDataset` or [`LabelledImages`]): The real images to
            distil; a stream is read once, and encoded at once.
        eval_dataset (likewise, *optional*): Real images for `evaluate`. They decide nothing.
        processing_class (*optional*): The image processor of a live model, where it was not loaded from a repository.
        callbacks (`list[TrainerCallback]`, *optional*): Beside the progress bar, the time-lapse and the trackers.
        provenance (`dict`, *optional*): What the card says besides: `command`, and as `source` the `dataset` and its
            `license`.

    Raises:
        ValueError: If the datasets can't be distilled, or their classes differ.
    """

    def __init__(
        self,
        model: Model | Sequence[Model],
        args: LGMConfig | None = None,
        train_dataset: Dataset | IterableDataset | LabelledImages | None = None,
        eval_dataset: Dataset | IterableDataset | LabelledImages | None = None,
        processing_class: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.args = args or LGMConfig()
        if train_dataset is None:
            raise ValueError("LGMDistiller needs a train_dataset: the real images to distil.")
        if getattr(train_dataset, "is_streamed", isinstance(train_dataset, IterableDataset)):
            self.args.check_streaming()
        if eval_dataset is None and self.args.eval_strategy != "no":
            raise ValueError("eval_strategy needs an eval_dataset to evaluate on.")
        self.accelerator = Accelerator(cpu=self.args.use_cpu)
        check_processes(self.accelerator)
        loading = self.args.per_device_eval_batch_size, self.args.dataloader_num_workers
        self.extractor = FeatureExtractor(self.accelerator, *loading)
        models = [model] if isinstance(model, Model) else list(model)
        wrapped = [FrozenBackbone.wrap(each, processing_class) for each in models]
        check_names_differ([each.name for each in wrapped])
        prepared = [each.prepared(self.accelerator.device, self.args.bf16) for each in wrapped]
        self.backbones = [each.with_layers(self.args.layers) for each in prepared]
        self.view_sizes = [ViewSizes.of(each, self.args.view_sizes, self.args.seed) for each in self.backbones]
        if self.args.torch_compile:  # only now: what has been tried on it so far is not to be compiled
            for each in self.backbones:
                each.compile_model(self.args.torch_compile_backend, self.args.torch_compile_mode)
        encoder = StreamEncoder(
            self.backbones,
            self.accelerator,
            self.args.per_device_eval_batch_size,
            kept_per_class=self.args.kept_of_stream,
        )
        self.train_images = LabelledImages.wrap(train_dataset, encoder)
        self.train_images.check_classes(self.args.images_per_class)
        self.eval_images = None
        if eval_dataset is not None:
            self.eval_images = LabelledImages.wrap(eval_dataset, encoder).aligned(self.train_images.class_names)
        self.start = Start.load(self.args, self.train_images, self.backbones)
        self.staying = StayingImages(self.args, self.train_images, self.backbones, self.extractor)
        self.provenance = provenance or {}
        self.seconds, self.results, self.chunk_size = 0.0, list[dict[str, Any]](), self.args.chunk_size
        self.learned = self.start.new(self.accelerator)
        self.start_pixels: torch.Tensor | None = None  # what its images begin as, where that is not noise
        self.watch = LossWatch(self.accelerator.device)
        self.state, self.control = TrainerState(), TrainerControl()
        self.callback_handler = callback_handler(self.args, callbacks or [])
        self.callback_handler.model = self.images
        self.control = self.callback_handler.on_init_end(self.args, self.state, self.control)

    @property
    def images(self) -> SyntheticImages:
        """The synthetic images of this process, as parameters."""
        return self.learned.images

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainOutput:
        """Optimise the images; the output's `training_loss` is the last that was logged.

        SIGTERM writes a checkpoint and ends the process, SIGUSR1 writes one and goes on. With `push_to_hub` the
        repository is created at the start, where what is in the way costs nothing yet, and the images go there at
        the end.

        Args:
            resume_from_checkpoint (`str`, `Path` or `bool`, *optional*): A checkpoint's folder, or `True` or `"auto"`
                for the newest one in `output_dir`, if there is one.

        Raises:
            ValueError: If the checkpoint was made with other settings or data.
            FileExistsError: If `output_dir` holds what is not of a run of ours.
            FloatingPointError: If the loss stops being a number; the last good checkpoint stays.
            HubError: If the images can't be published; they are in `output_dir` by then, or nothing was begun.
        """
        check_is_ours(self.args.output_dir)
        check_room(self.args.output_dir, self.learned.bytes_of_checkpoint * (self.args.kept_checkpoints + 1))
        if self.args.push_to_hub and self.args.hub_dataset_id:
            self.open_repository(self.args.hub_dataset_id)
        self._begin(resume_from_checkpoint or self.args.resume_from_checkpoint)
        started, seconds_before = time.time(), self.seconds
        real = self._real_features()
        if not self.chunk_size:
            owned = len(self.learned.owned)
            sizes = self.backbones, self.view_sizes
            self.chunk_size = chunk_size_that_fits(*sizes, self.args, self.images.size, owned)
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        with CheckpointSignals(self.accelerator) as signals:
            for step in range(self.state.global_step, self.args.max_steps):
                self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
                self.learned.grow_if_due(step)
                if self.start_pixels is not None and self.start.returns_at(step):
                    self.learned.return_towards(self.start_pixels, self.args.init_weight)
                loss = self.training_step(step, [next(real[number]) for number in self._drawn(step)])
                self.control = self.callback_handler.on_pre_optimizer_step(self.args, self.state, self.control)
                self.learned.step(step)
                self.control = self.callback_handler.on_optimizer_step(self.args, self.state, self.control)
                self.state.global_step = step + 1
                self.seconds = seconds_before + time.time() - started
                self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
                self._log_evaluate_save(loss, signals)
                if self.control.should_training_stop:
                    break
        self.watch.check(self.args.output_dir)
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        if self.args.push_to_hub:
            self.push_to_hub()
        last_loss = next((log["loss"] for log in reversed(self.state.log_history) if "loss" in log), float("nan"))
        return TrainOutput(self.state.global_step, last_loss, {"train_runtime": self.seconds})

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
            FileExistsError: If it is not of a run of ours.
        """
        if self.accelerator.is_main_process:
            remove_earlier_run(self.args.output_dir)
        self.accelerator.wait_for_everyone()

    def training_step(self, step: int, real: Sequence[Sequence[LabelledFeatures]]) -> torch.Tensor:
        """One step of linear gradient matching (paper, section 3.1): the loss, and gradients on the image parameters.

        Args:
            step (`int`): Decides the random probes and the views.
            real (`Sequence[Sequence[LabelledFeatures]]`): The real features, through each backbone of this step, in
                each of its feature spaces.
        """
        self.learned.optimizer.zero_grad(set_to_none=True)
        self.results = []  # were those of other images
        images = self.images()
        pixels = images.detach().requires_grad_()  # collects what each backbone wants changed
        losses = [self._match(*each, pixels, step) for each in zip(self._drawn(step), real, strict=True)]
        images.backward(pixels.grad)
        loss = torch.stack(losses).mean()
        self.watch.note(loss, step)
        return loss

    def _match(self, number: int, real: Sequence[LabelledFeatures], pixels: torch.Tensor, step: int) -> torch.Tensor:
        """The loss through one backbone; its gradient is added to that of the pixels."""
        learned, views, backbone = self.learned, self.args.views_per_step, self.backbones[number]
        drawn, side = len(self._drawn(step)), self.view_sizes[number].at(step, learned.is_coarse)
        W = [to_device(probe, self.accelerator.device) for probe in self._draw_probes(backbone, step)]  # (C, D) each
        encode = functools.partial(encode_views, backbone, self.args, step, side)
        staying = self.staying.features(backbone, step, side, self.chunk_size) if self.staying.total else None
        encoding = ChunkedEncoding(encode, pixels, torch.tensor(learned.owned), self.chunk_size)
        z = gather_rows(self.accelerator, encoding.z, learned.total).flatten(0, 1)  # (n * K, D)
        y = learned.all_labels().repeat_interleave(views, dim=0)  # (n * K, C)
        if staying is not None:  # they count as they are: only the learned ones get a gradient
            y_staying = self.staying.labels.repeat_interleave(views, dim=0)
            z, y = torch.cat([z, staying]), torch.cat([y, y_staying])  # (C * k * K, …)
        cluster = torch.arange(len(y), device=y.device) // views if self.args.has_clusters else None
        synthetic = LabelledFeatures(z, y, uniform_weights(y), cluster)
        loss, dz, dy = gradient_over_spaces(synthetic, real, W, self.args.objective)
        encoding.backward(learned.own_views(dz) / drawn)  # (m, K, D)
        if dy is not None:
            learned.soft_labels.probabilities.backward(learned.own_views(dy).sum(dim=1) / drawn)
        return loss

    def _draw_probes(self, backbone: FrozenBackbone, step: int) -> list[torch.Tensor]:
        """Random probes of each feature space: a row for each class, or each image where these stand for clusters."""
        generator = seeded_generator(self.args.seed, "probe", step)
        rows = self.learned.total if self.args.has_clusters else self.train_images.num_classes
        return [self.args.probe_std * torch.randn(rows, width, generator=generator) for width in backbone.widths]

    def _drawn(self, step: int) -> list[int]:
        """The numbers of the backbones that a step is made through."""
        return drawn_backbones(len(self.backbones), self.args, step)

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
        folder, address = self.save_model(), ""
        if self.accelerator.is_main_process:
            try:
                saved = DistilledSet.from_pretrained(folder)
                address = saved.push_to_hub(repo_id, **{**self._hub_arguments(), **kwargs})
            except HubError as error:
                again = f"hf-lgm publish --folder {folder} --repo_id {repo_id}"
                raise HubError(f"{error} The images are in {folder}; to publish them: {again}") from error
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
        images = self.train_images, self.eval_images
        described = describe_distillation(self.args, self.backbones, *images, self.provenance)
        return {**described, "settings": self.start.settings(), "began_as": self.start.beginning, "run": run}

    def _begin(self, resume_from_checkpoint: str | Path | bool | None) -> None:
        """Begin at step 0, or where a checkpoint stopped."""
        args, main = self.args, self.accelerator.is_main_process
        folder = checkpoint_to_resume(args.output_dir, resume_from_checkpoint)
        [folder] = broadcast_object_list([folder])  # the first process decides, should the others see other files
        self.learned = self.start.new(self.accelerator)
        self.callback_handler.model = self.images
        if args.init_weight or not folder:
            self.start_pixels = self.start.pixels(self.learned.rows, self.staying)
        if folder:
            checkpoint = Checkpoint.load(folder)
            checkpoint.check_identity(self.start.identity())
            self.learned.load_state_dict(checkpoint.tensors)
            self.state, self.seconds = checkpoint.state, checkpoint.seconds
            self.chunk_size = args.chunk_size or checkpoint.chunk_size
            if main:
                remove_later_checkpoints(args.output_dir, self.state.global_step)
            logger.info("Going on at step %d from %s", self.state.global_step, folder)
        else:
            self.state, self.seconds, self.chunk_size = TrainerState(), 0.0, args.chunk_size
            self.start.apply(self.learned, self.start_pixels)
        if not args.init_weight:
            self.start_pixels = None  # is not needed again
        count, processes = self.learned.total, self.accelerator.num_processes
        where = f"{self.accelerator.device}" if processes == 1 else f"{processes} x {self.accelerator.device}"
        logger.info("Distilling %d images in %d steps on %s", count, self.args.max_steps, where)
        self.watch = LossWatch(self.accelerator.device)
        self.state.max_steps = args.max_steps
        self.state.compute_steps(args, args.max_steps)
        self.state.is_world_process_zero = main
        self.state.is_local_process_zero = self.accelerator.is_local_main_process

    def _log_evaluate_save(self, loss: torch.Tensor, signals: CheckpointSignals) -> None:
        """What the callbacks asked for, and the checkpoint that a signal asks for."""
        if self.control.should_log or self.control.should_save:
            self.watch.check(self.args.output_dir)
        if self.control.should_log:
            self._log({"loss": loss.item(), "levels": len(self.images.levels)})
        if self.control.should_evaluate:
            self.evaluate()
        if signum := signals.agreed():
            logger.warning("Signal %d: saved %s", signum, self._save_checkpoint())
            signals.obey(signum)
        elif self.control.should_save:
            self._save_checkpoint()

    def _save_checkpoint(self) -> Path:
        """Write what all processes own; every process must call it."""
        tensors = self.learned.state_dict()
        checkpoint = Checkpoint(tensors, self.state, self.start.identity(), self.seconds, self.chunk_size)
        checkpoint.check_finite()
        if self.accelerator.is_main_process:
            checkpoint.save(self.args.output_dir)
            remove_old_checkpoints(self.args.output_dir, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return checkpoint.folder(self.args.output_dir)

    def _log(self, logs: dict[str, float]) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _real_features(self) -> list[Iterator[Sequence[LabelledFeatures]]]:
        """The real side of each step that is still to do, through each backbone."""
        return real_features(self.backbones, self.train_images, self.args, self.extractor, self.state.global_step)

    def _hub_arguments(self) -> dict[str, Any]:
        return {"private": self.args.hub_private_repo, "token": self.args.hub_token}
