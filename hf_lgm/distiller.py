"""The method: synthetic images whose gradient for a random probe points where the real images' gradient points."""

import functools
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import TrainOutput

from .backbone import FrozenBackbone
from .callbacks import LossBar, Timelapse
from .checkpoint import checkpoint_signals
from .chunking import find_chunk_size
from .config import LGMConfig
from .data import LabelledImages
from .distilled_set import DistilledSet
from .encoding import ChunkedEncoding, encode_views
from .fingerprint import model_fingerprint
from .initialization import earlier_set, real_pixels
from .latents import LatentImages, load_autoencoder, own_config
from .loading import align_classes, check_classes
from .objectives import LabelledFeatures, feature_gradient, uniform_weights
from .parallel import check_processes, gather_rows, owned_range, to_device
from .provenance import describe_images
from .randomness import seeded_generator
from .real_features import cached_features, real_features, shared_parts
from .run import ResumableRun
from .soft_labels import SoftLabels
from .streaming import StreamEncoder
from .synthetic import SyntheticImages
from .versions import library_versions

logger = logging.getLogger(__name__)

Model = str | nn.Module | FrozenBackbone


class LGMDistiller(ResumableRun):
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
        models = [model] if isinstance(model, Model) else list(model)
        self.backbones = [self._prepared(FrozenBackbone.wrap(each, processing_class)) for each in models]
        encoder = StreamEncoder(self.backbones, self.accelerator, self.args.per_device_eval_batch_size)
        self.train_images = LabelledImages.wrap(train_dataset, encoder)
        check_classes(self.train_images, self.args.images_per_class)
        self.eval_images = None
        if eval_dataset is not None:
            self.eval_images = align_classes(LabelledImages.wrap(eval_dataset, encoder), self.train_images.class_names)
        self.earlier = None
        if self.args.begins_with_set:
            names = self.train_images.class_names
            self.earlier = earlier_set(self.args.init, names, self.args.images_per_class)
        self.autoencoder = load_autoencoder(self.args.vae) if self.args.vae else None
        self.provenance = provenance or {}
        self.seconds, self.results, self.chunk_size = 0.0, [], self.args.chunk_size
        self.labels = torch.arange(self.train_images.num_classes).repeat_interleave(self.args.images_per_class)
        self.owned = owned_range(len(self.labels), self.accelerator.process_index, self.accelerator.num_processes)
        self.images, self.soft_labels = self._new_images(), self._new_soft_labels()
        self.optimizer = self._new_optimizer()
        self.state = TrainerState()
        self.control = TrainerControl()
        trackers = [callback() for callback in get_reporting_integration_callbacks(self.args.report_to)]
        shown = [] if self.args.disable_tqdm else [LossBar()]
        self.callback_handler = CallbackHandler(
            [DefaultFlowCallback(), *shown, Timelapse(), *trackers, *(callbacks or [])], self.images, None, None, None
        )
        self.control = self.callback_handler.on_init_end(self.args, self.state, self.control)

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
            FloatingPointError: If the loss stops being a number; the last good checkpoint stays.
            HubError: If the images can't be published; they are in `output_dir` by then, or nothing was begun.
        """
        if self.args.push_to_hub and self.args.hub_dataset_id:
            self.open_repository(self.args.hub_dataset_id)
        self._start(resume_from_checkpoint)
        started, seconds_before = time.time(), self.seconds
        real = self._real_features()
        self.chunk_size = self.chunk_size or self._find_chunk_size()
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        with checkpoint_signals() as signals:
            for step in range(self.state.global_step, self.args.max_steps):
                self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
                self._grow_if_due(step)
                loss = self.training_step(step, next(real))
                self.control = self.callback_handler.on_pre_optimizer_step(self.args, self.state, self.control)
                self.optimizer.step()
                self.soft_labels.project()
                self.control = self.callback_handler.on_optimizer_step(self.args, self.state, self.control)
                self.state.global_step = step + 1
                self.seconds = seconds_before + time.time() - started
                self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
                self._log_evaluate_save(loss, signals)
                if self.control.should_training_stop:
                    break
        self._check_finite()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        if self.args.push_to_hub:
            self.push_to_hub()
        last_loss = next((log["loss"] for log in reversed(self.state.log_history) if "loss" in log), float("nan"))
        return TrainOutput(self.state.global_step, last_loss, {"train_runtime": self.seconds})

    def training_step(self, step: int, real: Sequence[LabelledFeatures]) -> torch.Tensor:
        """One step of linear gradient matching (paper, section 3.1): the loss, and gradients on the image parameters.

        Args:
            step (`int`): Decides the random probes and the views.
            real (`Sequence[LabelledFeatures]`): The real features, through each backbone.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.results = []  # were those of other images
        images = self.images()
        pixels = images.detach().requires_grad_()  # collects what each backbone wants changed
        losses = [self._match(*each, pixels, step) for each in zip(self.backbones, real, strict=True)]
        images.backward(pixels.grad)
        loss = torch.stack(losses).mean()
        self._watch(loss, step)
        return loss

    def _match(
        self, backbone: FrozenBackbone, real: LabelledFeatures, pixels: torch.Tensor, step: int
    ) -> torch.Tensor:
        """The loss through one backbone; its gradient is added to that of the pixels."""
        W = to_device(self._draw_probe(backbone, step), self.accelerator.device)  # (C, D)
        encode = functools.partial(encode_views, backbone, self.args, step)
        encoding = ChunkedEncoding(encode, pixels, torch.tensor(self.owned), self.chunk_size)
        z = gather_rows(self.accelerator, encoding.z, len(self.labels)).flatten(0, 1)  # (n * K, D)
        y = self._gathered_labels().repeat_interleave(self.args.views_per_step, dim=0)  # (n * K, C)
        part = torch.arange(len(y), device=y.device) // self.args.views_per_step if self.args.has_parts else None
        synthetic = LabelledFeatures(z, y, uniform_weights(y), part)
        loss, dz, dy = feature_gradient(synthetic, real, W, self.args.objective)
        encoding.backward(self._own_views(dz) / len(self.backbones))  # (m, K, D)
        if dy is not None:
            self.soft_labels.probabilities.backward(self._own_views(dy).sum(dim=1) / len(self.backbones))
        return loss

    @torch.no_grad()
    def distilled_set(self) -> DistilledSet:
        """The images as they are now, rounded to 8 bits, with how they were made. Every process must ask for it."""
        pixels = gather_rows(self.accelerator, self.images(), len(self.labels))
        config = {
            "settings": self.args.own_settings(),
            "changed_settings": self.args.changed_settings(),
            "backbone": self.backbones[0].describe(),
            **({"more_backbones": [each.describe() for each in self.backbones[1:]]} if self.backbones[1:] else {}),
            **self.provenance,
            "source": {
                **self.provenance.get("source", {}),
                **describe_images(self.train_images, self.eval_images),
            },
            "run": {
                "steps": self.state.global_step,
                "seconds": round(self.seconds, 1),
                "device": self.accelerator.device.type,
                "processes": self.accelerator.num_processes,
            },
            "versions": library_versions(),
        }
        soft = self._gathered_labels() if self.soft_labels.are_learned else None
        names, labels = self.train_images.class_names, self.labels.tolist()
        distilled = DistilledSet.from_pixels(pixels, labels, names, config, soft_labels=soft)
        return distilled.with_results(self.results)

    def _prepared(self, backbone: FrozenBackbone) -> FrozenBackbone:
        """On the device, in the precision of the run, compiled where that is asked for."""
        backbone = backbone.to(self.accelerator.device)
        if self.args.bf16 and backbone.dtype == torch.float32:
            backbone = backbone.cast(torch.bfloat16)
        if self.args.torch_compile:
            backbone.compile_model(self.args.torch_compile_backend, self.args.torch_compile_mode)
        return backbone

    def _gathered_labels(self) -> torch.Tensor:
        """Distributions over classes of all images, of shape (n, C), which want a gradient where they are learned."""
        labels = gather_rows(self.accelerator, self.soft_labels.probabilities.detach(), len(self.labels))
        return labels.requires_grad_(self.soft_labels.are_learned)

    def _own_views(self, gradient: torch.Tensor) -> torch.Tensor:
        """Of what belongs to all views (n * K, …), the part of this process's m images, of shape (m, K, …)."""
        of_each = gradient.unflatten(0, (len(self.labels), self.args.views_per_step))
        return of_each[self.owned.start : self.owned.stop]

    def _find_chunk_size(self) -> int:
        """As many images as fit beside all that the steps will need; a fixed number where the device does not say."""
        size, found = self.images.size, []
        for backbone in self.backbones:
            image = backbone.mean.new_zeros(backbone.mean.shape[1], size, size)
            encode = functools.partial(encode_views, backbone, self.args, 0)
            found.append(find_chunk_size(encode, image, len(self.owned)) or self.args.default_chunk_size)
        return min(found)

    def _draw_probe(self, backbone: FrozenBackbone, step: int) -> torch.Tensor:
        generator = seeded_generator(self.args.seed, "probe", step)
        rows = len(self.labels) if self.args.has_parts else self.train_images.num_classes
        return self.args.probe_std * torch.randn(rows, backbone.dim, generator=generator)

    def _real_features(self) -> Iterator[tuple[LabelledFeatures, ...]]:
        """The real side of each step that is still to do, through each backbone."""
        images, step = self.train_images, self.state.global_step
        part = shared_parts(self.backbones[0], images, self.args, self.accelerator)
        sides = (real_features(each, images, self.args, self.accelerator, step, part) for each in self.backbones)
        return zip(*sides, strict=True)

    def _new_images(self) -> SyntheticImages:
        size = max(backbone.preprocessing.synthetic_size for backbone in self.backbones)
        if self.autoencoder is not None:
            images: SyntheticImages = LatentImages(self.owned, size, self.args.seed, self.autoencoder)
        else:
            sides = [size] if self.args.parameterization == "pixel" else None
            images = SyntheticImages(self.owned, size, self.args.seed, sides)
        return images.to(self.backbones[0].mean)

    def _new_soft_labels(self) -> SoftLabels:
        own, are_learned = self.labels[self.owned.start : self.owned.stop], self.args.label_learning_rate > 0
        return SoftLabels(own, self.train_images.num_classes, are_learned).to(self.accelerator.device)

    def _initialize_images(self) -> None:
        """Let the images begin as others, where that is asked for, with their labels."""
        init, first, own = self.args.init, self.backbones[0], slice(self.owned.start, self.owned.stop)
        if self.earlier:
            self.images.start_from(self.earlier.pixels()[own])
            if self.soft_labels.are_learned:
                self.soft_labels.start_from(self.earlier.targets_as(self.train_images.class_names)[own])
        elif init != "noise":
            features = functools.partial(cached_features, first, self.train_images, self.args, self.accelerator)
            given = self.args.images_per_class, self.owned, first, features, self.args.seed
            self.images.start_from(real_pixels(init, self.train_images, *given))

    def _grow_if_due(self, step: int) -> None:
        """Add pyramid levels, evenly spread over the start of the run; Adam starts afresh (paper, section 3.2)."""
        span, missing_at_start = int(self.args.max_steps * self.args.growth_share), len(self.images.sides) - 1
        due = 1 + (missing_at_start if step >= span else step * missing_at_start // span)
        while len(self.images.levels) < due:
            self.images.grow()
            self.optimizer = self._new_optimizer()

    def _identity(self) -> dict[str, Any]:
        """Everything that has to be the same for a resumed run to give the same bits."""
        images = self.train_images
        labels = hashlib.sha256(images.labels.numpy().tobytes()).hexdigest()
        data = {"images": images.fingerprint, "labels": labels, "class_names": images.class_names}
        if self.earlier:
            data["init_images"] = self.earlier.fingerprint
        if self.autoencoder is not None:
            data["autoencoder"] = model_fingerprint(self.autoencoder, own_config(self.autoencoder))
        backbones = " ".join(backbone.fingerprint for backbone in self.backbones)
        return {**self.args.own_settings(), "backbone": backbones, **data}
