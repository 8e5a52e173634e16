"""From a Hub id or a folder to the images to distil and those to evaluate on; what is wrong is said at once."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import torch
from datasets import DatasetDict, IterableDataset, IterableDatasetDict

from .columns import DataOptions, check_same_classes, listed
from .data import LabelledImages
from .splits import load_splits, stream_splits
from .streaming import StreamEncoder

logger = logging.getLogger(__name__)

# Where no split is named, the first of these that exists is evaluated on.
EVAL_SPLITS = ("validation", "test", "val", "valid", "eval")
_HELD_OUT_SHARE = 0.2


def load_images(
    dataset: str | DatasetDict | IterableDatasetDict,
    *,
    dataset_config: str | None = None,
    train_split: str = "train",
    eval_split: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    group_column_name: str | None = None,
    classes: Sequence[str | int] = (),
    skip_bad_images: bool = False,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
    stream_encoder: StreamEncoder | None = None,
    token: str | None = None,
) -> tuple[LabelledImages, LabelledImages]:
    """The images to distil and those to evaluate on, checked.

    Without a second split, a fifth of each class is held out, which is logged.

    Args:
        dataset (`str`, `datasets.DatasetDict` or `datasets.IterableDatasetDict`): Hub id, folder of images, parquet
            files or tar shards, or the splits themselves.
        dataset_config (`str`, *optional*): Configuration of the dataset.
        train_split (`str`, *optional*, defaults to `"train"`): The split to distil.
        eval_split (`str`, *optional*): The split to evaluate on; defaults to `validation`, `test` and the like.
        image_column_name (`str`, *optional*): See [`LabelledImages.from_dataset`].
        label_column_name (`str`, *optional*): Likewise.
        group_column_name (`str`, *optional*): Likewise.
        classes (`Sequence[str | int]`, *optional*): Likewise.
        skip_bad_images (`bool`, *optional*, defaults to `False`): Likewise.
        max_train_samples (`int`, *optional*): Use at most this many, as many of each class. A stream is read whole.
        max_eval_samples (`int`, *optional*): Likewise.
        seed (`int`, *optional*, defaults to 42): Draws the samples.
        stream_encoder ([`StreamEncoder`], *optional*): Stream the dataset in place of storing it: each split is read
            once, and encoded at once.
        token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If a dataset can't be had.
        ValueError: If a split, column or class is not as it must be.
    """
    fingerprint = None
    if not isinstance(dataset, str):
        splits: Any = dataset
    elif stream_encoder is None:
        splits = load_splits(dataset, dataset_config, token)
    else:
        splits, fingerprint = stream_splits(dataset, dataset_config, token)
    options = DataOptions(image_column_name, label_column_name, classes, group_column_name, skip_bad_images)

    def images_of(name: str, flag: str, encoder: StreamEncoder | None) -> LabelledImages:
        split = _split(splits, name, flag)
        if isinstance(split, IterableDataset) and encoder is not None:
            return encoder.encode(split, options, fingerprint and f"{fingerprint} {name}")
        return LabelledImages.from_dataset(split, **dataclasses.asdict(options))

    if eval_split is None:
        eval_split = next((name for name in EVAL_SPLITS if name in splits and name != train_split), None)
    else:
        _split(splits, eval_split, "eval_split")  # before the train split is read
    train = images_of(train_split, "train_split", stream_encoder)
    check_classes(train)
    if eval_split is None:
        train, evaluation = _hold_out(train, seed, sorted(splits))
    else:
        encoder = stream_encoder and dataclasses.replace(stream_encoder, pictures_per_class=0)  # never shown
        evaluation = align_classes(images_of(eval_split, "eval_split", encoder), train.class_names)
    if max_train_samples:
        train = train.balanced_sample(max_train_samples, seed)
    if max_eval_samples:
        evaluation = evaluation.balanced_sample(max_eval_samples, seed)
    return train, evaluation


def check_classes(images: LabelledImages, images_per_class: int = 1) -> None:
    """Refuse what can't be distilled.

    Raises:
        ValueError: If there are fewer than two classes, or a class has no image, or fewer than are to be made of it.
    """
    if images.num_classes < 2:
        raise ValueError(f"Expected at least two classes, found {images.num_classes}: {images.class_names}")
    counts = torch.bincount(images.labels, minlength=images.num_classes)
    empty = [name for name, count in zip(images.class_names, counts, strict=True) if count == 0]
    if empty:
        raise ValueError(
            f"{len(empty)} of {images.num_classes} classes have no image to distil: {listed(empty)}. "
            "Name the classes to use with --classes."
        )
    if counts.min() < images_per_class:
        name = images.class_names[int(counts.argmin())]
        raise ValueError(
            f"images_per_class={images_per_class} is more than the {int(counts.min())} real images of class '{name}'."
        )


def align_classes(images: LabelledImages, class_names: list[str]) -> LabelledImages:
    """The same images with their classes numbered as in `class_names`.

    Raises:
        ValueError: If the classes are not the same, or there is no image.
    """
    if len(images) == 0:
        raise ValueError("There is no labelled image to evaluate on: name another split with --eval_split.")
    if images.class_names == class_names:
        return images
    check_same_classes(images.class_names, class_names, "The images to evaluate on have")
    return images.with_classes(class_names)


def _hold_out(train: LabelledImages, seed: int, found: list[str]) -> tuple[LabelledImages, LabelledImages]:
    """A part of the train split to evaluate on, where there is no other."""
    kept, held_out = train.hold_out(_HELD_OUT_SHARE, seed)
    logger.warning(
        "No split to evaluate on among %s: %d of %d images are held out for it (or name one with --eval_split)",
        found,
        len(held_out),
        len(train),
    )
    check_classes(kept)
    return kept, held_out


def _split(splits: DatasetDict | IterableDatasetDict, name: str, flag: str) -> Any:
    if name not in splits:
        raise ValueError(f"--{flag}: there is no split '{name}'. Found: {', '.join(sorted(splits))}.")
    return splits[name]
