"""`encode` takes images in any form, and gives what the real images of a run give."""

import numpy as np
import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from PIL import Image

from hf_lgm import FrozenBackbone, LabelledImages, Preprocessing
from hf_lgm.features.extraction import FeatureExtractor


@pytest.fixture
def cropping():
    """A backbone that resizes and crops."""
    return FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=1.25))


def dataset():
    return make_dataset(side=24)


def images():
    return dataset()["image"][:]


FORMS = {
    "a list of images": lambda: images(),
    "a tuple": lambda: tuple(images()),
    "a column": lambda: dataset()["image"],
    "a list of arrays": lambda: [np.asarray(image) for image in images()],
    "a batch of arrays": lambda: np.stack([np.asarray(image) for image in images()]),
    "a dataset": lambda: dataset(),
    "a dataset without labels, as arrays": lambda: dataset().remove_columns("label").with_format("numpy"),
    "labelled images": lambda: LabelledImages.from_dataset(dataset()),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_are_seen_as_real_ones_are(cropping, form):
    expected = FeatureExtractor(batch_size=5).extract(cropping, LabelledImages.from_dataset(dataset()))
    z = cropping.encode(FORMS[form](), batch_size=5)
    assert z.shape == (24, 24) and not z.requires_grad
    assert torch.equal(z, expected)


def test_one_image(cropping):
    image = images()[0]
    expected = cropping.encode([image])
    assert expected.shape == (1, 24)
    assert torch.equal(cropping.encode(image), expected)
    assert torch.equal(cropping.encode(np.asarray(image)), expected)
    grey = image.convert("L")
    assert torch.equal(cropping.encode(np.asarray(grey)), cropping.encode(grey.convert("RGB")))
    assert torch.equal(cropping.encode(np.asarray(grey)[None, :, :, None]), cropping.encode(grey))


def test_tensors_are_8_bit_crops(cropping):
    crops = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(cropping.encode(crops), cropping(crops / 255))
    with pytest.raises(TypeError, match=r"encode takes 8-bit images; for floats .* call the backbone itself"):
        cropping.encode(crops / 255)


def test_layers_come_too(cropping):
    backbone = cropping.with_layers(1)
    z = backbone.encode(images()[:3], with_layers=True)
    assert z.shape == (3, sum(backbone.widths)) and sum(backbone.widths) > 24
    assert torch.equal(z[:, :24], backbone.encode(images()[:3]))
    assert backbone.encode([], with_layers=True).shape == (0, sum(backbone.widths))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("cat.png", "Expected PIL images, or uint8 arrays .*, a list of these, or a datasets.Dataset; found str"),
        ([torch.rand(3, 8, 8)], "found a float32 tensor: leave out the transform"),
        (np.zeros((1, 8, 8, 3)), "found a float64 array"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"found a uint8 array of shape \(3, 8, 8\)"),
        ([Image.new("F", (8, 8))], "floating-point images .* convert them"),
    ],
)
def test_what_is_no_image(cropping, images, message):
    with pytest.raises((TypeError, ValueError), match=message):
        cropping.encode(images)
