import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from hf_lgm import LabelledImages
from hf_lgm.data.grey import are_grey, is_grey
from hf_lgm.data.images import to_rgb

RANDOM = np.random.default_rng(0).integers(0, 256, (12, 12, 4)).astype(np.uint8)


def with_difference(levels):
    """Grey but for one pixel, whose blue is off by so many levels."""
    pixels = np.full((12, 12, 3), 100, np.uint8)
    pixels[3, 4, 2] += levels
    return PILImage.fromarray(pixels)


def as_jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return PILImage.open(file)


GREY = PILImage.fromarray(RANDOM[..., 0])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (GREY, True),
        (GREY.convert("RGB"), True),  # three equal channels
        (PILImage.fromarray(RANDOM[..., :2], "LA"), True),
        (GREY.convert("RGBA"), True),
        (GREY.convert("1"), True),
        (GREY.convert("P"), True),
        (as_jpeg(GREY.convert("RGB")), True),
        (with_difference(2), True),
        (with_difference(3), False),  # one pixel is enough
        (PILImage.fromarray(RANDOM[..., :3]), False),
        (PILImage.fromarray(RANDOM, "RGBA"), False),
    ],
)
def test_which_images_are_grey(image, expected):
    assert is_grey(to_rgb(image)) == expected


def labelled(images):
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    labels = [row % 2 for row in range(len(images))]
    return LabelledImages.from_dataset(Dataset.from_dict({"image": images, "label": labels}, features=features))


def test_one_coloured_image_in_the_sample_is_enough():
    assert are_grey(labelled([GREY] * 20))
    assert not are_grey(labelled([GREY] * 19 + [with_difference(40)]))
    assert not are_grey(labelled([GREY] * 3).select(labelled([GREY] * 3).labels[:0]))  # none at all


def test_no_more_are_looked_at_than_the_sample(monkeypatch):
    monkeypatch.setattr("hf_lgm.data.grey._SAMPLE", 4)
    images, seen = labelled([GREY] * 10), []
    look = LabelledImages.image
    monkeypatch.setattr(LabelledImages, "image", lambda self, row: seen.append(row) or look(self, row))
    assert are_grey(images) and seen == [0, 2, 5, 7]
