"""What the two JSON files of a set may hold: they may be anybody's, so types are checked before anything is used."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from datasets import Dataset
from PIL import Image

_TEXT, _WHOLE, _NUMBER, _FLAG = (str,), (int,), (int, float), (bool,)
_MAYBE_TEXT, _MAYBE_WHOLE = (str, type(None)), (int, type(None))
_BACKBONE: dict[str, Any] = {
    "name": _TEXT,
    "architecture": _TEXT,
    "revision": _MAYBE_TEXT,
    "pooling": _TEXT,
    "feature_size": _WHOLE,
    "image_size": _MAYBE_WHOLE,
    "resize_ratio": _NUMBER,
    "mean": [_NUMBER],
    "std": [_NUMBER],
}
_RUN: dict[str, Any] = {"steps": _WHOLE, "seconds": _NUMBER, "device": _TEXT, "processes": _WHOLE}
# Of each key that is read: types, a list of such, or the keys of what it holds. Other keys may hold anything.
_CONFIG: dict[str, Any] = {
    "artifact": _TEXT,
    "began_as": _TEXT,
    "training_set": _TEXT,
    "command": _MAYBE_TEXT,
    "images_sha256": _TEXT,
    "settings": {
        "images_per_class": _WHOLE,
        "real_images_per_class": _WHOLE,
        "flip": _FLAG,
        "bounded_crops": _FLAG,
        "init": _TEXT,
        "init_weight": _NUMBER,
        "crop_scale": [_NUMBER],
        "objective": _TEXT,
        "parameterization": _TEXT,
        "probe_std": _NUMBER,
        "seed": _MAYBE_WHOLE,
    },
    "changed_settings": [_TEXT],
    "backbone": _BACKBONE,
    "more_backbones": [_BACKBONE],
    "source": {
        **dict.fromkeys(("dataset", "name"), _TEXT),
        **dict.fromkeys(("config", "split", "eval_split", "revision", "license_name", "license_link"), _MAYBE_TEXT),
        **dict.fromkeys(("image_column_name", "label_column_name"), _MAYBE_TEXT),
        "license": (str, list, type(None)),
        "num_images": _MAYBE_WHOLE,
    },
    "baseline": {"kind": _TEXT, "seed": _MAYBE_WHOLE, "resize_ratio": _NUMBER},
    "run": {**_RUN, "length_changed_at": [_WHOLE]},
    "versions": {},
}
_RESULT: dict[str, Any] = {
    **dict.fromkeys(("training_set", "backbone", "metric"), _TEXT),
    "mean": _NUMBER,
    "std": _NUMBER,
    "n_seeds": _WHOLE,
}


def check_config(config: Any) -> None:
    """Refuse what `lgm_config.json` can't hold.

    Raises:
        ValueError: If a value is of another type than is read there.
    """
    _check(config, _CONFIG, "lgm_config.json")
    if run := config.get("run"):
        _check_has_all(run, _RUN, "lgm_config.json, run")
    for backbone in (config.get("backbone", {}), *config.get("more_backbones", [])):
        if backbone.get("image_size"):  # what its card says beside the size
            _check_has_all(backbone, ("pooling",), "lgm_config.json, backbone")
    if len(bounds := config.get("settings", {}).get("crop_scale", (0, 1))) != 2:
        raise ValueError(
            f"lgm_config.json, settings.crop_scale: expected two areas, found {len(bounds)}. Is the set whole?"
        )


def check_rows(dataset: Dataset) -> None:
    """Refuse rows whose image is not in the set itself, or whose label is none of its classes.

    A real image may be missing: its row in the source says which one it is. A set may be a stranger's: a file of this
    machine that it names must not be read, let alone published.

    Args:
        dataset (`datasets.Dataset`): The rows.

    Raises:
        ValueError: If there is such a row, or images differ in size.
    """
    table, num_classes = dataset.with_format("arrow")[:], len(dataset.features["label"].names)
    for row, label in enumerate(table["label"].to_pylist()):
        if label is None or not 0 <= label < num_classes:
            raise ValueError(f"Row {row} of the set has label {label}: expected one of {num_classes} classes.")
    sizes: dict[tuple[int, int], int] = {}
    nothing = [None] * len(dataset)
    images, sources = (
        table[name].to_pylist() if name in table.column_names else nothing for name in ("image", "source_index")
    )
    for row, (stored, source) in enumerate(zip(images, sources, strict=True)):
        if stored is None:
            if not isinstance(source, int):
                raise ValueError(f"Row {row} of the set has no image, and no source_index that says which one it is.")
            continue
        if stored["bytes"] is None:
            raise ValueError(
                f"Row {row} of the set names a file where its image should be: expected the image itself."
            )
        try:
            with Image.open(BytesIO(stored["bytes"])) as image:
                sizes.setdefault(image.size, row)
        except Exception as error:  # broken files make decoders raise anything
            raise ValueError(
                f"Row {row} of the set holds no image ({type(error).__name__}). Is the set whole?"
            ) from error
    if len(sizes) > 1:
        found = ", ".join(f"{width} x {height} in row {row}" for (width, height), row in list(sizes.items())[:2])
        raise ValueError(f"The images of a set have one size, found {found}.")


def check_results(results: Any) -> None:
    """Refuse what `results.json` can't hold.

    Raises:
        ValueError: If a row lacks a value, or has one of another type.
    """
    _check(results, [_RESULT], "results.json")
    for number, row in enumerate(results):
        _check_has_all(row, _RESULT, f"results.json, item {number}")


def _check_has_all(found: dict[str, Any], keys: Iterable[str], where: str) -> None:
    if missing := [name for name in keys if name not in found]:
        raise ValueError(f"{where}: expected {', '.join(keys)}, found no {missing[0]}. Is the set whole?")


def _check(value: Any, expected: Any, where: str) -> None:
    kinds = expected if isinstance(expected, tuple) else (type(expected),)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{where}: expected {names}, found {type(value).__name__}. Is the set whole?")
    if isinstance(expected, dict):
        for key in [key for key in expected if key in value]:
            _check(value[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, list):
        for number, item in enumerate(value):
            _check(item, expected[0], f"{where}, item {number}")
