"""Labelled images as lists, arrays and torch datasets give what the same images in a `datasets.Dataset` give."""

import io

import numpy as np
import pytest
import torch
from conftest import SIDE, make_dataset
from datasets import Image as DatasetImage
from PIL import Image
from torch.utils.data import Subset

from hf_lgm import LabelledImages
from hf_lgm.data.conversion import to_pil
from hf_lgm.features.extraction import FeatureExtractor

NAMES = ["class 0", "class 1", "class 2"]


class Pairs(torch.utils.data.Dataset):
    """As torchvision's datasets are."""

    classes = NAMES

    def __init__(self, pairs, transform=lambda image: image):
        self.pairs, self.transform = pairs, transform

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, number):
        image, label = self.pairs[number]
        return self.transform(image), label


def pairs():
    return [(row["image"], row["label"]) for row in make_dataset()]


def arrays():
    return np.stack([np.asarray(image) for image, _ in pairs()]), np.array([label for _, label in pairs()])


def to_float(image):
    return torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1)


FORMS = {
    "a dataset": lambda: make_dataset(),
    "pairs": lambda: pairs(),
    "pairs with names": lambda: [(image, NAMES[label]) for image, label in pairs()],
    "pairs of arrays": lambda: [(np.asarray(image), label) for image, label in pairs()],
    "pairs of 8-bit tensors": lambda: [(torch.tensor(np.asarray(image)).permute(2, 0, 1), y) for image, y in pairs()],
    "two arrays": lambda: arrays(),
    "two tensors": lambda: tuple(map(torch.tensor, arrays())),
    "two lists": lambda: tuple(map(list, zip(*pairs(), strict=True))),
    "a torch dataset": lambda: Pairs(pairs()),
    "a subset of one": lambda: Subset(Pairs(pairs()), range(24)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_features_and_labels(backbone, form):
    images, expected = LabelledImages.wrap(FORMS[form]()), LabelledImages.from_dataset(make_dataset())
    assert torch.equal(images.labels, expected.labels)
    has_names = form in ("a dataset", "pairs with names", "a torch dataset", "a subset of one")
    assert images.class_names == (NAMES if has_names else ["0", "1", "2"])
    extractor = FeatureExtractor()
    assert torch.equal(extractor.extract(backbone, images), extractor.extract(backbone, expected))


def test_the_same_images_have_the_same_fingerprint_again():
    """So that their features are found in the cache."""
    first, second = (LabelledImages.wrap(arrays()).fingerprint for _ in range(2))
    assert first == second != LabelledImages.wrap((255 - arrays()[0], arrays()[1])).fingerprint


def test_grey_images_and_names_that_are_not_all_there():
    images = LabelledImages.wrap((np.full((2, 5, 7), 9, np.uint8), ["b", "a"]))
    assert (images.labels.tolist(), images.class_names) == ([1, 0], ["a", "b"])
    assert images.image(0).mode == "RGB" and images.image(0).size == (7, 5)
    one = LabelledImages.wrap(Subset(Pairs(pairs()), [23]))
    assert (one.labels.tolist(), one.class_names) == ([2], NAMES)


def test_an_image_in_memory_is_read_as_its_file_is():
    """Turned as it says, and not written as a JPEG once more."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(file, "JPEG", exif=exif)
    pair = (Image.open(io.BytesIO(file.getvalue())), 0)
    stored = make_dataset(1, 1).remove_columns("image").add_column("image", [{"bytes": file.getvalue(), "path": None}])
    of_file = LabelledImages.from_dataset(stored.cast_column("image", DatasetImage())).image(0)
    in_memory = LabelledImages.wrap([pair, pair]).image(0)
    assert in_memory.size == (8, 12) and in_memory.tobytes() == of_file.tobytes()


def test_transparency_is_white():
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert to_pil(clear).getpixel((0, 0)) == to_pil(np.asarray(clear)).getpixel((0, 0)) == (255, 255, 255)


PICTURE = np.zeros((SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            Pairs(pairs(), to_float), TypeError,
            r"Image 0: Expected PIL images, or uint8 arrays .*found a float64 tensor: leave out the transform",
        ),
        ((np.zeros((2, 4, 4, 3)), [0, 1]), TypeError, "Image 0: .* found a float64 array: .*as uint8"),
        ((np.zeros((2, 3, 8, 8), np.uint8), [0, 1]), TypeError, r"found a uint8 array of shape \(3, 8, 8\)"),
        (([PICTURE], [0, 1]), ValueError, "a label for each image, found 1 images and 2 labels"),
        (([PICTURE], np.eye(1)), TypeError, r"Label 0 is ndarray of shape \(1,\): expected one whole number or name"),
        (([PICTURE], [0.5]), TypeError, "Label 0 is float 0.5: expected one whole number or name per image"),
        (([PICTURE] * 2, [0, "a"]), TypeError, "Some labels are names and some are numbers"),
        ((PICTURE, 3), TypeError, "a pair .images, labels. of two lists or arrays, found ndarray and int"),
        ([PICTURE], TypeError, r"Item 0 has no label: expected a pair \(image, label\), found ndarray"),
        (np.stack([PICTURE]), TypeError, r"found ndarray without labels: give a list of pairs"),
        ([("cat.png", 0)], TypeError, "Image 0: Expected PIL images.*; found str"),
        (7, TypeError, r"Expected a datasets.Dataset, found int. Also taken: a list of pairs \(image, label\)"),
        ({"train": make_dataset(1)}, TypeError, r"found dict; choose one of its splits, such as dataset\['train'\]"),
        (make_dataset(1).to_iterable_dataset(), TypeError, "A streamed dataset has to be encoded in one pass first"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(images, error, message):
    with pytest.raises(error, match=message) as raised:
        LabelledImages.wrap(images)
    assert "\n" not in str(raised.value)
