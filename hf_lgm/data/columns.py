"""Which columns and classes of a dataset are meant, and labels as class indices."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import datasets
import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value

logger = logging.getLogger(__name__)
UNLABELLED = -1

# Where no column is a ClassLabel: webdataset shards say `cls`, exports from other tools one of the rest.
_LABEL_NAMES = ("label", "labels", "cls", "class", "class_name", "target", "category")
AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def find_image_column(features: Features, name: str | None) -> str:
    """The named column, the one of type `Image`, or else the one of encoded bytes.

    Raises:
        ValueError: If it is not there, not of images, or not the only one.
    """
    if name is None:
        encoded = [column for column, kind in features.items() if _is_encoded_image(kind)]
        if len(encoded) == 1 and not any(isinstance(kind, datasets.Image) for kind in features.values()):
            return encoded[0]
        return _only_column(features, datasets.Image, "image_column_name")
    _check_name(features, name, "image_column_name")
    if not isinstance(features[name], datasets.Image) and not _may_be_images(features[name]):
        raise ValueError(
            f"--image_column_name: '{name}' has type {_describe(features[name])}: expected Image, paths or encoded "
            f"bytes. Columns: {_listed_columns(features)}."
        )
    return name


def find_label_column(
    features: Features, name: str | None, flag: str = "label_column_name", group_column: str | None = None
) -> str:
    """The named column, the one of type `ClassLabel`, or else one that is called as label columns are.

    The column of the groups, which is of the same types, is never found unless it is named.

    Raises:
        ValueError: If it is not there, has not one class per image, or is not the only one.
    """
    if name is None:
        features = Features({column: kind for column, kind in features.items() if column != group_column})
        usual = [column for column in _LABEL_NAMES if column in features and _is_class(features[column])]
        has_class_label = any(isinstance(kind, ClassLabel) for kind in features.values())
        if has_class_label or len(usual) != 1:
            return _only_column(features, ClassLabel, flag)
        logger.info("Labels: column '%s' (%s)", usual[0], _describe(features[usual[0]]))
        return usual[0]
    _check_name(features, name, flag)
    if not _is_class(features[name]):
        raise ValueError(
            f"--{flag}: '{name}' has type {_describe(features[name])}: expected one class per image, as ClassLabel, "
            "strings or integers."
        )
    return name


def with_image_feature(dataset: AnyDataset, column: str, decode: bool = True) -> AnyDataset:
    """The dataset with that column as images, decoded or as they are stored."""
    feature = (dataset.features or {})[column]
    if isinstance(feature, datasets.Image) and feature.decode == decode:
        return dataset
    return dataset.cast_column(column, datasets.Image(decode=decode))


def is_labelled(value: Any) -> bool:
    """Whether a row with this label has one: hidden labels are stored as -1, as in ImageNet's test split."""
    return value is not None and value != UNLABELLED


def encode_labels(values: Sequence[Any], feature: Any) -> tuple[torch.Tensor, list[str]]:
    """Class indices of shape (N,), -1 where there is no label, and the classes' names.

    Strings and integers are numbered in sorted order.

    Args:
        values (`Sequence`): One label per row.
        feature: The column's type.
    """
    return _encode(values, feature, is_labelled)


def encode_groups(values: Sequence[Any], feature: Any) -> tuple[torch.Tensor, list[str]]:
    """The same for groups, of which -1 may be one: attributes are often stored as -1 and 1."""
    return _encode(values, feature, lambda value: value is not None)


def _encode(values: Sequence[Any], feature: Any, is_there: Callable[[Any], bool]) -> tuple[torch.Tensor, list[str]]:
    array = np.asarray(values, dtype=object)
    labelled = np.array([is_there(value) for value in array], dtype=bool)
    labels = torch.full((len(array),), UNLABELLED)
    if isinstance(feature, ClassLabel):
        labels[torch.from_numpy(labelled)] = torch.from_numpy(array[labelled].astype(np.int64))
        return labels, list(feature.names)
    kind = str if feature.dtype.endswith("string") else int
    names, inverse = np.unique(array[labelled].astype(kind), return_inverse=True)
    labels[torch.from_numpy(labelled)] = torch.from_numpy(inverse)
    return labels, [str(name) for name in names]


def class_index(names: list[str], wanted: str | int) -> int:
    """The index of a class given by name or number.

    Raises:
        ValueError: If there is no such class.
    """
    if str(wanted) in names:
        return names.index(str(wanted))
    if str(wanted).isdigit() and int(wanted) < len(names):
        return int(wanted)
    raise ValueError(f"--classes: '{wanted}' is no class of this dataset. Found {len(names)}: {listed(names)}.")


def check_same_classes(found: list[str], expected: list[str], what: str) -> None:
    """Refuse what is labelled with other classes.

    Args:
        found (`list[str]`): The classes' names, in any order.
        expected (`list[str]`): What they should be.
        what (`str`): What has them, for the message.

    Raises:
        ValueError: If they are not the same.
    """
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        is_part = set(found) & set(expected)
        advice = "--classes names those of the dataset to use." if is_part else "Is it another dataset's?"
        raise ValueError(
            f"{what} other classes than the dataset: missing {listed(missing) or 'none'}; additional "
            f"{listed(extra) or 'none'}. {advice}"
        )


def listed(names: list[str], limit: int = 10) -> str:
    """The first names, and how many there are in all."""
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")


def _only_column(features: Features, kind: type, flag: str) -> str:
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        no_labels = not found and kind is ClassLabel
        layout = " A folder of images has one folder for each class." if no_labels else ""
        raise ValueError(
            f"Expected one column of type {kind.__name__}, found {len(found)}. Columns: {_listed_columns(features)}. "
            f"Name one with --{flag}.{layout}"
        )
    return found[0]


def _check_name(features: Features, name: str, flag: str) -> None:
    if name not in features:
        raise ValueError(f"--{flag}: there is no column '{name}'. Found: {_listed_columns(features)}.")


def _is_class(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    return isinstance(feature, Value) and (feature.dtype.endswith("string") or "int" in feature.dtype)


def _may_be_images(feature: Any) -> bool:
    """Whether `datasets` can read a column as images: paths, encoded bytes, or both."""
    return _is_encoded_image(feature) or (isinstance(feature, Value) and feature.dtype.endswith("string"))


def _is_encoded_image(feature: Any) -> bool:
    """Whether a column holds bytes, as files written without `datasets` do."""
    if isinstance(feature, Value):
        return feature.dtype.endswith("binary")
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _describe(feature: Any) -> str:
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def _listed_columns(features: Features) -> str:
    return ", ".join(f"{column} ({_describe(kind)})" for column, kind in sorted(features.items()))


def class_indices(names: list[str], classes: Sequence[str | int]) -> list[int]:
    """The indices of the classes that are asked for.

    Raises:
        ValueError: If one is not there, or stands twice.
    """
    found = [class_index(names, wanted) for wanted in classes]
    if len(set(found)) != len(found):
        raise ValueError(f"--classes names a class twice: {', '.join(map(str, classes))}")
    return found
