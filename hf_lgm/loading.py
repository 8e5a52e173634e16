"""From a Hub id or a folder to the images to distil and those to evaluate on; what is wrong is said at once."""

import logging
from collections.abc import Sequence

import datasets
import torch
from datasets import Dataset, DatasetDict

from .columns import listed
from .data import LabelledImages
from .demo import DEMO_DATASET, load_digits_images
from .hub import HubError, existing_path_or_id, must_use_cache

logger = logging.getLogger(__name__)

# Where no split is named, the first of these that exists is evaluated on.
_EVAL_SPLITS = ("validation", "test", "val", "valid", "eval")
_HELD_OUT_SHARE = 0.2


def load_images(
    dataset: str | DatasetDict,
    *,
    dataset_config: str | None = None,
    train_split: str = "train",
    eval_split: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    classes: Sequence[str | int] | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
) -> tuple[LabelledImages, LabelledImages]:
    """The images to distil and those to evaluate on, checked.

    Without a second split, a fifth of each class is held out, which is logged.

    Args:
        dataset (`str` or `datasets.DatasetDict`): Hub id, folder of images or parquet files, or the splits themselves.
        dataset_config (`str`, *optional*): Configuration of the dataset.
        train_split (`str`, *optional*, defaults to `"train"`): The split to distil.
        eval_split (`str`, *optional*): The split to evaluate on; defaults to `validation`, `test` and the like.
        image_column_name (`str`, *optional*): See [`LabelledImages.from_dataset`].
        label_column_name (`str`, *optional*): Likewise.
        classes (`Sequence[str | int]`, *optional*): Likewise.
        max_train_samples (`int`, *optional*): Use at most this many, as many of each class.
        max_eval_samples (`int`, *optional*): Likewise.
        seed (`int`, *optional*, defaults to 42): Draws the samples.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If a dataset can't be had.
        ValueError: If a split, column or class is not as it must be.
    """
    splits = load_splits(dataset, dataset_config) if isinstance(dataset, str) else dataset
    names = (image_column_name, label_column_name, classes)
    train = LabelledImages.from_dataset(_split(splits, train_split, "train_split"), *names)
    if eval_split is None:
        eval_split = next((name for name in _EVAL_SPLITS if name in splits and name != train_split), None)
    if eval_split is None:
        check_classes(train)
        train, evaluation = train.hold_out(_HELD_OUT_SHARE, seed)
        logger.warning(
            "No split to evaluate on among %s: %d of %d images are held out for it (or name one with --eval_split)",
            sorted(splits),
            len(evaluation),
            len(train) + len(evaluation),
        )
    else:
        evaluation = LabelledImages.from_dataset(_split(splits, eval_split, "eval_split"), *names)
    check_classes(train)
    evaluation = align_classes(evaluation, train.class_names)
    if max_train_samples:
        train = train.balanced_sample(max_train_samples, seed)
    if max_eval_samples:
        evaluation = evaluation.balanced_sample(max_eval_samples, seed)
    return train, evaluation


def load_splits(dataset: str, dataset_config: str | None = None) -> DatasetDict:
    """All splits of a dataset on the Hub or in a folder.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If it can't be had; the message says what to do.
    """
    if dataset == DEMO_DATASET:
        return load_digits_images()
    dataset = existing_path_or_id(dataset, "--dataset")
    must_use_cache(dataset, "dataset")
    try:
        return datasets.load_dataset(dataset, dataset_config)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise HubError(
            f"--dataset: '{dataset}' does not exist, is private or is gated. If it exists, ask for access at "
            f"https://huggingface.co/datasets/{dataset}, then run `hf auth login`."
        ) from error
    except (ValueError, FileNotFoundError) as error:  # no data files, unknown configuration
        raise ValueError(f"--dataset: '{dataset}' can't be loaded: {error}") from error


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
        ValueError: If the classes are not the same.
    """
    if images.class_names == class_names:
        return images
    missing = sorted(set(class_names) - set(images.class_names))
    extra = sorted(set(images.class_names) - set(class_names))
    if missing or extra:
        raise ValueError(
            "The evaluation images have other classes than the training images: "
            f"missing {listed(missing) or 'none'}; additional {listed(extra) or 'none'}. "
            "Name the classes of both with --classes."
        )
    return images.with_classes(class_names)


def _split(splits: DatasetDict, name: str, flag: str) -> Dataset:
    if name not in splits:
        raise ValueError(f"--{flag}: there is no split '{name}'. Found: {', '.join(sorted(splits))}.")
    return splits[name]
