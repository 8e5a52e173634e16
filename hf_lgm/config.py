"""The settings of a distillation: `TrainingArguments`, with what linear gradient matching adds and what it forbids."""

import dataclasses
import functools
import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.utils import strtobool

from .augmentation import ViewSettings
from .hub import without_folders
from .inherited import INSTEAD, default_of, ignored_fields, parent_fields
from .objectives import Objective
from .probe import ProbeProtocol, ProtocolName
from .synthetic import Parameterization

Initialization = Literal["noise", "centroid", "random"]
RealFeatures = Literal["cached", "online"]

_VIEWS_PER_CHUNK = 128


@dataclass
class LGMConfig(TrainingArguments):
    """What a distillation is made with.

    Defaults that differ from `TrainingArguments`: `output_dir`, `max_steps`, `learning_rate`, `logging_steps`,
    `save_steps`, `save_total_limit`, `per_device_eval_batch_size`. An inherited field that has no meaning here may not
    be moved from its default: a `ValueError` names it and what to use instead.

    `max_steps=300`, `learning_rate=0.02` and `views_per_step=10` were measured on CIFAR-10 (500 images per class, 96
    pixels) through MobileNetV1 0.25 and 0.5. Top-1 on the same backbone at a learning rate of 0.01: 53.5 and 57.4; at
    0.02: 55.0 and 59.0; on the first also 55.2 at 0.03 and 55.1 at 0.05, with transfer falling by up to four points.
    Twice the steps with half the views cost the same time and gave 53.9 at 0.01.

    Args:
        images_per_class (`int`, *optional*, defaults to 1): Synthetic images of each class.
        parameterization (`str`, *optional*, defaults to `"pyramid"`): `"pyramid"` (paper, section 3.2), `"pixel"`, or
            `"latent"`: what the autoencoder `vae` draws of learned latents.
        vae (`str`, *optional*): Its Hub id or folder: an `AutoencoderKL` or `AutoencoderTiny` of diffusers, or a
            pipeline with one.
        growth_share (`float`, *optional*, defaults to 0.32): Share of the run in which the pyramid's levels are added.
        init (`str`, *optional*, defaults to `"noise"`): What the images start from: `"noise"`, the real image nearest
            to its class mean (`"centroid"`), a `"random"` real image of the class, or an earlier set: its folder or
            Hub id.
        max_steps (`int`, *optional*, defaults to 300): Optimisation steps.
        learning_rate (`float`, *optional*, defaults to 0.02): Adam's, on the image parameters, constant.
        views_per_step (`int`, *optional*, defaults to 10): Random views of each synthetic image in each step.
        flip (`bool`, *optional*, defaults to `True`): See [`ViewSettings`], also for the next three.
        crop_scale (`list[float]`, *optional*, defaults to `[0.08, 1.0]`): Likewise.
        noise_std (`float`, *optional*, defaults to 0.2): Likewise.
        noise_mean (`float`, *optional*, defaults to 0.0): Likewise.
        real_features (`str`, *optional*, defaults to `"cached"`): `"cached"`: the centre views of all real images,
            computed once, all of them in every step; `"online"`: a batch of random views in each step (the paper).
        balance_classes (`bool`, *optional*, defaults to `True`): Let cached classes count equally, however many images
            they have.
        cluster_classes (`bool`, *optional*, defaults to `True`): Let each of several images of a class stand for a
            cluster of its real images, as if these were classes; else nothing makes them differ but their start.
        objective (`str`, *optional*, defaults to `"lgm"`): `"lgm"`: linear gradient matching (the paper); `"ridge"`:
            natural gradients, and the loss of a closed-form ridge probe (see
            [`~hf_lgm.objectives.ridge_and_natural_gradient`]).
        label_learning_rate (`float`, *optional*, defaults to 0.0): Adam's, on the labels, which are then learned
            as distributions over classes and stored as `soft_label`; at zero they stay what they are.
        probe_std (`float`, *optional*, defaults to 0.01): Standard deviation of the random probe's weights. Zero
            matches class means alone, which is SFM (arXiv 2602.05391).
        chunk_size (`int`, *optional*): Synthetic images encoded at a time on each process; where not given, as many as
            fit into the memory of a GPU, and on a CPU as many as make 128 views. The result does not depend on it,
            memory does, and all chunks but one cost a second forward pass.
        bf16 (`bool`, *optional*): Precision of the backbone's weights, bfloat16 or float32; where not given, bfloat16
            on GPUs that have it. The objective is always computed in float32.
        torch_compile (`bool`, *optional*, defaults to `False`): Compile the backbone, with `torch_compile_backend` and
            `torch_compile_mode` as in Transformers.
        eval_seeds (`int`, *optional*, defaults to 5): Probes that an accuracy is the mean of.
        eval_protocol (`str`, *optional*, defaults to `"fast"`): How they are trained, `"fast"` or `"paper"`, see
            [`ProbeProtocol`].
        eval_learning_rate (`float`, *optional*): Another learning rate than the protocol's.
        hub_dataset_id (`str`, *optional*): Repository `user/name` that the images are published in at the end of
            training, with `push_to_hub`; `hub_private_repo` and `hub_token` as in Transformers.

    Raises:
        ValueError: If a value is out of its range, or an inherited field without meaning was moved.
    """

    output_dir: str = field(default="outputs/lgm", metadata={"help": "Where everything is written."})
    max_steps: int = field(default=300, metadata={"help": "Optimisation steps."})
    learning_rate: float = field(default=2e-2, metadata={"help": "Adam's learning rate on the image parameters."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two logged losses."})
    save_steps: float = field(default=100, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep; the oldest go first."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images per forward pass without gradient."})
    dataloader_num_workers: int = field(
        default=-1, metadata={"help": "Processes that decode images; -1: as many as cores beside a GPU, else none."}
    )

    bf16: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Backbone in bfloat16 or float32; bfloat16 on GPUs that have it, if not given."},
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "A checkpoint's folder, or 'auto': the newest in --output_dir, if any."},
    )
    images_per_class: int = field(default=1, metadata={"help": "Synthetic images of each class."})
    parameterization: Parameterization = field(
        default="pyramid",
        metadata={"help": "'pyramid': levels that join coarse to fine; 'pixel': plain pixels; 'latent': see --vae."},
    )
    vae: str | None = field(
        default=None, metadata={"help": "Autoencoder of 'latent': a Hub id such as madebyollin/taesd, or a folder."}
    )
    growth_share: float = field(
        default=0.32, metadata={"help": "Share of the run in which the pyramid's levels are added."}
    )
    init: str = field(
        default="noise",
        metadata={"help": "Start from 'noise', the 'centroid' real image of the class, a 'random' one, or a set."},
    )
    views_per_step: int = field(default=10, metadata={"help": "Random views of each synthetic image in each step."})
    flip: bool = field(default=True, metadata={"help": "Mirror half of the views; wrong for digits and text."})
    crop_scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0], metadata={"help": "Smallest and largest area of a view, as shares."}
    )
    noise_std: float = field(default=0.2, metadata={"help": "Noise that half of the views get, in units of [0, 1]."})
    noise_mean: float = field(default=0.0, metadata={"help": "Mean of that noise; 0.5 in the paper's first release."})
    real_features: RealFeatures = field(
        default="cached",
        metadata={
            "help": "'cached': all real images in every step, encoded once; 'online': the paper's random batches."
        },
    )
    balance_classes: bool = field(
        default=True, metadata={"help": "Let cached classes count equally, whatever their size."}
    )
    cluster_classes: bool = field(
        default=True, metadata={"help": "Let each of several images of a class stand for a cluster of it."}
    )
    objective: Objective = field(
        default="lgm",
        metadata={"help": "'lgm': the paper's; 'ridge': natural gradients and a ridge probe, the better one so far."},
    )
    label_learning_rate: float = field(
        default=0.0, metadata={"help": "Learn soft labels too, at this rate of Adam's; 0: labels stay as they are."}
    )
    probe_std: float = field(default=0.01, metadata={"help": "Standard deviation of the random probe; 0 is SFM."})
    chunk_size: int | None = field(
        default=None,
        metadata={"help": "Synthetic images encoded at a time: less memory, same result, more time; as many as fit."},
    )
    eval_seeds: int = field(default=5, metadata={"help": "Probes that an accuracy is the mean of."})
    eval_protocol: ProtocolName = field(
        default="fast", metadata={"help": "'fast': cached views; 'paper': fresh views and the paper's learning rate."}
    )
    eval_learning_rate: float | None = field(
        default=None, metadata={"help": "Another learning rate of these probes than the protocol's."}
    )
    hub_dataset_id: str | None = field(
        default=None, metadata={"help": "Repository 'user/name' that --push_to_hub publishes the images in."}
    )

    def __post_init__(self) -> None:
        self._check_inherited_fields()
        self._check_values()
        self._check_choices()
        self._check_init()
        self.bf16 = self._bf16_by_default if self.bf16 is None else self.bf16
        super().__post_init__()
        if self.eval_strategy == "epoch" or self.save_strategy in ("epoch", "best"):
            raise ValueError(
                "There are no epochs and nothing is selected: eval_strategy and save_strategy are no or steps."
            )

    @functools.cached_property
    def _setup_devices(self) -> torch.device:
        """The device; joins Accelerate's state where there is one.

        Transformers resets that state for every new `TrainingArguments`, under the hands of a distiller that exists.
        """
        cpu = self.use_cpu or bool(strtobool(os.environ.get("ACCELERATE_USE_CPU", "false")))
        timeout = timedelta(seconds=self.ddp_timeout)
        self.distributed_state = PartialState(cpu=cpu, backend=self.ddp_backend, timeout=timeout)
        self._n_gpu = int(self.distributed_state.device.type != "cpu")
        return self.distributed_state.device

    @classmethod
    def paper(cls, **overrides: Any) -> "LGMConfig":
        """The paper's protocol: 5,000 steps on random batches of real views, counted as they come."""
        settings = {
            "max_steps": 5000,
            "learning_rate": 2e-3,
            "real_features": "online",
            "balance_classes": False,
            "cluster_classes": False,
            "eval_protocol": "paper",
            "save_steps": 500,
        }
        return cls(**{**settings, **overrides})

    @property
    def default_chunk_size(self) -> int:
        """Images encoded at a time where nothing says how many fit, as on a CPU: for the speed as good as any."""
        return max(1, _VIEWS_PER_CHUNK // self.views_per_step)

    @property
    def has_parts(self) -> bool:
        """Whether several images of a class are told apart."""
        return self.cluster_classes and self.images_per_class > 1 and self.real_features == "cached"

    @property
    def begins_with_set(self) -> bool:
        """Whether `init` is an earlier set's folder or Hub id."""
        return self.init not in get_args(Initialization)

    @property
    def probe_protocol(self) -> ProbeProtocol:
        """How probes are trained that the images are evaluated by."""
        return ProbeProtocol.named(self.eval_protocol, self.eval_learning_rate, self.eval_seeds)

    @property
    def views(self) -> ViewSettings:
        """How views of the synthetic images are made."""
        areas: Any = tuple(self.crop_scale)
        return ViewSettings(self.flip, areas, noise_std=self.noise_std, noise_mean=self.noise_mean)

    @property
    def _bf16_by_default(self) -> bool:
        is_gpu = torch.cuda.is_available() and not self.use_cpu
        return is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)

    def check_streaming(self) -> None:
        """Refuse settings that need the real images more than once.

        Raises:
            ValueError: If there is one.
        """
        for name, wanted in (("init", "noise"), ("real_features", "cached")):
            if getattr(self, name) != wanted and not (name == "init" and self.begins_with_set):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs the real images again, and a stream is read once: use "
                    f"{name}={wanted!r}, or do not stream the dataset."
                )

    def own_settings(self) -> dict[str, Any]:
        """Everything that decides the result, as it goes into files: no paths, no logging."""
        names = [f.name for f in dataclasses.fields(LGMConfig) if f.name not in parent_fields()]
        inherited = ["max_steps", "learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon", "seed", "bf16"]
        without = ("chunk_size", "eval_seeds", "eval_protocol", "eval_learning_rate", "hub_dataset_id")
        settings = {name: getattr(self, name) for name in [*names, *inherited] if name not in without}
        named = {"init": without_folders(self.init) if self.begins_with_set else self.init}
        return {**settings, **named, "vae": self.vae and without_folders(self.vae)}

    def changed_settings(self) -> list[str]:
        """Which of these are not at their defaults."""
        fields_ = {f.name: f for f in dataclasses.fields(LGMConfig)}
        defaults = {name: default_of(of) for name, of in fields_.items()} | {"bf16": self._bf16_by_default}
        return [name for name, value in self.own_settings().items() if value != defaults[name]]

    def _check_inherited_fields(self) -> None:
        for name, default in ignored_fields().items():
            value = getattr(self, name)
            is_default = value == default or (not value and not default)  # __post_init__ makes None False, and so on
            if not is_default and value != AcceleratorConfig():
                instead = INSTEAD.get(name)
                advice = f"use {instead}" if instead else "it has no meaning for a distillation: leave it out"
                raise ValueError(f"LGMConfig does not take {name}={value!r}; {advice}.")

    def _check_values(self) -> None:
        for name in ("images_per_class", "views_per_step", "max_steps", "eval_seeds", "chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}.")
        if self.push_to_hub and not self.hub_dataset_id:
            raise ValueError("push_to_hub needs to know where to: set hub_dataset_id to 'user/name'.")
        if not 0 <= self.growth_share <= 1:
            raise ValueError(f"growth_share is a share of the run between 0 and 1, found {self.growth_share}.")
        _ = self.views  # refuses crops
        for name in ("noise_std", "probe_std", "learning_rate", "label_learning_rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} can't be negative, found {getattr(self, name)}.")

    def _check_choices(self) -> None:
        for name, choices in (
            ("objective", Objective),
            ("parameterization", Parameterization),
            ("real_features", RealFeatures),
            ("eval_protocol", ProtocolName),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, found {getattr(self, name)!r}."
                )
        if (self.parameterization == "latent") != (self.vae is not None):
            raise ValueError(
                "parameterization='latent' and vae belong together: the autoencoder that draws the images, such as "
                "madebyollin/taesd."
            )
        if self.has_parts and self.objective == "lgm" and self.label_learning_rate:
            raise ValueError(
                "With several images per class the labels that lgm matches are clusters: to learn soft labels too, "
                "use objective='ridge' or cluster_classes=False."
            )
        if self.objective == "ridge" and self.real_features != "cached":
            raise ValueError("objective='ridge' scores its probe on all real features: use real_features='cached'.")

    def _check_init(self) -> None:
        if self.begins_with_set and "/" not in self.init and not Path(self.init).expanduser().is_dir():
            words = ", ".join(get_args(Initialization))
            raise ValueError(
                f"init must be one of {words}, or an earlier set (a folder or 'user/name'), found {self.init!r}."
            )
