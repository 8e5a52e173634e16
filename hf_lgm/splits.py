"""From a Hub id or a folder to the splits of a dataset, on disk or streamed; what is wrong is one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, IterableDatasetDict, get_dataset_config_names
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from .demo import DEMO_DATASET, load_digits_images
from .hub import HubError, causes, existing_path_or_id, must_use_cache


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
    dataset = existing_path_or_id(dataset, "--dataset")
    if _is_saved_to_disk(dataset):
        saved = datasets.load_from_disk(dataset)
        return DatasetDict(train=saved) if isinstance(saved, Dataset) else saved
    must_use_cache(dataset, "dataset")
    with _explained(dataset, token):
        return datasets.load_dataset(dataset, dataset_config, token=token)


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
    dataset = existing_path_or_id(dataset, "--dataset")
    if not is_streamable(dataset):
        return load_splits(dataset, dataset_config, token), None
    if must_use_cache(dataset, "dataset"):
        raise HubError(
            f"--streaming: '{dataset}' can't be streamed, because {constants.ENDPOINT} can't be reached; there is a "
            "cached copy, so leave --streaming out."
        )
    with _explained(dataset, token):
        builder = datasets.load_dataset_builder(dataset, dataset_config, token=token)
        splits = builder.as_streaming_dataset()
    # The folder that a copy on disk would have: made of the configuration, and of the commit or the files' times.
    return splits, str(Path(builder.cache_dir).relative_to(Path(datasets.config.HF_DATASETS_CACHE).expanduser()))


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
    if not is_streamable(dataset := existing_path_or_id(dataset, "--dataset")):
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
            raise HubError(
                f"--dataset: '{dataset}' is gated: ask for access at {page}, then run `hf auth login`."
            ) from error
        raise HubError(
            f"--dataset: '{dataset}' does not exist, or is private. If it exists, run `hf auth login` with a token "
            f"that may read {page}."
        ) from error
    except HfHubHTTPError as error:  # a wrong token, or one without the right
        raise HubError(f"--dataset: '{dataset}' can't be fetched: {_first_line(error)}. See {page}.") from error
    except (ValueError, FileNotFoundError) as error:  # no data files, unknown configuration
        if "Config name is missing" in str(error):
            names = get_dataset_config_names(dataset, token=token)
            raise ValueError(
                f"--dataset: '{dataset}' has {len(names)} configurations: {', '.join(names)}. Name one with "
                "--dataset_config."
            ) from error
        raise ValueError(f"--dataset: '{dataset}' can't be loaded: {_first_line(error)}") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(
            f"--dataset: '{dataset}' is made by a script, which `datasets` no longer runs. Look for a copy in parquet."
        ) from error


def _is_saved_to_disk(dataset: str) -> bool:
    """Whether it is a folder that `save_to_disk` wrote."""
    return any((Path(dataset) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _first_line(error: Any) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
