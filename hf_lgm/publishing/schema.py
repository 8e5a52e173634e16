"""What the JSON files of a set or a probe may hold: they may be anybody's, so they are checked once, on entry.

What is named here is read, and is of this kind. Other keys may hold anything: later and earlier versions write them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..values import shown
from .files import CONFIG_FILE, RESULTS_FILE

# Sides of images and of a backbone's input: a few words in a file must not fill memory.
MAX_SIDE = 4096
_HINT = "Is the file whole?"


@dataclass(frozen=True)
class Kind:
    """What one value may be.

    Args:
        said (`str`): In words, as the end of "expected".
        fits (`Callable`): Whether a value is that.
    """

    said: str
    fits: Callable[[Any], bool]

    @property
    def or_null(self) -> "Kind":
        """The same, or nothing."""
        return Kind(f"{self.said} or null", lambda value: value is None or self.fits(value))


def number(least: float = -math.inf, most: float = math.inf, is_whole: bool = False) -> Kind:
    """A finite number in a range.

    Args:
        least (`float`, *optional*): The smallest.
        most (`float`, *optional*): The largest.
        is_whole (`bool`, *optional*, defaults to `False`): Whether it has no decimals.
    """
    bounds = [f"at least {least:,}"] * (least > -math.inf) + [f"at most {most:,}"] * (most < math.inf)
    kinds = (int,) if is_whole else (int, float)

    def fits(value: Any) -> bool:
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        return is_number and -_LARGEST < value < _LARGEST and least <= value <= most  # neither NaN nor infinity

    return Kind(" ".join([f"a {'whole ' if is_whole else ''}number", " and ".join(bounds)]).strip(), fits)


def listed(said: str, fits: Callable[[Any], bool], lengths: Iterable[int]) -> Kind:
    """A list of so many values that fit."""
    allowed = set(lengths)
    return Kind(said, lambda value: isinstance(value, list) and len(value) in allowed and all(map(fits, value)))


def _is_area_range(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2 and all(map(number(0, 1).fits, value))
    return is_pair and 0 < value[0] <= value[1]


def _are_class_names(value: Any) -> bool:
    are_texts = isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)
    return are_texts and len(set(value)) == len(value)


_LARGEST = 2**63
_TEXT = Kind("text", lambda value: isinstance(value, str))
_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_COUNT, _ONE_OR_MORE = number(0, is_whole=True), number(1, is_whole=True)
_POSITIVE = number(1e-6)
CLASS_NAMES = Kind("a list of names, none of them empty or twice", _are_class_names)
_BACKBONE: dict[str, Any] = {
    "name": _TEXT,
    "architecture": _TEXT,
    "revision": _TEXT.or_null,
    "pooling": _TEXT,
    "feature_size": _ONE_OR_MORE,
    "image_size": number(1, MAX_SIDE, is_whole=True).or_null,
    "resize_ratio": number(1, 16),
    "mean": listed("three numbers, or one", number().fits, (1, 3)),
    "std": listed("three numbers above 0, or one", _POSITIVE.fits, (1, 3)),
}
_RUN: dict[str, Any] = {"steps": _COUNT, "seconds": number(0), "device": _TEXT, "processes": _ONE_OR_MORE}
_LICENSE = Kind("text, a list of texts or null", lambda value: value is None or isinstance(value, (str, list)))
# Of each key that is read: its kind, a list of one kind, or the keys of what it holds.
_CONFIG: dict[str, Any] = {
    "artifact": _TEXT,
    "began_as": _TEXT,
    "training_set": _TEXT,
    "command": _TEXT.or_null,
    "images_sha256": _TEXT,
    "settings": {
        "images_per_class": _ONE_OR_MORE,
        "real_images_per_class": _COUNT,
        "flip": _FLAG,
        "bounded_crops": _FLAG,
        "init": _TEXT,
        "init_weight": number(0, 1),
        "crop_scale": Kind("two areas 0 < smallest <= largest <= 1", _is_area_range),
        "objective": _TEXT,
        "parameterization": _TEXT,
        "probe_std": number(0),
        "seed": _COUNT.or_null,
    },
    "changed_settings": [_TEXT],
    "backbone": _BACKBONE,
    "more_backbones": [_BACKBONE],
    "source": {
        **dict.fromkeys(("dataset", "name"), _TEXT),
        **dict.fromkeys(("config", "split", "eval_split", "revision", "license_name", "license_link"), _TEXT.or_null),
        **dict.fromkeys(("image_column_name", "label_column_name"), _TEXT.or_null),
        "license": _LICENSE,
        "num_images": _COUNT.or_null,
    },
    "baseline": {"kind": _TEXT, "seed": _COUNT.or_null, "resize_ratio": number(1, 16)},
    "run": {**_RUN, "length_changed_at": [_COUNT]},
    "versions": {},
}
_PERCENT = number(0, 100)
_RESULT: dict[str, Any] = {
    **dict.fromkeys(("training_set", "backbone", "metric"), _TEXT),
    "mean": _PERCENT,
    "std": _PERCENT,
    "n_seeds": _ONE_OR_MORE,
}
# What is read of a probe, besides what a set has; all of it is needed.
_OF_HEAD = ("source", "revision", "pooling", "image_size", "resize_ratio", "mean", "std", "feature_size")
_PROBE: dict[str, Any] = {
    **_CONFIG,
    "class_names": CLASS_NAMES,
    "backbone": {**_BACKBONE, "source": _TEXT},
    "num_images": _ONE_OR_MORE,
    "probe": _TEXT,
    "license": _TEXT.or_null,
}


def check_config(config: Any) -> None:
    """Refuse what `lgm_config.json` of a set can't hold.

    Raises:
        ValueError: If a value is of another kind than is read there; the message names its keys.
    """
    _check(config, _CONFIG, CONFIG_FILE)
    if run := config.get("run"):
        _check_has_all(run, _RUN, f"{CONFIG_FILE}, run")
    for backbone in (config.get("backbone", {}), *config.get("more_backbones", [])):
        if backbone.get("image_size"):  # what its card says beside the size
            _check_has_all(backbone, ("pooling",), f"{CONFIG_FILE}, backbone")


def check_probe_config(config: Any) -> None:
    """Refuse what `lgm_config.json` of a probe can't hold.

    Raises:
        ValueError: If a value is missing, or of another kind than is read there.
    """
    _check(config, _PROBE, CONFIG_FILE)
    check_config(config)
    _check_has_all(config, ("class_names", "backbone"), CONFIG_FILE)
    _check_has_all(config["backbone"], _OF_HEAD, f"{CONFIG_FILE}, backbone")


def check_results(results: Any, name: str = RESULTS_FILE) -> None:
    """Refuse what `results.json` can't hold.

    Args:
        results (`list[dict]`): Its rows.
        name (`str`, *optional*, defaults to `"results.json"`): What messages call it.

    Raises:
        ValueError: If a row lacks a value, or has one of another kind.
    """
    _check(results, [_RESULT], name)
    for place, row in enumerate(results):
        _check_has_all(row, _RESULT, f"{name}, item {place}")


def _check_has_all(found: dict[str, Any], keys: Iterable[str], where: str) -> None:
    if missing := [name for name in keys if name not in found]:
        raise ValueError(f"{where}: expected {', '.join(keys)}, found no {missing[0]}. {_HINT}")


def _check(value: Any, expected: Any, where: str) -> None:
    kind = expected if isinstance(expected, Kind) else _OF_TYPE[type(expected)]
    if not kind.fits(value):
        raise ValueError(f"{where}: expected {kind.said}, found {shown(value)}. {_HINT}")
    if isinstance(expected, dict):
        for key in [key for key in expected if key in value]:
            _check(value[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, list):
        for place, item in enumerate(value):
            _check(item, expected[0], f"{where}, item {place}")


_OF_TYPE: dict[type, Kind] = {
    dict: Kind("a mapping of names to values", lambda value: isinstance(value, dict)),
    list: Kind("a list", lambda value: isinstance(value, list)),
}
