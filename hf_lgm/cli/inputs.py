"""From flags to what they name: backbones, real images, and what is known of both."""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..backbones.backbone import FrozenBackbone, check_names_differ
from ..config import LGMConfig
from ..data.columns import find_label_column
from ..data.labelled_images import LabelledImages
from ..data.loading import EVAL_SPLITS, dataset_info, is_streamable, load_images
from ..demo import DEMO_DATASET
from ..distillation.planning import DatasetSize
from ..features.extraction import FeatureExtractor
from ..features.streaming import StreamEncoder
from ..hub import without_folders
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import describe_source
from ..settings import DataOptions
from .arguments import DEFAULT_DATASET, DataArguments, ModelArguments, ReadingArguments

logger = logging.getLogger(__name__)

# Downloads that nobody should start without knowing.
_SIZES = {DEFAULT_DATASET: "about 8 GB, ImageNet-100 with images of 160 pixels"}


def load_backbones(
    args: ModelArguments, names: Sequence[str], dtype: torch.dtype = torch.float32
) -> list[FrozenBackbone]:
    """The named backbones in the given precision.

    Raises:
        ValueError: If two have the same name, which would be one column of the table.
    """
    _check_names(names)
    return _named_differently([_load(args, name, number, dtype) for number, name in enumerate(names)])


def load_each(args: ModelArguments, names: Sequence[str]) -> tuple[list[FrozenBackbone], dict[str, str]]:
    """Those of the named backbones that can be loaded, and for the others what was said.

    Raises:
        ValueError: If none can be loaded, or two have the same name.
    """
    _check_names(names)
    backbones, failures = [], {}
    for number, name in enumerate(names):
        try:
            backbones.append(_load(args, name, number, torch.float32))
        except (OSError, ImportError, ValueError, RuntimeError) as error:
            logger.error("%s failed, and its column stays empty: %s", name, error)
            failures[name] = str(error)
    if not backbones:
        raise ValueError(" ".join(failures.values()))
    return _named_differently(backbones), failures


def load_data(
    args: DataArguments,
    dataset: str,
    backbones: list[FrozenBackbone],
    loading: LGMConfig | ReadingArguments,
    kept_per_class: int = 5,
) -> tuple[LabelledImages, LabelledImages]:
    """The images to distil and those to evaluate on; a stream is encoded through the backbones.

    Args:
        args ([`DataArguments`]): What of the dataset is used.
        dataset (`str`): Hub id, folder, or the demo's digits.
        backbones (`list[FrozenBackbone]`): All that a stream has to be encoded through.
        loading ([`LGMConfig`] or [`ReadingArguments`]): How images are read.
        kept_per_class (`int`, *optional*, defaults to 5): Images of each class that are kept of a stream.
    """
    if dataset in _SIZES and not Path(dataset).is_dir() and not args.streaming:
        logger.warning("Downloading %s unless it is cached: %s", dataset, _SIZES[dataset])
    encoder = None
    if streams(args, dataset):
        accelerator, batch_size = Accelerator(cpu=loading.use_cpu), loading.per_device_eval_batch_size
        encoder = StreamEncoder(backbones, accelerator, batch_size, kept_per_class=kept_per_class)
    options = {of.name: getattr(args, of.name) for of in dataclasses.fields(DataOptions)}
    return load_images(dataset, seed=loading.seed, stream_encoder=encoder, **options)


def load_sets(names: Sequence[str]) -> dict[str, DistilledSet]:
    """Sets by the last part of their names, or as many parts as tell them apart.

    Raises:
        ValueError: If one stands twice.
    """
    paths = [Path(name).expanduser().resolve() if Path(name).expanduser().is_dir() else Path(name) for name in names]
    if len(set(paths)) < len(paths):
        raise ValueError(f"--sets names one twice: {', '.join(names)}.")
    length = next(n for n in itertools.count(1) if len({path.parts[-n:] for path in paths}) == len(paths))
    shown = ["/".join(path.parts[-length:]) for path in paths]
    return {name: DistilledSet.from_pretrained(of) for name, of in zip(shown, names, strict=True)}


def feature_extractor(loading: LGMConfig | ReadingArguments) -> FeatureExtractor:
    """What encodes real images."""
    accelerator = Accelerator(cpu=loading.use_cpu)
    return FeatureExtractor(accelerator, loading.per_device_eval_batch_size, loading.dataloader_num_workers)


def streams(args: DataArguments, dataset: str) -> bool:
    """Whether the images are read only once."""
    return args.streaming and is_streamable(dataset)


def source_of(args: DataArguments, dataset: str) -> dict[str, Any]:
    """What the card says of the dataset; flags go before what it says of itself."""
    said = describe_source(dataset)
    if args.license:
        said.pop("license_declared_by", None)
    elif "license_declared_by" in said:
        logger.info("Licence of %s: %s, declared by it, not verified", dataset, said["license"])
    source = {
        "dataset": without_folders(dataset),
        "name": args.name_of(dataset),
        "config": args.dataset_config,
        "image_column_name": args.image_column_name,
        "label_column_name": args.label_column_name,
        "has_selected_classes": bool(args.classes),
        "license": args.license,
        "license_name": args.license_name,
        "license_link": args.license_link,
    }
    return {**said, **{name: value for name, value in source.items() if value}}


def measure(args: DataArguments, dataset: str, backbones: list[FrozenBackbone], config: LGMConfig) -> DatasetSize:
    """How large the dataset is: by what it says of itself, else, for what is on this disk, by looking.

    Raises:
        ValueError: If it is on the Hub and does not say.
    """
    info = dataset_info(dataset, args.dataset_config)
    label = find_label_column(info.features, args.label_column_name) if info and info.features else None
    if info and label and info.splits and args.train_split in info.splits:
        counts = {name: split.num_examples for name, split in info.splits.items()}
        wanted = [args.eval_split] if args.eval_split else EVAL_SPLITS
        evaluated = next((counts[name] for name in wanted if name in counts), 0)
        num_classes = len(args.classes) or getattr(info.features[label], "num_classes", 0)
        if num_classes:
            train = min(counts[args.train_split], args.max_train_samples or counts[args.train_split])
            return DatasetSize(num_classes, train, args.max_eval_samples or evaluated, info.download_size)
    if not Path(dataset).exists() and dataset != DEMO_DATASET:
        raise ValueError(
            f"--plan: '{dataset}' does not say how many classes and images it has, and nothing is downloaded for "
            "a plan. Download it, or run without --plan."
        )
    train_images, eval_images = load_data(args, dataset, backbones, config)
    return DatasetSize(train_images.num_classes, len(train_images), len(eval_images))


def _load(args: ModelArguments, name: str, number: int, dtype: torch.dtype) -> FrozenBackbone:
    only_first: dict[str, Any] = {
        "feature_pooling": args.feature_pooling,
        "revision": args.revision,
    }
    name, _, side = name.partition("@")
    return FrozenBackbone.from_pretrained(
        name,
        image_size=int(side) if side else args.image_size,
        resize_ratio=args.resize_ratio,
        image_mean=args.image_mean,
        image_std=args.image_std,
        trust_remote_code=args.trust_remote_code,
        strip_prefix=args.strip_prefix,
        dtype=dtype,
        **(only_first if number == 0 else {}),
    )


def _check_names(names: Sequence[str]) -> None:
    """Refuse models that will have one name, before any is loaded: of a folder it is its last part, and its side."""
    places = [name.partition("@") for name in names]
    check_names_differ([f"{Path(at).name if Path(at).is_dir() else at}{sign}{side}" for at, sign, side in places])


def _named_differently(backbones: list[FrozenBackbone]) -> list[FrozenBackbone]:
    check_names_differ([backbone.name for backbone in backbones])
    return backbones
