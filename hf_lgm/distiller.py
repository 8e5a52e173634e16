"""The method: synthetic images whose gradient for a random probe points where the real images' gradient points."""

import functools
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import repeat
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

from .augmentation import random_views
from .backbone import FrozenBackbone
from .baselines import centroid_rows, random_rows, real_image_set
from .callbacks import LossBar, Timelapse
from .checkpoint import checkpoint_signals
from .chunking import find_chunk_size
from .config import LGMConfig
from .data import LabelledImages
from .distilled_set import DistilledSet
from .encoding import ChunkedEncoding
from .evaluation import evaluate_probe
from .features import OnlineFeatures, extract_features, placed
from .loading import align_classes, check_classes
from .objectives import LabelledFeatures, balanced_weights, feature_gradient, uniform_weights
from .parallel import check_processes, gather_rows, owned_range, to_device
from .probe import ProbeProtocol
from .provenance import describe_images
from .randomness import seeded_generator
from .run import ResumableRun
from .streaming import StreamEncoder
from .synthetic import SyntheticImages
from .versions import library_versions

logger = logging.getLogger(__name__)


class LGMDistiller(ResumableRun):
    """Distils a labelled image dataset through a frozen backbone by linear gradient matching (arXiv 2511.16674).

    Trainer-style: `train`, `evaluate`, `save_model` and `push_to_hub`, with Transformers' callbacks and trackers. Each
    process owns a slice of the synthetic images with its optimizer state; what processes exchange is features.

    Args:
        model (`str`, `torch.nn.Module` or [`FrozenBackbone`]): Hub id or folder, a live model, or a backbone.
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
        model: str | nn.Module | FrozenBackbone,
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
        self.backbone = FrozenBackbone.wrap(model, processing_class).to(self.accelerator.device)
        if self.args.bf16 and self.backbone.dtype == torch.float32:
            self.backbone = self.backbone.cast(torch.bfloat16)
        if self.args.torch_compile:
            self.backbone.compile_model(self.args.torch_compile_backend, self.args.torch_compile_mode)
        encoder = StreamEncoder([self.backbone], self.accelerator, self.args.per_device_eval_batch_size)
        self.train_images = LabelledImages.wrap(train_dataset, encoder)
        check_classes(self.train_images, self.args.images_per_class)
        self.eval_images = None
        if eval_dataset is not None:
            self.eval_images = align_classes(LabelledImages.wrap(eval_dataset, encoder), self.train_images.class_names)
        self.provenance = provenance or {}
        self.seconds, self.results, self.chunk_size = 0.0, [], self.args.chunk_size
        self.labels = torch.arange(self.train_images.num_classes).repeat_interleave(self.args.images_per_class)
        self.owned = owned_range(len(self.labels), self.accelerator.process_index, self.accelerator.num_processes)
        self.images = self._new_images()
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
        real_features = self._real_features()
        self.chunk_size = self.chunk_size or self._find_chunk_size()
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        with checkpoint_signals() as signals:
            for step in range(self.state.global_step, self.args.max_steps):
                self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
                self._grow_if_due(step)
                loss = self.training_step(step, next(real_features))
                self.control = self.callback_handler.on_pre_optimizer_step(self.args, self.state, self.control)
                self.optimizer.step()
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

    def training_step(self, step: int, real: LabelledFeatures) -> torch.Tensor:
        """One step of linear gradient matching (paper, section 3.1): the loss, and gradients on the image parameters.

        Args:
            step (`int`): Decides the random probe and the views.
            real ([`LabelledFeatures`]): The real features.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.results = []  # were those of other images
        W = to_device(self._draw_probe(step), self.accelerator.device)  # (C, D)
        encode = functools.partial(self._encode_views, step=step)
        encoding = ChunkedEncoding(encode, self.images(), torch.tensor(self.owned), self.chunk_size)
        z = gather_rows(self.accelerator, encoding.z, len(self.labels)).flatten(0, 1)  # (n * K, D)
        y = self._view_labels
        loss, dz = feature_gradient(LabelledFeatures(z, y, uniform_weights(y)), real, W)
        dz = dz.unflatten(0, (len(self.labels), self.args.views_per_step))  # (n, K, D)
        encoding.backward(dz[self.owned.start : self.owned.stop])
        self._watch(loss, step)
        return loss

    def evaluate(self, protocol: ProbeProtocol | None = None) -> dict[str, float]:
        """Accuracy, in percent, of probes trained on the 8-bit images as they are now.

        Returns `eval_accuracy`, `eval_accuracy_std`, `eval_accuracy_top5` with more than five classes, and
        `eval_accuracy_worst_group` where there are groups.

        Args:
            protocol ([`ProbeProtocol`], *optional*): How they are trained; `args.probe_protocol` where not given.

        Raises:
            ValueError: If there is no `eval_dataset`.
        """
        if self.eval_images is None:
            raise ValueError("evaluate() needs an eval_dataset: pass one to LGMDistiller.")
        result = evaluate_probe(
            self.backbone,
            self.distilled_set(),
            self.eval_images,
            accelerator=self.accelerator,
            protocol=protocol or self.args.probe_protocol,
            batch_size=self.args.per_device_eval_batch_size,
            num_workers=self.args.dataloader_num_workers,
        )
        self.results = result.rows()
        metrics = {"eval_accuracy": result.mean, "eval_accuracy_std": result.std}
        names = {"top-5": "eval_accuracy_top5", "worst group": "eval_accuracy_worst_group"}
        metrics |= {names[row["metric"]]: row["mean"] for row in result.rows() if row["metric"] in names}
        self._log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def distilled_set(self) -> DistilledSet:
        """The images as they are now, rounded to 8 bits, with how they were made. Every process must ask for it."""
        pixels = gather_rows(self.accelerator, self.images(), len(self.labels))
        config = {
            "settings": self.args.own_settings(),
            "changed_settings": self.args.changed_settings(),
            "backbone": self.backbone.describe(),
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
        distilled = DistilledSet.from_pixels(pixels, self.labels.tolist(), self.train_images.class_names, config)
        return distilled.with_results(self.results)

    def _encode_views(self, pixels: torch.Tensor, image_ids: torch.Tensor, step: int) -> torch.Tensor:
        """Features of shape (m, views_per_step, D) of random views of m images."""
        views = self.args.views_per_step
        if len(pixels) == 0:
            return pixels.new_zeros(0, views, self.backbone.dim)
        crops = random_views(
            pixels, image_ids.tolist(), views, self.backbone.image_size, self.args.views, self.args.seed, step
        )
        return self.backbone(crops).unflatten(0, (len(pixels), views))

    @functools.cached_property
    def _view_labels(self) -> torch.Tensor:
        """Shape (n * K,), on the device."""
        return self.labels.repeat_interleave(self.args.views_per_step).to(self.accelerator.device)

    def _find_chunk_size(self) -> int:
        """As many images as fit beside all that the steps will need; a fixed number where the device does not say."""
        image = self.backbone.mean.new_zeros(self.backbone.mean.shape[1], self.images.size, self.images.size)
        found = find_chunk_size(functools.partial(self._encode_views, step=0), image, len(self.owned))
        return found or self.args.default_chunk_size

    def _draw_probe(self, step: int) -> torch.Tensor:
        generator = seeded_generator(self.args.seed, "probe", step)
        return self.args.probe_std * torch.randn(self.train_images.num_classes, self.backbone.dim, generator=generator)

    def _real_features(self) -> Iterator[LabelledFeatures]:
        """The real side of each step that is still to do."""
        args = self.args
        if args.real_features == "online":
            online = OnlineFeatures(
                self.backbone,
                self.train_images,
                len(self.labels) * args.views_per_step,
                args.views,
                args.seed,
                self.accelerator,
                args.dataloader_num_workers,
            )
            return online.batches(self.state.global_step, args.max_steps)
        z = placed(self._cached_features(), self.accelerator.device)
        y = self.train_images.labels.to(z.device)
        logger.info("%d real features of size %d on %s, all of them in every step", *z.shape, z.device)
        return repeat(LabelledFeatures(z, y, balanced_weights(y) if args.balance_classes else uniform_weights(y)))

    def _cached_features(self) -> torch.Tensor:
        return extract_features(
            self.backbone,
            self.train_images,
            self.accelerator,
            self.args.per_device_eval_batch_size,
            self.args.dataloader_num_workers,
        )

    def _new_images(self) -> SyntheticImages:
        args, size = self.args, self.backbone.preprocessing.synthetic_size
        return SyntheticImages(self.owned, size, args.seed, args.parameterization).to(self.backbone.mean)

    def _initialize_images(self) -> None:
        """Let the images begin as real ones of their classes, where that is asked for."""
        if self.args.init == "noise":
            return
        images, per_class = self.train_images, self.args.images_per_class
        if self.args.init == "random":
            rows = random_rows(images.labels, images.num_classes, per_class, self.args.seed)
        else:
            rows = centroid_rows(self._cached_features(), images.labels, images.num_classes, per_class)
        own_rows = rows[self.owned.start : self.owned.stop]
        if len(own_rows) == 0:  # more processes than images
            self.images.set_num_levels(len(self.images.sides))
            return
        real = real_image_set(images, own_rows, self.images.size, self.backbone.preprocessing.resize_ratio)
        self.images.start_from(real.pixels())

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
        return {**self.args.own_settings(), "backbone": self.backbone.fingerprint, **data}
