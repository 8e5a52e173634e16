"""The settings of a distillation as Transformers' `TrainingArguments`; what has no meaning here is refused by name."""

import dataclasses
import functools
import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.utils import strtobool

from .arguments import INSTEAD, LGMArguments
from .hub import without_folders
from .schedule import learning_rate_factor
from .settings import PRESETS, ProtocolName

logger = logging.getLogger(__name__)

# Settings that decide the result: a run goes on with the same ones only, and the card shows those that were changed.
DECIDING = (
    "images_per_class",
    "real_images_per_class",
    "parameterization",
    "vae",
    "channels",
    "growth_share",
    "growth_steps",
    "init",
    "init_weight",
    "views_per_step",
    "view_sizes",
    "layers",
    "backbones_per_step",
    "flip",
    "crop_scale",
    "bounded_crops",
    "noise_std",
    "noise_mean",
    "real_features",
    "balance_classes",
    "cluster_classes",
    "objective",
    "label_learning_rate",
    "probe_std",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "seed",
    "bf16",
)


@dataclass
class LGMConfig(LGMArguments, TrainingArguments):  # type: ignore[misc]  # narrower types than Transformers'
    """What a distillation is made with: `TrainingArguments` with the fields and defaults of [`LGMArguments`].

    An inherited field that has no meaning here may not be moved from its default.

    Args:
        eval_protocol (`str`, *optional*): The former name of `protocol`, until 0.3.

    Raises:
        ValueError: If a value is out of its range, or an inherited field without meaning was moved; the message names
            it and what to use instead.
    """

    eval_protocol: ProtocolName | None = None

    def __post_init__(self) -> None:
        if self.eval_protocol is not None:
            if self.protocol not in (LGMConfig.protocol, self.eval_protocol):
                raise ValueError("protocol and its former name eval_protocol differ: give protocol alone.")
            logger.warning("eval_protocol is called protocol now; the old name goes with 0.3.")
            self.protocol, self.eval_protocol = self.eval_protocol, None
        if moved := self._moved_fields():
            name, instead = moved[0].name, INSTEAD.get(moved[0].name)
            advice = f"use {instead}" if instead else "it has no meaning for a distillation: leave it out"
            raise ValueError(f"LGMConfig does not take {name}={getattr(self, name)!r}; {advice}.")
        LGMArguments.__post_init__(self)
        self._check_backend()
        learning_rate_factor(self.lr_scheduler_type, self.max_steps)  # refuses what can't be used
        self.bf16 = self._bf16_by_default if self.bf16 is None else self.bf16
        TrainingArguments.__post_init__(self)
        self.lr_scheduler_type = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        for of in self._moved_fields():  # by Transformers, to suit others; a copy of this object is given them
            setattr(self, of.name, _default_of(of))

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
    def preset(cls, name: str, **overrides: Any) -> "LGMConfig":
        """What is chosen where nothing else is said: `default`, `paper` or `transfer`, see [`PRESETS`].

        Args:
            name (`str`): Which one.
            overrides: What is said besides.

        Raises:
            ValueError: If there is none of that name, or a value is out of its range.
        """
        if name not in PRESETS:
            raise ValueError(f"The preset must be one of {', '.join(PRESETS)}, found '{name}'.")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def paper(cls, **overrides: Any) -> "LGMConfig":
        """The paper's protocol, as its authors run it: see `docs/paper.md`."""
        return cls.preset("paper", **overrides)

    def own_settings(self) -> dict[str, Any]:
        """Everything that decides the result, as it goes into files: no paths, no logging."""
        settings = {name: getattr(self, name) for name in DECIDING}
        named = {"init": without_folders(self.init) if self.begins_with_set else self.init}
        return {**settings, **named, "vae": self.vae and without_folders(self.vae)}

    def changed_settings(self) -> list[str]:
        """Which of these are not at their defaults."""
        defaults = {of.name: _default_of(of) for of in dataclasses.fields(LGMConfig)} | {"bf16": self._bf16_by_default}
        return [name for name, value in self.own_settings().items() if value != defaults[name]]

    @property
    def _bf16_by_default(self) -> bool:
        is_gpu = torch.cuda.is_available() and not self.use_cpu
        return is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)

    def _check_backend(self) -> None:
        """Refuse what torch does not have."""
        if self.ddp_backend is not None:
            known = [name for name in torch.distributed.Backend.backend_list if name != "undefined"]
            wanted = [part.rpartition(":")[2] for part in self.ddp_backend.split(",")]  # as in cuda:nccl,cpu:gloo
            if not set(wanted) <= set(known):
                raise ValueError(f"ddp_backend must be one of {', '.join(known)}, found '{self.ddp_backend}'.")

    def _moved_fields(self) -> list[dataclasses.Field]:
        """The inherited fields without meaning here that are not at their defaults."""
        used = {of.name for of in dataclasses.fields(LGMArguments)}
        others = [of for of in dataclasses.fields(TrainingArguments) if of.name not in used]
        # `TrainingArguments` makes False of None, and an object of the accelerator's settings.
        return [
            of
            for of in others
            if (value := getattr(self, of.name)) != (default := _default_of(of))
            and (value or default)
            and value != AcceleratorConfig()
        ]


def _default_of(of: dataclasses.Field) -> Any:
    return of.default if of.default_factory is dataclasses.MISSING else of.default_factory()
