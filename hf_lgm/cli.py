"""What the scripts share: flags and their YAML file, loading, and errors as one sentence."""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from datasets.exceptions import DatasetsError
from transformers import HfArgumentParser

from .backbone import FrozenBackbone
from .checkpoint import all_checkpoints
from .config import LGMConfig, ignored_fields
from .data import LabelledImages
from .demo import DEMO_DATASET, DEMO_MODELS
from .distilled_set import DATA_FILE, PUBLISHED_FILES
from .hub import existing_path_or_id
from .loading import load_images
from .pooling import Pooling
from .streaming import StreamEncoder

logger = logging.getLogger(__name__)

# What a user can mend: files, the Hub, the disk, a missing package, a dataset, the memory, a setting.
_MENDABLE = (OSError, ImportError, DatasetsError, torch.OutOfMemoryError, ValueError, TypeError, FloatingPointError)

DEFAULT_DATASET = "clane9/imagenet-100"
# Downloads that nobody should start without knowing.
_SIZES = {DEFAULT_DATASET: "about 8 GB, ImageNet-100 with images of 160 pixels"}


@dataclass
class ModelArguments:
    """The backbones."""

    model: str | None = field(
        default=None, metadata={"help": "Backbone to distil through: Hub id, folder, or a demo's."}
    )
    eval_models: list[str] = field(
        default_factory=list, metadata={"help": "Other backbones to evaluate the images on; NAME@SIDE sets the side."}
    )
    feature_pooling: Pooling | None = field(
        default=None, metadata={"help": "cls, pooler, mean, gap or projection; asked of the model where not given."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the images; the processor's where not given."}
    )
    resize_ratio: float | None = field(
        default=None, metadata={"help": "Resize of real images before the crop; 1 keeps all of a square image."}
    )
    image_mean: list[float] | None = field(default=None, metadata={"help": "Mean of --model's input, in [0, 1]."})
    image_std: list[float] | None = field(default=None, metadata={"help": "Standard deviation of --model's input."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of --model."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Let code of the model's repository run."})

    def load(self, dtype: torch.dtype = torch.float32) -> list[FrozenBackbone]:
        """The backbone to distil through, in the given precision, then those to evaluate on.

        Raises:
            ValueError: If two have the same name, which would be one column of the table.
        """
        names = [self.model or DEMO_MODELS[0], *self.eval_models]
        only_first: dict[str, Any] = {
            "feature_pooling": self.feature_pooling,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "revision": self.revision,
            "dtype": dtype,
        }
        backbones = []
        for position, name in enumerate(names):
            name, _, side = name.partition("@")
            backbones.append(
                FrozenBackbone.from_pretrained(
                    name,
                    image_size=int(side) if side else self.image_size,
                    resize_ratio=self.resize_ratio,
                    trust_remote_code=self.trust_remote_code,
                    **(only_first if position == 0 else {}),
                )
            )
        called = [backbone.name for backbone in backbones]
        if len(set(called)) < len(called):
            raise ValueError(f"Two backbones have the same name: {', '.join(called)}. Rename a folder.")
        return backbones


@dataclass
class DataArguments:
    """The real images."""

    dataset: str | None = field(
        default=None, metadata={"help": f"Hub id, or folder of images or parquet files; default {DEFAULT_DATASET}."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    train_split: str = field(default="train", metadata={"help": "Split to distil."})
    eval_split: str | None = field(default=None, metadata={"help": "Split to evaluate on; found where not given."})
    image_column_name: str | None = field(default=None, metadata={"help": "Column of the images; found by its type."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of the labels; found by its type."})
    group_column_name: str | None = field(
        default=None,
        metadata={"help": "Column of groups, such as backgrounds: the worst group is shown."},
    )
    classes: list[str] = field(default_factory=list, metadata={"help": "Names or numbers of the classes to use; all."})
    skip_bad_images: bool = field(default=False, metadata={"help": "Leave out and count images that can't be read."})
    streaming: bool = field(
        default=False, metadata={"help": "Read each split once and store no images; the table has no centroid row."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Use this many, as many of each class."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use this many, as many of each class."})

    def choose(self, model: str | None) -> str:
        """The dataset to use: the digits go with the demo's backbones.

        Raises:
            ValueError: If a dataset is given without a backbone.
        """
        if self.dataset is None:
            return DEMO_DATASET if model is None or model in DEMO_MODELS else DEFAULT_DATASET
        if model is None:
            raise ValueError(
                f"--dataset needs a --model to distil it through, such as {', '.join(DEMO_MODELS)} or a Hub id."
            )
        existing_path_or_id(self.dataset, "--dataset")  # before a backbone is downloaded
        return self.dataset

    def load(
        self, dataset: str, backbones: list[FrozenBackbone], args: LGMConfig
    ) -> tuple[LabelledImages, LabelledImages]:
        """The images to distil and those to evaluate on; a stream is encoded through the backbones."""
        if dataset in _SIZES and not Path(dataset).is_dir() and not self.streaming:
            logger.warning("Downloading %s unless it is cached: %s", dataset, _SIZES[dataset])
        stream_encoder = None
        if self.streaming:
            stream_encoder = StreamEncoder(
                backbones,
                Accelerator(cpu=args.use_cpu),
                args.per_device_eval_batch_size,
                args.dataloader_num_workers,
                pictures_per_class=max(args.eval_seeds, 2 * args.images_per_class),
            )
        return load_images(
            dataset,
            dataset_config=self.dataset_config,
            train_split=self.train_split,
            eval_split=self.eval_split,
            image_column_name=self.image_column_name,
            label_column_name=self.label_column_name,
            group_column_name=self.group_column_name,
            classes=self.classes,
            skip_bad_images=self.skip_bad_images,
            max_train_samples=self.max_train_samples,
            max_eval_samples=self.max_eval_samples,
            seed=args.seed,
            stream_encoder=stream_encoder,
        )


def parse_arguments(
    types: Sequence[Any], description: str, argv: Sequence[str], default_config: Path
) -> tuple[Any, ...]:
    """Objects of the given dataclasses from flags, over a YAML file, over their defaults.

    Args:
        types (`Sequence[type]`): Dataclasses.
        description (`str`): What `--help` begins with.
        argv (`Sequence[str]`): The flags.
        default_config (`Path`): The YAML file that is read where neither one, nor a model, nor a dataset is named.

    Raises:
        FileNotFoundError: If the YAML file is not there.
        ValueError: If it holds something that is not a flag.
    """
    parser = HfArgumentParser(list(types), description=description)
    parser.add_argument("--config", type=Path, help="YAML file of flags; those on the command line go before it.")
    parser.set_defaults(output_dir="")
    hidden = ignored_fields()
    for action in parser._actions:
        if action.dest in hidden:  # as they are; LGMConfig refuses by name what is given all the same
            action.help, action.type, action.default = argparse.SUPPRESS, None, hidden[action.dest]
    given = parser.parse_known_args(argv)[0]
    config = given.config if given.config or given.model or given.dataset else default_config
    if config is not None:
        parser.set_defaults(**_read_yaml(config, {action.dest: action for action in parser._actions}))
    return parser.parse_args_into_dataclasses(list(argv), look_for_args_file=False)[: len(types)]


def default_output_dir(dataset: str, model: str | None, images_per_class: int) -> str:
    """`outputs/<dataset>-lgm-<model>-ipc<k>`."""
    return f"outputs/{Path(dataset).name}-lgm-{Path(model or DEMO_MODELS[0]).name}-ipc{images_per_class}"


def prepare_output_dir(args: LGMConfig, overwrite: bool) -> None:
    """Refuse to write over a run, unless it goes on or was given up; only our own files are ever removed.

    Raises:
        ValueError: If there is one.
    """
    folder = Path(args.output_dir)
    found = [path.name for path in all_checkpoints(folder)] + ([DATA_FILE] if (folder / DATA_FILE).exists() else [])
    if overwrite:
        for path in [*all_checkpoints(folder), folder / "runs"]:
            shutil.rmtree(path, ignore_errors=True)
        for name in (*PUBLISHED_FILES, "comparison.png", "timelapse.gif"):
            (folder / name).unlink(missing_ok=True)
    elif found and not args.resume_from_checkpoint:
        raise ValueError(f"{folder}: found {found[-1]}: add --resume_from_checkpoint auto or --overwrite")


def without_folders(flag: str) -> str:
    """A flag as it may be published: of a path its last part."""
    return Path(flag).name if Path(flag.partition("@")[0]).exists() or Path(flag).is_absolute() else flag


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user can mend is one sentence on standard error, and exit status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hf_lgm").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    _use_all_cores()
    try:
        _check_launch()
        main()
    except _MENDABLE as error:
        if os.environ.get("HF_LGM_TRACEBACK"):
            raise
        advice = ""
        if isinstance(error, torch.OutOfMemoryError):
            advice = " Use a smaller --chunk_size, --views_per_step or --per_device_eval_batch_size."
        sys.exit(f"\nerror: {error}{advice}\n(HF_LGM_TRACEBACK=1 shows where)")


def _check_launch() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process and says nothing."""
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "This launch was meant for several processes and started one. For several on a CPU: "
            "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 scripts/distill.py"
        )


def _use_all_cores() -> None:
    """`accelerate launch` gives a CPU process one core; one process alone may have them all."""
    if os.environ.get("WORLD_SIZE", "1") == "1" and not torch.accelerator.is_available():
        torch.set_num_threads(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )


def _read_yaml(path: Path, known: dict[str, argparse.Action]) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file '{path}'.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--config: {path} is not YAML: {error}") from error
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"--config: {path} has unknown flags: {', '.join(unknown)}. --help lists those there are.")
    for name, value in values.items():
        if known[name].nargs in ("+", "*"):  # one value where a list is meant
            values[name] = value if isinstance(value, list) else [value]
        elif value is False and name.endswith("_strategy"):  # YAML's reading of a bare no
            values[name] = "no"
    return values
