"""The method: synthetic images whose gradient for a random probe points where the real images' gradient points."""

import functools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import TrainOutput

from .backbones.backbone import FrozenBackbone, check_names_differ
from .config import LGMConfig
from .data.labelled_images import LabelledImages
from .distillation.callbacks import callback_handler
from .distillation.encoding import ChunkedEncoding, chunk_size_that_fits, encode_views
from .distillation.initialization import Start
from .distillation.objectives import LabelledFeatures, ObjectiveFunction, gradient_over_spaces, uniform_weights
from .distillation.output_folder import check_is_ours, check_room
from .distillation.own_objective import check_objective, objective_name
from .distillation.real_features import drawn_backbones, real_features
from .distillation.real_images import StayingImages
from .distillation.signals import CheckpointSignals
from .distillation.view_sizes import ViewSizes
from .distillation.watch import LossWatch
from .distributed import check_processes, gather_rows, saying_who_is_missing, to_device
from .features.extraction import FeatureExtractor
from .features.streaming import StreamEncoder
from .publishing.distilled_set import DistilledSet
from .randomness import seeded_generator
from .settings import ColumnOptions
from .trainer import DistillationTrainer

Model = str | os.PathLike[str] | nn.Module | FrozenBackbone


class LGMDistiller(DistillationTrainer):
    """Distils a labelled image dataset through a frozen backbone by linear gradient matching (arXiv 2511.16674).

    Trainer-style: `train`, `evaluate`, `save_model` and `push_to_hub`, with Transformers' callbacks and trackers. Each
    process owns a slice of the synthetic images with its optimizer state; what processes exchange is features.

    Args:
        model (`str`, `Path`, `torch.nn.Module`, [`FrozenBackbone`], or a list of them): Hub id or folder, a live
            model, or a backbone. The images are made for all that are given, each with its own features, geometry and
            normalisation; the loss is the mean of theirs.
        args ([`LGMConfig`], *optional*): The settings.
        train_dataset (`datasets.Dataset`, `datasets.IterableDataset` or [`LabelledImages`]): The real images to
            distil; a stream is read once, and encoded at once.
        eval_dataset (likewise, *optional*): Real images for `evaluate`. They decide nothing.
        processing_class (*optional*): The image processor of a live model, where it was not loaded from a repository.
        callbacks (`list[TrainerCallback]`, *optional*): Beside the progress bar, the time-lapse and the trackers.
        provenance (`dict`, *optional*): What the card says besides: `command`, and as `source` the `dataset` and its
            `license`.
        image_column_name (`str`, *optional*): Which column of the datasets holds the images; where not given, the one
            of type `Image`. Paths or encoded bytes have to be named.
        label_column_name (`str`, *optional*): Which column holds the labels; where not given, the one of type
            `ClassLabel`, else one called `label`, `cls` or the like.
        init ([`DistilledSet`], *optional*): A set to go on from, in place of `args.init`, which stays plain data. It
            is recorded by its fingerprint.
        objective (`Callable`, *optional*): A loss of your own in place of `args.objective`: a function of `(synthetic,
            real, W)`, two [`~hf_lgm.distillation.objectives.LabelledFeatures`] and a random probe, that returns a
            scalar tensor. It is called in each feature space: the features, and each layer, where `real` is the mean
            of each class (`layers=0` leaves layers out). Where several images of a class stand for clusters, W has a
            row for each; `synthetic.by_cluster` and `real.by_cluster` have their labels. `synthetic.y` has shape
            (n, C). `real` is in the backbone's precision; many features may be in the host's memory, and
            `real.blocks(W, len(W))` brings a few at a time as W is. It is tried on random features first, and recorded
            by its name alone: that its code was changed is not noticed.

    Raises:
        TypeError: If an argument is something else than is listed here.
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
        image_column_name: str | None = None,
        label_column_name: str | None = None,
        init: DistilledSet | None = None,
        objective: ObjectiveFunction | None = None,
    ) -> None:
        self.args = args = LGMConfig() if args is None else args
        if not isinstance(args, LGMConfig):
            raise TypeError(f"Expected as args an LGMConfig, found {type(args).__name__}: LGMConfig(max_steps=…).")
        if train_dataset is None:
            raise ValueError("LGMDistiller needs a train_dataset: the real images to distil.")
        if getattr(train_dataset, "is_streamed", isinstance(train_dataset, IterableDataset)):
            args.check_streaming()
        if eval_dataset is None and args.eval_strategy != "no":
            raise ValueError("eval_strategy needs an eval_dataset to evaluate on.")
        name = None if objective is None else objective_name(objective)
        self.accelerator = Accelerator(cpu=args.use_cpu)
        check_processes(self.accelerator)
        batch_size = args.per_device_eval_batch_size
        self.extractor = FeatureExtractor(self.accelerator, batch_size, args.dataloader_num_workers)
        self.backbones = _prepared(model, processing_class, args, self.accelerator.device)
        self.view_sizes = [ViewSizes.of(each, args.view_sizes, args.seed) for each in self.backbones]
        encoder = StreamEncoder(self.backbones, self.accelerator, batch_size, kept_per_class=args.kept_of_stream)
        columns = ColumnOptions(image_column_name, label_column_name)
        wrap = functools.partial(LabelledImages.wrap, stream_encoder=encoder, options=columns)
        self.train_images, self.eval_images = wrap(train_dataset), None
        self.train_images.check_classes(args.images_per_class)
        if eval_dataset is not None:
            self.eval_images = wrap(eval_dataset).aligned(self.train_images.class_names)
        self.objective = args.objective if objective is None else objective
        if objective is not None:
            check_objective(objective, self.backbones, self.train_images.num_classes, args)
        self.start = Start.load(args, self.train_images, self.backbones, init, name)
        self.staying = StayingImages(args, self.train_images, self.backbones, self.extractor)
        named = {"image_column_name": image_column_name, "label_column_name": label_column_name}
        source = {name: column for name, column in named.items() if column} | (provenance or {}).get("source", {})
        self.provenance = {**(provenance or {}), "source": source}
        self.seconds, self.results, self.chunk_size = 0.0, [], args.chunk_size
        self.learned = self.start.new(self.accelerator)
        self.start_pixels = None  # what its images begin as, where that is not noise
        self.watch = LossWatch(self.accelerator.device)
        self.state, self.control = TrainerState(), TrainerControl()
        self.callback_handler = callback_handler(args, callbacks or [])
        self.callback_handler.model = self.images
        self.control = self.callback_handler.on_init_end(args, self.state, self.control)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainOutput:
        """Optimise the images; the output's `training_loss` is the last that was logged.

        SIGTERM writes a checkpoint and ends the process, SIGINT (Ctrl-C) writes one and raises `KeyboardInterrupt`, a
        second one at once; SIGUSR1 writes one and goes on. With `push_to_hub` the
        repository is created at the start, where what is in the way costs nothing yet, and the images go there at
        the end.

        A run of which nothing was changed is resumed with the same bits. It may also be made longer: raise
        `args.max_steps` and call `train` again, here or, with `resume_from_checkpoint`, on a new distiller. From there
        on learning rate, growth of the pyramid and returns to the start are those of the new length. So it is not the
        same as a run of that length from its start, unless nothing depends on the length, as in the paper's preset.

        Args:
            resume_from_checkpoint (`str`, `Path` or `bool`, *optional*): A checkpoint's folder, or `True` or `"auto"`
                for the newest one in `output_dir`, if there is one.

        Raises:
            ValueError: If the checkpoint was made with other settings or data, has done more than `max_steps`, or is
                damaged.
            FileExistsError: If `output_dir` holds what is not of a run of ours, or another run holds it.
            OSError: If the disk does not take a checkpoint; those that are there stay.
            ConnectionError: If another process of the run has ended.
            FloatingPointError: If the loss stops being a number; the last good checkpoint stays.
            HubError: If the images can't be published; they are in `output_dir` by then, or nothing was begun.
        """
        with self.holding_output_dir(), saying_who_is_missing():
            return self._train(resume_from_checkpoint)

    def _train(self, resume_from_checkpoint: str | Path | bool | None) -> TrainOutput:
        """The run, in a folder that no other is in."""
        check_is_ours(self.args.output_dir)
        check_room(self.args.output_dir, self.learned.bytes_of_checkpoint * (self.args.kept_checkpoints + 1))
        if self.args.push_to_hub and self.args.hub_dataset_id:
            self.open_repository(self.args.hub_dataset_id)
        self._begin(resume_from_checkpoint)
        started, seconds_before = time.time(), self.seconds
        real = self._real_features()
        if not self.chunk_size:
            owned = len(self.learned.owned)
            sizes = self.backbones, self.view_sizes
            self.chunk_size = chunk_size_that_fits(*sizes, self.args, self.images.size, owned)
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        # Within, too: a process that a signal ends says why on its way out of `signals`.
        with CheckpointSignals(self.accelerator) as signals, saying_who_is_missing():
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
        gradient = torch.zeros_like(images)  # collects what each backbone wants changed
        pairs = zip(self._drawn(step), real, strict=True)
        losses = [self._match(number, spaces, images.detach(), gradient, step) for number, spaces in pairs]
        images.backward(gradient)
        loss = torch.stack(losses).mean()
        self.watch.note(loss, step, gradient)
        return loss

    def _match(
        self, number: int, real: Sequence[LabelledFeatures], pixels: torch.Tensor, gradient: torch.Tensor, step: int
    ) -> torch.Tensor:
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
        loss, dz, dy = gradient_over_spaces(synthetic, real, W, self.objective)
        encoding.backward(learned.own_views(dz) / drawn, gradient)  # (m, K, D)
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

    def _real_features(self) -> list[Iterator[Sequence[LabelledFeatures]]]:
        """The real side of each step that is still to do, through each backbone."""
        return real_features(self.backbones, self.train_images, self.args, self.extractor, self.state.global_step)


def _prepared(
    model: Model | Sequence[Model], processing_class: Any, args: LGMConfig, device: torch.device
) -> list[FrozenBackbone]:
    """The backbones on a device, in the precision and with the layers that are asked for."""
    models: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
    if not models:
        raise ValueError("LGMDistiller needs a model to distil through, found an empty list.")
    backbones = [FrozenBackbone.wrap(each, processing_class) for each in models]
    check_names_differ([each.name for each in backbones])
    return [each.prepared(device, args.bf16).with_layers(args.layers) for each in backbones]
