"""A static Space that shows the page: files alone, so nothing runs there, sleeps or costs anything."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData

from ..publishing.card import license_sentence
from ..publishing.files import CARD_FILE, CONFIG_FILE, read_json, write_json
from ..publishing.markdown import escaped
from ..publishing.provenance import made_through, reason_to_be_private
from ..publishing.repository import HubRepository
from .data import ShownSet

PAGE_FILE = "index.html"
_ARTIFACT = "gallery"
_KEPT = ("source", "backbone", "more_backbones", "settings")  # tell a new version of a gallery from another one


def write_space(folder: str | Path, page: str, sets: Sequence[ShownSet]) -> Path:
    """Write the files of the Space; returns the folder.

    Args:
        folder (`str` or `Path`): New, empty, or that of an earlier gallery.
        page (`str`): Of [`render_page`].
        sets (`Sequence[ShownSet]`): What it shows.

    Raises:
        FileExistsError: If something else is there.
    """
    folder = Path(folder)
    check_space_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_FILE, _config(sets))  # first: it says that the rest is ours
    (folder / CARD_FILE).write_text(_card(sets), encoding="utf-8")
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    return folder


def push_space(repo_id: str, page: str, sets: Sequence[ShownSet], private: bool | None = None) -> str:
    """Publish the Space, in one commit; returns its address.

    Args:
        repo_id (`str`): `user/name`; created if need be.
        page (`str`): Of [`render_page`].
        sets (`Sequence[ShownSet]`): What it shows.
        private (`bool`, *optional*): Whether a new Space is private; where not given it is as the sets would be.

    Raises:
        HubError: If it did not work; the message says what to do.
    """
    reasons = (reason_to_be_private(each.images.config.get("source", {})) for each in sets)
    why = next(filter(None, reasons), None)
    repository = HubRepository(repo_id, "space", config=_config(sets), private=private, why_private=why)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_space(temporary, page, sets)
        files = {name: folder / name for name in (CARD_FILE, CONFIG_FILE, PAGE_FILE)}
        return repository.push(files, "Upload with hf_lgm")


def check_space_folder(folder: str | Path) -> None:
    """Refuse a folder that holds something else than a gallery.

    Raises:
        FileExistsError: If it does.
    """
    folder = Path(folder)
    is_empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_empty and (folder.is_file() or read_json(folder / CONFIG_FILE, dict).get("artifact") != _ARTIFACT):
        raise FileExistsError(f"space: '{folder}' holds something that is no gallery of hf_lgm: give another folder.")


def _config(sets: Sequence[ShownSet]) -> dict[str, Any]:
    first = sets[0].images.config
    return {"artifact": _ARTIFACT, **{name: first[name] for name in _KEPT if name in first}}


def _card(sets: Sequence[ShownSet]) -> str:
    title = " and ".join(" ".join(each.name.split()) for each in sets)
    data = SpaceCardData(title=f"Gallery: {title}", sdk="static", app_file=PAGE_FILE, tags=["hf_lgm"])
    lines = [f"---\n{data.to_yaml()}\n---\n", "Images to look at, in one page that asks nothing of any server.\n"]
    for each in sets:
        through = " and ".join(map(escaped, made_through(each.images.config))) or "an unknown backbone"
        licence = license_sentence(each.images.config.get("source", {}))
        lines.append(f"- {escaped(each.name)}, through {through}. Licence: {licence[0].lower()}{licence[1:]}")
    return "\n".join([*lines, "\nMade by `hf-lgm gallery`."]) + "\n"
