"""The images of a set, as plots show them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...publishing.distilled_set import DistilledSet

if TYPE_CHECKING:
    from matplotlib.offsetbox import AnnotationBbox


def images_of_class(images: DistilledSet, class_name: str) -> list[Image.Image]:
    """The images of one class, in RGB."""
    rows = (images.labels == images.class_names.index(class_name)).nonzero()[:, 0].tolist()
    return [image.convert("RGB") for image in images.dataset.select(rows)["image"][:]]


def framed(
    image: Image.Image, at: tuple[float, float], side: float, colour: str = "none", **place: Any
) -> "AnnotationBbox":
    """An image of so many points at a place of a plot, in a frame of a colour."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage  # here, since it is slow to load

    picture = OffsetImage(np.asarray(image), zoom=side / image.width, interpolation="lanczos")
    frame = {"edgecolor": colour, "facecolor": "none", "linewidth": 2, "boxstyle": "square,pad=0.05"}
    return AnnotationBbox(picture, at, bboxprops=frame, pad=0.05, annotation_clip=False, **place)
