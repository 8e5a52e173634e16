"""What the page shows, as values for JSON: class names, and for each set its images with all that is known of them."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from ..data.images import to_rgb
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import made_through
from .growth import Growth
from .relations import RealNeighbor, Relations

# Of all images of a page together: about 20 MB, which a browser takes in a second or two.
MAX_PIXELS = 40_000_000
_LOSSLESS = 64  # the largest side that is
_QUALITY = 80
_BATCH = 64
_CONFUSIONS = 5  # classes that are named


@dataclass(frozen=True)
class ShownSet:
    """A set of the gallery.

    Args:
        name (`str`): What the page calls it.
        images ([`DistilledSet`]): The set.
        growth ([`Growth`], *optional*): How its images came about.
        relations ([`Relations`], *optional*): What a backbone says of them.
    """

    name: str
    images: DistilledSet
    growth: Growth | None = None
    relations: Relations | None = None


def page_data(
    sets: Sequence[ShownSet], seen: dict[str, Any] | None = None, include_source_images: bool = False
) -> dict[str, Any]:
    """What `templates/page.js` reads.

    Args:
        sets (`Sequence[ShownSet]`): One or several, of the same classes.
        seen (`dict`, *optional*): Of the relations: `model`, `dataset`, `split`.
        include_source_images (`bool`, *optional*, defaults to `False`): Show real images; otherwise their rows in the
            source are named.

    Raises:
        ValueError: If the sets differ in their classes.
    """
    check_classes(sets)
    names = sets[0].images.class_names
    side = math.isqrt(MAX_PIXELS // max(1, sum(len(each.images) for each in sets)))
    return {
        "title": " and ".join(each.name for each in sets),
        "classes": names,
        "seen": seen,
        "sets": [_set_data(each, names, side, include_source_images) for each in sets],
    }


def check_classes(sets: Sequence[ShownSet]) -> None:
    """Refuse sets of different classes, which have no rows in common.

    Raises:
        ValueError: If they differ; the message names two.
    """
    first, *others = sets
    for each in others:
        if set(each.images.class_names) != set(first.images.class_names):
            raise ValueError(
                f"'{each.name}' has other classes than '{first.name}': sets side by side are of the same classes."
            )


def data_uri(image: Image.Image, side: int) -> str:
    """An image as text that a page can show, at most of this side."""
    image, buffer = to_rgb(image), BytesIO()
    image.thumbnail((side, side))
    kind, how = ("png", {}) if max(image.size) <= _LOSSLESS else ("jpeg", {"quality": _QUALITY})
    image.save(buffer, format=kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _set_data(shown: ShownSet, class_names: list[str], side: int, include_source_images: bool) -> dict[str, Any]:
    images = shown.images.to_publish(include_source_images)
    labels = images.labels_as(class_names).tolist()
    own = [class_names.index(name) for name in images.class_names]  # numbers on the page, by the set's
    relations = shown.relations
    rows = []
    for row, (label, found) in enumerate(zip(labels, _rows(images), strict=True)):
        picture, source = found.get("image"), found.get("source_index")
        image: dict[str, Any] = {"label": label, "src": data_uri(picture, side) if picture else None, "row": source}
        if shown.growth is not None:
            image["cell"] = shown.growth.cells.get(row)
        if relations is not None:
            image["real"] = [_real_data(near, own) for near in relations.real[row]]
            image["synthetic"] = [[other, round(cosine, 3)] for other, cosine in relations.synthetic[row]]
        rows.append(image)
    return {
        "name": shown.name,
        "is_real": images.is_real,
        "through": made_through(images.config),
        "images": rows,
        "growth": _growth_data(shown.growth) if shown.growth else None,
        "confusions": _confusion_data(relations, own) if relations else None,
    }


def _rows(images: DistilledSet) -> Iterator[dict[str, Any]]:
    """The rows of a set, a few of which are decoded at a time."""
    for batch in images.dataset.iter(_BATCH):
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _real_data(near: RealNeighbor, own: list[int]) -> dict[str, Any]:
    src = None if near.image is None else data_uri(near.image, near.image.width)
    return {"row": near.row, "label": own[near.label], "similarity": round(near.similarity, 3), "src": src}


def _growth_data(growth: Growth) -> dict[str, Any]:
    frames = [data_uri(frame, max(frame.size)) for frame in growth.frames]
    return {"columns": growth.columns, "rows": growth.rows, "frames": frames}


def _confusion_data(relations: Relations, own: list[int]) -> list[dict[str, Any]]:
    """For each class of the page how many real images of it were seen, and what most of them were taken for."""
    found: list[dict[str, Any]] = [{}] * len(own)
    for label, counts in enumerate(relations.confusions):
        best = counts.topk(min(_CONFUSIONS, len(counts)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        taken_for = [[own[other], count] for other, count in pairs if count]
        found[own[label]] = {"total": int(counts.sum()), "taken_for": taken_for}
    return found
