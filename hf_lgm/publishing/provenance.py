"""Where real images come from and under which licence: what is known of it, and nothing invented."""

import logging
import math
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from huggingface_hub import HfApi, RepoCard
from huggingface_hub.errors import HTTPError

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..data.labelled_images import LabelledImages
from ..demo import DEMO_DATASET, DEMO_LICENSE, demo_folder
from ..hub import check_repo_id, is_hub_reachable
from .licenses import on_card

logger = logging.getLogger(__name__)

# Where datasets keeps a copy of "user/name": user___name/<configuration>/<version>/<commit>/
_CACHED_COPY = re.compile(r"([\w.-]+?)___([\w.-]+)/[^/]+/[^/]+/([0-9a-f]{40})/[^/]+\.arrow")


def describe_source(dataset: str) -> dict[str, Any]:
    """What a dataset's repository, or the card in its folder, says of itself; its revision where it has one.

    Args:
        dataset (`str`): Hub id, folder, or the name of the demo's digits.
    """
    if dataset == DEMO_DATASET:
        return {"license": DEMO_LICENSE}
    said = _ask(dataset, "dataset")
    if "license" in said:
        said["license_declared_by"] = "source"
    return said


def backbones_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What `lgm_config.json` says of the backbones that a set was made through; empty where it says nothing."""
    return [backbone for backbone in (config.get("backbone"), *config.get("more_backbones", [])) if backbone]


def made_through(config: dict[str, Any]) -> list[str]:
    """Their names."""
    return [backbone["name"] for backbone in backbones_of(config) if "name" in backbone]


def differences(config: dict[str, Any], backbone: FrozenBackbone) -> list[str]:
    """What a set recorded of the one backbone that it was made through, where this one is otherwise; empty for none.

    Weights are told apart by the revision, where there is one. Precision may differ, and how real images are resized.
    """
    made, now = backbones_of(config), backbone.describe()
    if len(made) != 1:
        return [f"{len(made)} backbones"]
    both = {name: made[0][name] for name in _OF_MODEL if None not in (made[0].get(name), now.get(name))}
    return [f"{name} {value}, not {now[name]}" for name, value in both.items() if not _is_same(value, now[name])]


# What tells one model from another; earlier versions recorded numbers with six decimals.
_OF_MODEL = ("name", "architecture", "revision", "pooling", "feature_size", "image_size", "mean", "std")


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def beginning_of(config: dict[str, Any], is_real: bool) -> str:
    """What the images of a set began as, through all sets that it went on from: `noise`, `real` or `unknown`.

    Args:
        config (`dict`): Its `lgm_config.json`.
        is_real (`bool`): Whether it holds real images.
    """
    if is_real:
        return "real"
    # What was recorded goes first: of a folder's path only the last part is published, which may be `noise`.
    return config.get("began_as") or _BEGINNINGS.get(str(config.get("settings", {}).get("init")), "unknown")


_BEGINNINGS = {"noise": "noise", "centroid": "real", "random": "real"}


def declared_license(model: str | None) -> str | None:
    """The licence that the card of a model, on the Hub or in a folder, declares; `None` for none."""
    return _ask(str(demo_folder(model) or model), "model").get("license") if model else None


def describe_distillation(
    args: LGMConfig,
    backbones: Sequence[FrozenBackbone],
    train_images: LabelledImages,
    eval_images: LabelledImages | None,
    given: dict[str, Any],
) -> dict[str, Any]:
    """What `lgm_config.json` says of a distilled set, but for the run itself.

    Args:
        args ([`LGMConfig`]): The settings.
        backbones (`Sequence[FrozenBackbone]`): What it is made through.
        train_images ([`LabelledImages`]): What is distilled.
        eval_images ([`LabelledImages`], *optional*): What is evaluated on.
        given (`dict`): What the caller knows besides.
    """
    others = [each.describe() for each in backbones[1:]]
    return {
        "settings": args.own_settings(),
        "changed_settings": args.changed_settings(),
        "backbone": backbones[0].describe(),
        **({"more_backbones": others} if others else {}),
        **given,
        "source": {**given.get("source", {}), **describe_images(train_images, eval_images)},
        "versions": library_versions(),
    }


def describe_images(train_images: LabelledImages, eval_images: LabelledImages | None = None) -> dict[str, Any]:
    """How many images there are, of which splits; and which commit of which dataset, where `load_dataset` fetched it.

    Args:
        train_images ([`LabelledImages`]): What is distilled.
        eval_images ([`LabelledImages`], *optional*): What is evaluated on.
    """
    splits = {"split": _split(train_images), "eval_split": _split(eval_images)}
    files = train_images.source.cache_files if isinstance(train_images.source, Dataset) else []
    found = _CACHED_COPY.search(files[0]["filename"]) if files else None
    origin = {"dataset": f"{found[1]}/{found[2]}", "revision": found[3]} if found else {}
    named = {name: str(split) for name, split in splits.items() if split is not None}
    return {**origin, "num_images": len(train_images), **named}


def _split(images: LabelledImages | None) -> Any:
    return getattr(images.source, "split", None) if images else None


def reason_to_be_private(source: dict[str, Any]) -> str | None:
    """Why images made of this source should not be public without being asked for; `None` for no reason."""
    name, declared = source.get("dataset", "the source"), source.get("license")
    license_ = on_card(declared)["license"]
    if source.get("gated"):
        return f"{name} is gated"
    if license_ == "unknown":
        return f"the licence of {name} is unknown"
    if license_ == "other":
        return f"{name} has terms of its own ({source.get('license_name', f'licence: {declared}')})"
    if "nc" in license_.split("-") or "noncommercial" in license_:
        return f"{name} is for non-commercial use ({license_})"
    return None


def is_hub_id(name: Any) -> bool:
    """Whether a published name is a Hub id `user/name`: of folders only the last part is published."""
    try:
        check_repo_id(name)
    except ValueError:
        return False
    return True


def _ask(name: str, repo_type: str) -> dict[str, Any]:
    """What a repository or folder says of itself: `license`, and on the Hub `revision` and whether it is `gated`."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        license_ = _licence_of(folder / "README.md")
        return {"license": license_} if license_ else {}
    if not is_hub_reachable():
        return {}
    try:
        info: Any = HfApi().repo_info(name, repo_type=repo_type)
    except (HTTPError, OSError, ValueError) as error:  # loading it says what is wrong
        logger.debug("Nothing is known of %s: %s", name, error)
        return {}
    card = info.card_data
    described = {"revision": info.sha, "gated": bool(info.gated), "license": _one(getattr(card, "license", None))}
    return {name: value for name, value in described.items() if value}


def _licence_of(card: Path) -> str | None:
    if not card.is_file():
        return None
    try:
        return _one(getattr(RepoCard.load(card, ignore_metadata_errors=True).data, "license", None))
    except (ValueError, yaml.YAMLError):  # somebody's README, not a card
        return None


def _one(license_: Any) -> str | None:
    """One licence of what a card declares, which may be a list."""
    if isinstance(license_, list):
        return str(license_[0]) if len(license_) == 1 else "other" if license_ else None
    return str(license_) if license_ else None


def library_versions() -> dict[str, str]:
    """Versions of this package and of what decides its numbers."""
    return {name: version(name) for name in ("hf_lgm", "torch", "transformers", "datasets", "pillow")}
