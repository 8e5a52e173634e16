"""From a Hub id or a folder to the images to distil and those to evaluate on; what is wrong is said at once."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, get_dataset_config_names
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from ..demo import DEMO_DATASET, load_digits_images
from ..hub import HubError, causes, existing_path_or_id, first_line, is_gated, must_use_cache
from ..settings import ColumnOptions, DataOptions
from .columns import find_label_column, listed
from .file_signature import names_files
from .label_names import files_disagree, map_labels_by_name
from .labelled_images import LabelledImages, StreamReader

logger = logging.getLogger(__name__)

# Where no split is named, the first of these that exists is evaluated on.
EVAL_SPLITS = ("validation", "test", "val", "valid", "eval")
_HELD_OUT_SHARE = 0.2


def load_images(
    dataset: str | DatasetDict | IterableDatasetDict,
    *,
    seed: int = 42,
    stream_encoder: StreamReader | None = None,
    token: str | None = None,
    **options: Any,
) -> tuple[LabelledImages, LabelledImages]:
    """The images to distil and those to evaluate on, checked.

    Without a second split, a fifth of each class is held out, which is logged.

    Args:
        dataset (`str`, `datasets.DatasetDict` or `datasets.IterableDatasetDict`): Hub id, folder of images, parquet
            files or tar shards, or the splits themselves.
        seed (`int`, *optional*, defaults to 42): Draws the samples.
        stream_encoder ([`StreamEncoder`], *optional*): Stream the dataset in place of storing it: each split is read
            once, and encoded at once.
        token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.
        options (*optional*): The fields of [`DataOptions`]: columns, splits, classes, numbers of samples.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If a dataset can't be had.
        ValueError: If a split, column or class is not as it must be.
    """
    wanted, fingerprint = DataOptions(**options), None
    if not isinstance(dataset, str):
        splits: Any = dataset
    elif stream_encoder is None:
        splits = load_splits(dataset, wanted.dataset_config, token)
    else:
        splits, fingerprint = stream_splits(dataset, wanted.dataset_config, token)

    def images_of(name: str, flag: str, keep_images: bool, class_names: Sequence[str] = ()) -> LabelledImages:
        split = _split(splits, name, flag)
        columns = _naming_classes(wanted.columns, split, class_names)
        if isinstance(split, IterableDataset) and stream_encoder is not None:
            known_as = fingerprint and f"{fingerprint} {name}"
            images = stream_encoder.encode(split, columns, known_as, keep_images=keep_images)
        else:
            images = LabelledImages.from_dataset(split, **vars(columns))
        if wanted.columns.classes and class_names:
            images = images.with_classes([name for name in class_names if name in images.class_names], by_name=True)
        return images

    train_split, eval_split = wanted.train_split, wanted.eval_split
    if eval_split is None:
        eval_split = next((name for name in EVAL_SPLITS if name in splits and name != train_split), None)
    else:
        _split(splits, eval_split, "eval_split")  # before the train split is read
    train = images_of(train_split, "train_split", True)
    train.check_classes()
    if eval_split is None:
        train, evaluation = _hold_out(train, seed, sorted(splits))
    else:  # whose images are never shown
        evaluation = images_of(eval_split, "eval_split", False, train.class_names).aligned(train.class_names)
    if wanted.max_train_samples:
        train = train.balanced_sample(wanted.max_train_samples, seed)
    if wanted.max_eval_samples:
        evaluation = evaluation.balanced_sample(wanted.max_eval_samples, seed)
    return train, evaluation


def _naming_classes(columns: ColumnOptions, split: Any, class_names: Sequence[str]) -> ColumnOptions:
    """The chosen classes by the names that another split has for them: its numbers may mean others here.

    Where a split declares no names, all of its rows are read, and those of these names are chosen then.
    """
    if not columns.classes or not class_names:
        return columns
    known: Sequence[str] = ()
    if split.features is not None:
        label = find_label_column(split.features, columns.label_column_name, group_column=columns.group_column_name)
        known = getattr(split.features[label], "names", ())
    return replace(columns, classes=[name for name in class_names if name in known])


def _hold_out(train: LabelledImages, seed: int, found: list[str]) -> tuple[LabelledImages, LabelledImages]:
    """A part of the train split to evaluate on, where there is no other."""
    kept, held_out = train.hold_out(_HELD_OUT_SHARE, seed)
    if len(held_out) == 0:
        raise ValueError("Every class has one image, and none is left to evaluate on: name a split as eval_split.")
    logger.warning(
        "No split to evaluate on among %s: %d of %d images are held out for it (or name one as eval_split)",
        found,
        len(held_out),
        len(train),
    )
    counts = torch.bincount(held_out.labels, minlength=train.num_classes)
    if single := [name for name, count in zip(train.class_names, counts, strict=True) if count == 0]:
        logger.warning("%d classes have one image, which is not held out: %s", len(single), listed(single))
    return kept, held_out


def _split(splits: DatasetDict | IterableDatasetDict, name: str, flag: str) -> Any:
    if name not in splits:
        raise ValueError(f"{flag}: there is no split '{name}'. Found: {', '.join(sorted(splits))}.")
    return splits[name]


def load_splits(dataset: str, dataset_config: str | None = None, token: str | None = None) -> DatasetDict:
    """All splits of a dataset on the Hub or in a folder: of images, of parquet files or tar shards, or saved to disk.

    Args:
        dataset (`str`): Hub id, folder, or the name of the demo's digits.
        dataset_config (`str`, *optional*): Configuration of the dataset.
        token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If it can't be had; the message says what to do.
        ValueError: If it can't be understood.
    """
    if dataset == DEMO_DATASET:
        return load_digits_images()
    dataset = existing_path_or_id(dataset, "dataset")
    if _is_saved_to_disk(dataset):
        saved = datasets.load_from_disk(dataset)
        return DatasetDict(train=saved) if isinstance(saved, Dataset) else saved
    must_use_cache(dataset, "dataset")
    with _explained(dataset, token):
        builder = _builder(dataset, dataset_config, token)
        builder.download_and_prepare()
        return builder.as_dataset()


def stream_splits(
    dataset: str, dataset_config: str | None = None, token: str | None = None
) -> tuple[DatasetDict | IterableDatasetDict, str | None]:
    """The same splits as streams, and what identifies their files.

    The digits and a dataset saved to disk are not streamed: nothing is downloaded or unpacked for them.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If it can't be had; the message says what to do.
        ValueError: If it can't be understood.
    """
    dataset = existing_path_or_id(dataset, "dataset")
    if not is_streamable(dataset):
        return load_splits(dataset, dataset_config, token), None
    if must_use_cache(dataset, "dataset"):
        raise HubError(
            f"streaming: '{dataset}' can't be streamed, because {constants.ENDPOINT} can't be reached; there is a "
            "cached copy, so leave streaming out."
        )
    with _explained(dataset, token):
        builder = _builder(dataset, dataset_config, token)
        splits = builder.as_streaming_dataset()
    if any(names_files(builder, split) for split in splits.values()):
        return splits, None  # they may be replaced while the table stays
    # The folder that a copy on disk would have: made of the configuration, and of the commit or the files' times.
    return splits, str(Path(builder.cache_dir).relative_to(Path(datasets.config.HF_DATASETS_CACHE).expanduser()))


def _builder(dataset: str, dataset_config: str | None, token: str | None) -> datasets.DatasetBuilder:
    """What reads the files, the classes of each by their names."""
    builder = datasets.load_dataset_builder(dataset, dataset_config, token=token)
    if files_disagree(builder):  # a place of our own: `datasets` may have prepared them with wrong labels
        ours = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "labels_by_name"
        builder = datasets.load_dataset_builder(dataset, dataset_config, token=token, cache_dir=str(ours))
    map_labels_by_name(builder)
    return builder


def is_streamable(dataset: str) -> bool:
    """Whether a dataset is neither in memory nor memory-mapped anyway."""
    return dataset != DEMO_DATASET and not _is_saved_to_disk(dataset)


def dataset_info(
    dataset: str, dataset_config: str | None = None, token: str | None = None
) -> datasets.DatasetInfo | None:
    """What a dataset says of itself, its images left where they are; `None` where it is in one piece on this disk.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If it can't be had; the message says what to do.
    """
    if not is_streamable(dataset := existing_path_or_id(dataset, "dataset")):
        return None
    must_use_cache(dataset, "dataset")
    with _explained(dataset, token):
        return datasets.load_dataset_builder(dataset, dataset_config, token=token).info


@contextmanager
def _explained(dataset: str, token: str | None) -> Iterator[None]:
    """What `datasets` raises, in a sentence."""
    page = f"https://huggingface.co/datasets/{dataset}"
    try:
        yield
    except datasets.exceptions.DatasetNotFoundError as error:
        if any(isinstance(cause, GatedRepoError) for cause in causes(error)) or "gated" in str(error):
            raise HubError(f"dataset: '{dataset}' {is_gated(page)}") from error
        raise HubError(
            f"dataset: '{dataset}' does not exist, or is private. If it exists, run `hf auth login` with a token "
            f"that may read {page}."
        ) from error
    except HfHubHTTPError as error:  # a wrong token, or one without the right
        raise HubError(
            f"dataset: '{dataset}' can't be fetched: {first_line(error).rstrip('.')}. See {page}."
        ) from error
    except datasets.exceptions.DatasetGenerationError as error:  # what is wrong is said by its cause
        raise ValueError(f"dataset: '{dataset}' can't be read: {first_line(error.__cause__ or error)}") from error
    except (ValueError, FileNotFoundError) as error:  # no data files, unknown configuration
        if "Config name is missing" in str(error):
            names = get_dataset_config_names(dataset, token=token)
            raise ValueError(
                f"dataset: '{dataset}' has {len(names)} configurations: {', '.join(names)}. Name one as "
                "dataset_config."
            ) from error
        hint = ". Links to folders are not followed" if _links_folders(dataset) else ""
        raise ValueError(f"dataset: '{dataset}' can't be loaded: {first_line(error).rstrip('.')}{hint}.") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(
            f"dataset: '{dataset}' is made by a script, which `datasets` no longer runs. Look for a copy in parquet."
        ) from error


def _links_folders(dataset: str) -> bool:
    """Whether a folder holds links to folders, which `datasets` does not look into."""
    return any(path.is_symlink() and path.is_dir() for path in Path(dataset).glob("*"))


def _is_saved_to_disk(dataset: str) -> bool:
    """Whether it is a folder that `save_to_disk` wrote."""
    return any((Path(dataset) / name).is_file() for name in ("dataset_dict.json", "state.json"))
