"""The images of a set, as plots show them."""

from PIL import Image

from ...publishing.distilled_set import DistilledSet


def images_of_class(images: DistilledSet, class_name: str) -> list[Image.Image]:
    """The images of one class, in RGB."""
    rows = (images.labels == images.class_names.index(class_name)).nonzero()[:, 0].tolist()
    return [image.convert("RGB") for image in images.dataset.select(rows)["image"][:]]
