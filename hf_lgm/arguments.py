"""The flags that all scripts share: which backbones and which real images."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .backbone import FrozenBackbone
from .config import LGMConfig
from .data import LabelledImages
from .demo import DEMO_DATASET, DEMO_LICENSE, DEMO_MODELS
from .hub import existing_path_or_id
from .loading import load_images
from .pooling import Pooling
from .splits import is_streamable
from .streaming import StreamEncoder

logger = logging.getLogger(__name__)

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

    def choose(self, model: str | None) -> str:
        """The dataset to use: the digits go with the demo's backbones.

        Raises:
            ValueError: If a dataset is given without a backbone.
        """
        if self.dataset is None:
            return DEMO_DATASET if model is None or model in DEMO_MODELS else DEFAULT_DATASET
        if model is None:
            raise ValueError(
                "--dataset needs a --model to distil it through: a folder, or a Hub id such as facebook/dinov2-base."
            )
        existing_path_or_id(self.dataset, "--dataset")  # before a backbone is downloaded
        return self.dataset

    def streams(self, dataset: str) -> bool:
        """Whether the images are read only once."""
        return self.streaming and is_streamable(dataset)

    def source(self, dataset: str) -> dict[str, str]:
        """What the card says of the dataset."""
        of_demo = DEMO_LICENSE if dataset == DEMO_DATASET else None
        source = {
            "dataset": without_folders(dataset),
            "name": self.dataset_name or Path(dataset).name,
            "license": self.license or of_demo,
            "license_name": self.license_name,
            "license_link": self.license_link,
        }
        return {name: value for name, value in source.items() if value}

    def load(
        self, dataset: str, backbones: list[FrozenBackbone], args: LGMConfig
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
                pictures_per_class=max(args.eval_seeds, 3 * args.images_per_class),
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


def without_folders(flag: str) -> str:
    """A flag as it may be published: of a path its last part."""
    return Path(flag).name if Path(flag.partition("@")[0]).exists() or Path(flag).is_absolute() else flag
