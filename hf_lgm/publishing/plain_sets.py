"""A plain dataset of a few labelled images as a training set, such as `load_dataset` gives for a set's folder."""

from typing import Any

from datasets import ClassLabel, Dataset
from datasets import Image as ImageFeature

from ..data.columns import UNLABELLED, encode_labels, find_image_column, find_label_column, with_image_feature

_EXTRA = ("source_index", "soft_label")  # of our own sets


def set_columns(dataset: Any) -> Dataset:
    """The rows of a set with the columns that a [`DistilledSet`] has.

    Args:
        dataset (`datasets.Dataset` or a `datasets.DatasetDict` of one split): A column of images of one size, and one
            of labels.

    Raises:
        TypeError: If it is something else.
        ValueError: If it has several splits, a column is missing, a row has no label, or images differ in size.
    """
    if isinstance(dataset, dict):
        if len(dataset) != 1:
            raise ValueError(
                f"A training set is one split, found {', '.join(map(str, dataset))}: choose one, such as "
                f"dataset['{min(map(str, dataset), default='train')}']."
            )
        [dataset] = dataset.values()
    if not isinstance(dataset, Dataset):
        raise TypeError(
            "Expected a DistilledSet, its folder or Hub id, or a datasets.Dataset with an image and a label column; "
            f"found {type(dataset).__name__}."
        )
    dataset = dataset.with_format(None)
    label_column = find_label_column(dataset.features, None)
    labels, class_names = encode_labels(dataset[label_column][:], dataset.features[label_column])
    if (labels == UNLABELLED).any():
        row = int((labels == UNLABELLED).nonzero()[0, 0])
        raise ValueError(f"Row {row} of the set has no label: every image of a set needs one.")
    if "image" not in dataset.features and "source_index" in dataset.features:  # real ones, published without images
        return _checked(dataset.select_columns([name for name in ("label", *_EXTRA) if name in dataset.features]))
    column = find_image_column(dataset.features, None)
    kept = [column, *(name for name in _EXTRA if name in dataset.features)]
    found = with_image_feature(dataset.select_columns(kept), column)
    found = found if column == "image" else found.rename_column(column, "image")
    found = found.add_column("label", labels.tolist()).cast_column("label", ClassLabel(names=class_names))
    return _checked(found.select_columns(["image", "label", *kept[1:]]))


def _checked(dataset: Dataset) -> Dataset:
    """The rows, none of which lacks its image without saying which one it is, all of one size."""
    if not isinstance(dataset.features.get("image"), ImageFeature):
        return dataset
    images = dataset["image"][:]
    sources = dataset["source_index"][:] if "source_index" in dataset.features else [None] * len(images)
    for row, (image, source) in enumerate(zip(images, sources, strict=True)):
        if image is None and source is None:
            raise ValueError(f"Row {row} of the set has no image.")
    sizes = sorted({image.size for image in images if image is not None})
    if len(sizes) > 1:
        found = ", ".join(f"{width} x {height}" for width, height in sizes[:2])
        raise ValueError(
            f"The images of a set have one size, found {found}: resize them, or let select_baseline choose and crop "
            "real images."
        )
    return dataset
