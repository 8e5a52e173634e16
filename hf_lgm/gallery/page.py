"""The page: one HTML file with its style, script and data in it, which asks nothing of anybody."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = files("hf_lgm.gallery") / "templates"
_OURS = '<meta name="generator" content="hf_lgm gallery">'
_HEAD = 2000  # characters in which this stands


def render_page(data: dict[str, Any]) -> str:
    """The page as text. Names are a stranger's: as JSON they can't end their element, and the script writes text.

    Args:
        data (`dict`): Of [`page_data`].
    """
    page, style, script = ((_TEMPLATES / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(page).render(
        data=data,
        ours=Markup(_OURS),
        style=Markup(style),
        script=Markup(script),
        policy=Markup(_policy(style, script)),
    )


def check_is_ours(path: str | Path) -> None:
    """Refuse to write over a file that is no gallery.

    Raises:
        FileExistsError: If it is there.
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"static: '{path}' is a folder: give the name of a file, such as {path}/gallery.html.")
    if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace")[:_HEAD]:
        raise FileExistsError(f"static: '{path}' is there and no gallery of hf_lgm: choose another name.")


def _policy(style: str, script: str) -> str:
    """What the browser may do: show images that are in the page, and run this style and script; no request at all."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    allowed = f"img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
