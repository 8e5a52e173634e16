"""A set as rows, as a picture, and in a notebook; also where real images are missing."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sets import NASTY, make_set

from hf_lgm import DistilledSet
from hf_lgm.publishing.display import html_table
from hf_lgm.publishing.figures import _CELL, GAP, PREVIEW_PIXELS, save_preview

THROUGH = {"backbone": {"name": "demo-vit"}}
PARTLY_REAL = [0, None, 8, None, 16, None]


def variants():
    """A distilled set, a baseline, and both kinds as they are published."""
    mixed, baseline = make_set(source_index=PARTLY_REAL), make_set(source_index=range(6))
    return {
        "distilled": make_set(config=THROUGH),
        "mixed": mixed,
        "mixed, published": mixed.to_publish(),
        "baseline": DistilledSet(baseline.dataset, THROUGH),
        "baseline, published": DistilledSet(baseline.to_publish().dataset, THROUGH),
    }


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("distilled", "DistilledSet(6 images of 3 classes, 16x16, through demo-vit)"),
        ("mixed", "DistilledSet(6 images of 3 classes, 16x16, 3 of them real)"),
        ("mixed, published", "DistilledSet(6 images of 3 classes, 16x16, 3 real ones not here)"),
        ("baseline", "DistilledSet(6 real images of 3 classes, 16x16, chosen through demo-vit)"),
        (
            "baseline, published",
            "DistilledSet(6 real images of 3 classes, without the images, chosen through demo-vit)",
        ),
    ],
)
def test_one_line(name, line):
    assert repr(variants()[name]) == line


@pytest.mark.parametrize("name", variants())
def test_rows_are_those_of_a_dataset(name):
    images = variants()[name]
    missing = images.missing_rows.tolist()
    assert len(images) == 6 and [row["label"] for row in images] == [0, 0, 1, 1, 2, 2]
    for row in (0, 5, -1, -6):
        found = images[row]
        assert found["label"] == images.labels[row]
        if row % 6 in missing:
            assert found["image"] is None
        else:
            assert found["image"].size == (16, 16) and found == images.dataset[row]
    part = images[1:-1:2]
    assert part["label"] == [0, 1] and len(part["image"]) == 2
    assert [image is None for image in part["image"]] == [row in missing for row in (1, 3)]
    with pytest.raises(IndexError):
        _ = images[6]
    with pytest.raises(IndexError):
        _ = images[-7]


@pytest.mark.parametrize("name", variants())
def test_a_picture_of_all_of_them(name):
    images = variants()[name]
    picture = images.show()
    assert picture.size[0] == 6 * (_CELL + GAP) + GAP
    for row in range(6):
        left = GAP + row * (_CELL + GAP)
        tile = picture.crop((left, GAP, left + _CELL, GAP + _CELL))
        is_grey = bool((np.ptp(np.asarray(tile), axis=2) == 0).all())
        assert is_grey is (row in images.missing_rows.tolist())
        under = picture.crop((left, GAP + _CELL, left + _CELL, picture.height - GAP))
        assert under.getextrema()[0][0] < 128  # the name


def test_of_many_some_are_shown_and_the_rest_is_counted():
    colours = torch.linspace(0, 1, 40).view(40, 1, 1, 1).expand(40, 3, 8, 8)
    images = DistilledSet.from_pixels(colours, range(40), [f"n{label}" for label in range(40)])
    cut, whole = images.show(max_images=4), images.show()
    centres = [GAP + column * (_CELL + GAP) + _CELL // 2 for column in range(4)]
    shown = [cut.getpixel((x, GAP + _CELL // 2))[0] for x in centres]
    assert shown == [np.asarray(images[row]["image"])[0, 0, 0] for row in (0, 10, 20, 30)]
    foot = cut.crop((0, cut.height - 18, cut.width, cut.height))
    assert foot.getextrema()[0][0] < 128  # "4 of 40 images, evenly spread"
    assert whole.height > cut.height
    many = DistilledSet.from_pixels(torch.zeros(200, 3, 2, 2), [0, 1] * 100, ["a", "b"])
    assert "<p>100 of 200 images, evenly spread</p>" in many._repr_html_()
    with pytest.raises(ValueError, match="max_images must be at least 1, found 0"):
        images.show(max_images=0)


def test_html_needs_nothing_else_and_names_can_not_break_it():
    images = make_set(10, 10, class_names=NASTY)
    text = images._repr_html_()
    assert "<p>DistilledSet(10 images of 10 classes, 16x16)</p>" in text
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(found) == 10 and "http" not in text
    assert Image.open(io.BytesIO(base64.b64decode(found[3]))).tobytes() == images[3]["image"].tobytes()
    assert "**bold** &lt;b&gt;</figcaption>" in text and 'alt="quo&quot;te"' in text and "<b>" not in text
    assert ">two lines</figcaption>" in text
    images.show()


@pytest.mark.parametrize("name", variants())
def test_html_has_a_place_for_each_image(name):
    images = variants()[name]
    text, missing = images._repr_html_(), len(images.missing_rows)
    assert (text.count("<img "), text.count('title="not here"')) == (6 - missing, missing)


def test_a_table():
    assert html_table([["a", "<b>"], ["x & y", "1"]], "top-1") == (
        "<table><caption>top-1</caption><thead><tr><th>a</th><th>&lt;b&gt;</th></tr></thead>"
        "<tbody><tr><th>x &amp; y</th><td>1</td></tr></tbody></table>"
    )


@pytest.mark.parametrize(("count", "has_names"), [(10, True), (100, True), (101, False)])
def test_a_preview_names_what_it_shows(count, has_names, tmp_path):
    """Black images: what is under them is white, and somewhere black where a name is."""
    images = DistilledSet.from_pixels(
        torch.zeros(count, 3, 8, 8), list(range(count)), [f"name {i}" for i in range(count)]
    )
    pixels = np.asarray(Image.open(save_preview(images.dataset, tmp_path / "preview.png")))
    assert len(pixels) * len(pixels[0]) <= PREVIEW_PIXELS
    assert bool((pixels[-GAP - 14 : -GAP, :60] == 255).any()) == has_names
