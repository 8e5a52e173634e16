"""Which columns and classes of a dataset are meant, and labels as class indices."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import datasets
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
            f"image_column_name='{name}' has type {_describe(features[name])}: expected Image, paths or encoded "
            f"bytes. Columns: {_listed_columns(features)}."
        )
    return name


def find_label_column(
    features: Features, name: str | None, argument: str = "label_column_name", group_column: str | None = None
) -> str:
    """The named column, the one of type `ClassLabel`, or else one that is called as label columns are.

    The column of the groups, which is of the same types, is never found unless it is named.

    Raises:
        ValueError: If it is not there, has not one class per image, or is not the only one.
    """
    if name is None:
        features = Features({column: kind for column, kind in features.items() if column != group_column})
        called = [column for column in _LABEL_NAMES if column in features]
        usual = [column for column in called if _is_class(features[column]) and not _may_be_classes(features[column])]
        usual = usual or [column for column in called if _is_class(features[column])]
        has_class_label = any(isinstance(kind, ClassLabel) for kind in features.values())
        if has_class_label or len(usual) != 1:
            return _only_column(features, ClassLabel, argument)
        logger.info("Labels: column '%s' (%s)", usual[0], _describe(features[usual[0]]))
        return usual[0]
    _check_name(features, name, argument)
    if not _is_class(features[name]):
        raise ValueError(
            f"{argument}='{name}' has type {_describe(features[name])}: expected one class per image, as ClassLabel, "
            "strings, whole numbers or booleans."
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
    return _is_there(value) and value != UNLABELLED


def _is_there(value: Any) -> bool:
    """Whether there is a value: tables say `None`, pandas NaN, text files nothing."""
    return value is not None and value != "" and value == value


def encode_labels(
    values: Sequence[Any], feature: Any, rows: Sequence[int] | None = None
) -> tuple[torch.Tensor, list[str]]:
    """Class indices of shape (N,), -1 where there is no label, and the classes' names.

    Strings, whole numbers and booleans are numbered in sorted order.

    Args:
        values (`Sequence`): One label per row.
        feature: The column's type.
        rows (`Sequence[int]`, *optional*): What the rows are called, where some were left out before.

    Raises:
        ValueError: If a label is none of the column's classes, or a number with decimals.
    """
    return _encode(values, feature, is_labelled, rows)


def encode_groups(values: Sequence[Any], feature: Any) -> tuple[torch.Tensor, list[str]]:
    """The same for groups, of which -1 may be one: attributes are often stored as -1 and 1."""
    return _encode(values, feature, _is_there, None)


def _encode(
    values: Sequence[Any], feature: Any, is_there: Callable[[Any], bool], rows: Sequence[int] | None
) -> tuple[torch.Tensor, list[str]]:
    there = [row for row, value in enumerate(values) if is_there(value)]
    found, labels = [values[row] for row in there], torch.full((len(values),), UNLABELLED)
    if expected := _what_else_is_expected(found, feature):
        wrong = next(row for row in there if _what_else_is_expected([values[row]], feature))
        raise ValueError(
            f"The label in row {rows[wrong] if rows else wrong} is {values[wrong]}: expected {expected}. Correct it, "
            "or name another column as label_column_name."
        )
    if isinstance(feature, ClassLabel):
        labels[there] = torch.tensor(found, dtype=torch.long)
        return labels, list(feature.names)
    if _is_float(feature):
        found = [int(value) for value in found]
    names = sorted(set(found))
    index = {name: place for place, name in enumerate(names)}
    labels[there] = torch.tensor([index[value] for value in found], dtype=torch.long)
    return labels, [str(name) for name in names]


def _what_else_is_expected(values: Sequence[Any], feature: Any) -> str | None:
    """What labels of this type have to be, where some are not."""
    if isinstance(feature, ClassLabel):
        are_all_right = all(UNLABELLED <= value < len(feature.names) for value in values)
        return None if are_all_right else f"one of the classes 0 to {len(feature.names) - 1}"
    if _is_float(feature) and not all(float(value).is_integer() and abs(value) < 2**53 for value in values):
        return "a whole number"  # as pandas writes integers of which some are missing
    return None


def class_index(names: list[str], wanted: str | int) -> int:
    """The index of a class given by name or number.

    Raises:
        ValueError: If there is no such class.
    """
    if str(wanted) in names:
        return names.index(str(wanted))
    if str(wanted).isdigit() and int(wanted) < len(names):
        return int(wanted)
    raise ValueError(f"classes: '{wanted}' is no class of this dataset. Found {len(names)}: {listed(names)}.")


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
        advice = "Name those of the dataset to use as classes." if is_part else "Is it another dataset's?"
        raise ValueError(
            f"{what} other classes than the dataset: missing {listed(missing) or 'none'}; additional "
            f"{listed(extra) or 'none'}. {advice}"
        )


def listed(names: list[str], limit: int = 10) -> str:
    """The first names, and how many there are in all."""
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")


def _only_column(features: Features, kind: type, argument: str) -> str:
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        no_labels = not found and kind is ClassLabel
        fits = _is_class if kind is ClassLabel else _may_be_images
        possible = [*found, *(column for column, feature in features.items() if fits(feature)), "…"]
        layout = " A folder of images has one folder for each class." if no_labels else ""
        raise ValueError(
            f"Expected one column of type {kind.__name__}, found {len(found)}. Columns: {_listed_columns(features)}. "
            f"Name one, as in {argument}='{possible[0]}'.{layout}"
        )
    return found[0]


def _check_name(features: Features, name: str, argument: str) -> None:
    if name not in features:
        raise ValueError(f"{argument}='{name}': there is no such column. Found: {_listed_columns(features)}.")


def _is_class(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    if not isinstance(feature, Value):
        return False
    return feature.dtype.endswith("string") or "int" in feature.dtype or _may_be_classes(feature)


def _may_be_classes(feature: Any) -> bool:
    """Whether a column's type is used for other things than classes, too."""
    return isinstance(feature, Value) and (feature.dtype == "bool" or _is_float(feature))


def _is_float(feature: Any) -> bool:
    return feature.dtype.startswith("float")


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
        raise ValueError(f"classes names a class twice: {', '.join(map(str, classes))}")
    return found
