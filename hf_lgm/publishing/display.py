"""How a set shows itself: rows like a dataset's, a picture of its images with their names, a table in a notebook."""

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from .figures import MAX_NAMED, evenly_sampled, named_grid
from .markdown import one_line
from .provenance import made_through

if TYPE_CHECKING:
    from .distilled_set import DistilledSet

_THUMBNAIL, _GAP = 96, 6


def rows_at(images: "DistilledSet", index: Any) -> Any:
    """What a `datasets.Dataset` gives at an index, a slice or a name; an image that is not here is `None`."""
    found = images.dataset[index]
    if "image" in images.dataset.features or not isinstance(found, dict):
        return found
    labels = found["label"]
    return {"image": [None] * len(labels) if isinstance(labels, list) else None, **found}


def in_one_line(images: "DistilledSet") -> str:
    """How many images of how many classes, their size, and what they were made through."""
    count, missing = len(images), len(images.missing_rows)
    parts = [f"{count} {'real ' if images.is_real else ''}images of {len(images.class_names)} classes", *_size(images)]
    if missing:
        parts.append("without the images" if missing == count else f"{missing} real ones not here")
    elif images.has_real_images and not images.is_real:
        parts.append(f"{int(images.real_rows.sum())} of them real")
    if names := made_through(images.config):
        parts.append(f"{'chosen ' if images.is_real else ''}through {' and '.join(names)}")
    return f"DistilledSet({', '.join(parts)})"


def picture(images: "DistilledSet", max_images: int = MAX_NAMED) -> Image.Image:
    """See [`DistilledSet.show`]."""
    rows, note = _sample(len(images), max_images)
    return named_grid([images[row]["image"] for row in rows], _names(images, rows), note)


def as_html(images: "DistilledSet") -> str:
    """The images with their names as HTML that needs no other file."""
    rows, note = _sample(len(images), MAX_NAMED)
    cells = [_figure(images[row]["image"], name) for row, name in zip(rows, _names(images, rows), strict=True)]
    head = "".join(f"<p>{html.escape(line)}</p>" for line in (in_one_line(images), note) if line)
    return f'<div>{head}<div style="display:flex;flex-wrap:wrap;gap:{_GAP}px">{"".join(cells)}</div></div>'


def html_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table for a notebook; the first row is its head, and the first cell of each other row is one too."""
    first, *others = [[html.escape(cell) for cell in row] for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in first)
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, *cells in others
    )
    caption = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _sample(count: int, limit: int) -> tuple[list[int], str]:
    """The rows to show, and what is said of those that are not."""
    if limit < 1:
        raise ValueError(f"max_images must be at least 1, found {limit}.")
    rows = evenly_sampled(count, limit) if count else []
    return rows, f"{len(rows)} of {count:,} images, evenly spread" if len(rows) < count else ""


def _names(images: "DistilledSet", rows: Sequence[int]) -> list[str]:
    labels, names = images.labels.tolist(), images.class_names
    return [names[labels[row]] for row in rows]


def _size(images: "DistilledSet") -> list[str]:
    """Width and height, where there is an image to tell."""
    missing = set(images.missing_rows.tolist())
    here = next((row for row in range(len(images)) if row not in missing), None)
    if here is None:
        return []
    image = images[here]["image"]
    return [f"{image.width}x{image.height}"]


def _figure(image: Image.Image | None, name: str) -> str:
    """One image with its name as HTML that needs nothing else."""
    style, name = f"width:{_THUMBNAIL}px;height:{_THUMBNAIL}px", html.escape(one_line(name))
    if image is None:
        tile = f'<div style="{style};border:1px dashed grey;box-sizing:border-box" title="not here"></div>'
    else:
        buffer, image = BytesIO(), image.convert("RGB")
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        image.save(buffer, format="PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        tile = f'<img style="{style}" alt="{name}" src="data:image/png;base64,{data}">'
    caption = f'<figcaption style="width:{_THUMBNAIL}px;overflow-wrap:anywhere">{name}</figcaption>'
    return f'<figure style="margin:0">{tile}{caption}</figure>'
