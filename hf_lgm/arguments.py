"""The flags that all scripts share: which backbones and which real images."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .backbone import FrozenBackbone
from .columns import find_label_column
from .config import LGMConfig
from .data import LabelledImages
from .demo import DEMO_DATASET, DEMO_MODELS
from .hub import existing_path_or_id, without_folders
from .loading import EVAL_SPLITS, load_images
from .planning import DatasetSize
from .pooling import Pooling
from .provenance import describe_source
from .splits import dataset_info, is_streamable
from .streaming import StreamEncoder

logger = logging.getLogger(__name__)

DEFAULT_DATASET = "clane9/imagenet-100"
# Downloads that nobody should start without knowing.
_SIZES = {DEFAULT_DATASET: "about 8 GB, ImageNet-100 with images of 160 pixels"}


@dataclass
class ModelArguments:
    """The backbones."""

    model: list[str] = field(
        default_factory=list,
        metadata={"help": f"Hub ids, folders, or {' or '.join(DEMO_MODELS)}; NAME@SIDE sets the side of the images."},
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
    image_mean: list[float] | None = field(
        default=None, metadata={"help": "Mean of the first --model's input, in [0, 1]."}
    )
    image_std: list[float] | None = field(
        default=None, metadata={"help": "Standard deviation of the first --model's input."}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the first --model."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Let code of the models' repositories run."})

    def load(
        self, names: Sequence[str], dtype: torch.dtype = torch.float32, also: Sequence[str] = ()
    ) -> list[FrozenBackbone]:
        """The named backbones in the given precision, and others in float32.

        Raises:
            ValueError: If two have the same name, which would be one column of the table.
        """
        wanted = [(name, dtype) for name in names] + [(name, torch.float32) for name in also]
        return _named_differently([self._load(name, number, in_) for number, (name, in_) in enumerate(wanted)])

    def load_each(self, names: Sequence[str]) -> tuple[list[FrozenBackbone], dict[str, str]]:
        """Those of the named backbones that can be loaded, and for the others what was said.

        Raises:
            ValueError: If none can be loaded, or two have the same name.
        """
        backbones, failures = [], {}
        for number, name in enumerate(names):
            try:
                backbones.append(self._load(name, number, torch.float32))
            except (OSError, ImportError, ValueError, RuntimeError) as error:
                logger.error("%s failed, and its column stays empty: %s", name, error)
                failures[name] = str(error)
        if not backbones:
            raise ValueError(" ".join(failures.values()))
        return _named_differently(backbones), failures

    def _load(self, name: str, number: int, dtype: torch.dtype) -> FrozenBackbone:
        only_first: dict[str, Any] = {
            "feature_pooling": self.feature_pooling,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "revision": self.revision,
        }
        name, _, side = name.partition("@")
        return FrozenBackbone.from_pretrained(
            name,
            image_size=int(side) if side else self.image_size,
            resize_ratio=self.resize_ratio,
            trust_remote_code=self.trust_remote_code,
            dtype=dtype,
            **(only_first if number == 0 else {}),
        )


def _named_differently(backbones: list[FrozenBackbone]) -> list[FrozenBackbone]:
    called = [backbone.name for backbone in backbones]
    if len(set(called)) < len(called):
        raise ValueError(f"Two backbones have the same name: {', '.join(called)}. Rename a folder.")
    return backbones


@dataclass
class LoadingArguments:
    """Where files go and how images are read, where nothing is distilled; as in [`LGMConfig`]."""

    output_dir: str = field(default="", metadata={"help": "Where everything is written."})
    seed: int = field(default=42, metadata={"help": "Draws samples of the dataset, and a random baseline."})
    use_cpu: bool = field(default=False, metadata={"help": "Use no accelerator."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images per forward pass."})
    dataloader_num_workers: int = field(
        default=-1, metadata={"help": "Processes that decode images; -1: as many as cores beside a GPU, else none."}
    )


@dataclass
class DataArguments:
    """The real images."""

    dataset: str | None = field(
        default=None,
        metadata={"help": f"Hub id, or folder of images, parquet or tar files; {DEFAULT_DATASET}."},
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "What folders and cards call the data; the last part of --dataset."}
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
        default=False,
        metadata={"help": "Read each split once; of its images a few are stored, for the table."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Use this many, as many of each class."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use this many, as many of each class."})

    license: str | None = field(
        default=None, metadata={"help": "Licence of the data, for the card, such as cc-by-4.0."}
    )
    license_name: str | None = field(default=None, metadata={"help": "Its name, where --license is other."})
    license_link: str | None = field(default=None, metadata={"help": "Its address, where --license is other."})

    def choose(self, models: Sequence[str]) -> str:
        """The dataset to use: the digits go with the demo's backbones.

        Raises:
            ValueError: If a dataset is given without a backbone.
        """
        if self.dataset is None:
            names = {model.partition("@")[0] for model in models}
            return DEMO_DATASET if names <= set(DEMO_MODELS) else DEFAULT_DATASET
        if not models:
            raise ValueError(
                "--dataset needs a --model to see it through: a folder, or a Hub id such as facebook/dinov2-base."
            )
        existing_path_or_id(self.dataset, "--dataset")  # before a backbone is downloaded
        return self.dataset

    def streams(self, dataset: str) -> bool:
        """Whether the images are read only once."""
        return self.streaming and is_streamable(dataset)

    def source(self, dataset: str) -> dict[str, Any]:
        """What the card says of the dataset; flags go before what it says of itself."""
        said = describe_source(dataset)
        if self.license:
            said.pop("license_declared_by", None)
        elif "license_declared_by" in said:
            logger.info("Licence of %s: %s, declared by it, not verified", dataset, said["license"])
        source = {
            "dataset": without_folders(dataset),
            "name": self.dataset_name or Path(dataset).name,
            "config": self.dataset_config,
            "image_column_name": self.image_column_name,
            "label_column_name": self.label_column_name,
            "has_selected_classes": bool(self.classes),
            "license": self.license,
            "license_name": self.license_name,
            "license_link": self.license_link,
        }
        return {**said, **{name: value for name, value in source.items() if value}}

    def measure(self, dataset: str, backbones: list[FrozenBackbone], args: LGMConfig) -> DatasetSize:
        """How large the dataset is: by what it says of itself, else, for what is on this disk, by looking.

        Raises:
            ValueError: If it is on the Hub and does not say.
        """
        info = dataset_info(dataset, self.dataset_config)
        label = find_label_column(info.features, self.label_column_name) if info and info.features else None
        if info and label and info.splits and self.train_split in info.splits:
            counts = {name: split.num_examples for name, split in info.splits.items()}
            wanted = [self.eval_split] if self.eval_split else EVAL_SPLITS
            evaluated = next((counts[name] for name in wanted if name in counts), 0)
            num_classes = len(self.classes) or getattr(info.features[label], "num_classes", 0)
            if num_classes:
                train = min(counts[self.train_split], self.max_train_samples or counts[self.train_split])
                return DatasetSize(num_classes, train, self.max_eval_samples or evaluated, info.download_size)
        if not Path(dataset).exists() and dataset != DEMO_DATASET:
            raise ValueError(
                f"--plan: '{dataset}' does not say how many classes and images it has, and nothing is downloaded for "
                "a plan. Download it, or run without --plan."
            )
        train_images, real = self.load(dataset, backbones, args)
        return DatasetSize(train_images.num_classes, len(train_images), len(real))

    def load(
        self,
        dataset: str,
        backbones: list[FrozenBackbone],
        args: LGMConfig | LoadingArguments,
        pictures_per_class: int = 5,
    ) -> tuple[LabelledImages, LabelledImages]:
        """The images to distil and those to evaluate on; a stream is encoded through the backbones."""
        if dataset in _SIZES and not Path(dataset).is_dir() and not self.streaming:
            logger.warning("Downloading %s unless it is cached: %s", dataset, _SIZES[dataset])
        stream_encoder = None
        if self.streams(dataset):
            stream_encoder = StreamEncoder(
                backbones,
                Accelerator(cpu=args.use_cpu),
                args.per_device_eval_batch_size,
                pictures_per_class=pictures_per_class,
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


def published_command(launch: str, flags: Sequence[str]) -> str:
    """A command as it may be published: of paths the last part, and no token."""
    shown = []
    for number, flag in enumerate(flags):
        name, equals, value = flag.partition("=") if flag.startswith("--") else ("", "", flag)
        is_secret = "token" in name or (number > 0 and "token" in flags[number - 1] and not name)
        shown.append(f"{name}{equals}{'…' if is_secret and value else without_folders(value)}")
    return shlex.join([*launch.split(), *shown])
