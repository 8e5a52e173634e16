"""What a page is made of: values, images as text, and a file that names can't break out of."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
import torch
from galleries import CLASSES, FRAMES, colour, data_of, make_page, make_relations, make_shown
from PIL import Image
from sets import NASTY, make_set

from hf_lgm import DistilledSet
from hf_lgm.gallery import data
from hf_lgm.gallery.data import ShownSet, data_uri, page_data
from hf_lgm.gallery.page import check_is_ours

HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "<b>&amp;\u2028</b>", "\"'`${x}", "x" * 300, "אב"]


def pixels_of(uri):
    kind, _, text = uri.partition(",")
    assert kind in ("data:image/jpeg;base64", "data:image/png;base64")
    return np.asarray(Image.open(BytesIO(base64.b64decode(text))).convert("RGB"))


def test_small_images_are_shown_as_they_are():
    noise = make_set(size=32)
    for image in noise.dataset["image"][:]:
        assert np.array_equal(pixels_of(data_uri(image, 1000)), np.asarray(image))


def test_large_pages_have_smaller_images(monkeypatch):
    image = make_set(size=100).dataset[0]["image"]
    assert pixels_of(data_uri(image, 1000)).shape == (100, 100, 3)
    monkeypatch.setattr(data, "MAX_PIXELS", 6 * 50 * 50)
    found = page_data([ShownSet("a", make_set(6, size=100))])
    assert pixels_of(found["sets"][0]["images"][0]["src"]).shape == (50, 50, 3)


def test_what_the_page_says_of_an_image():
    found = data_of(make_page())
    assert found["classes"] == CLASSES and found["title"] == "distilled"
    (shown,) = found["sets"]
    assert (shown["name"], shown["through"], shown["is_real"]) == ("distilled", ["maker/net"], False)
    image = shown["images"][2]
    assert (image["label"], image["row"], image["cell"], image["synthetic"]) == (2, None, 2, [[3, 0.75]])
    assert image["real"][0] == {"row": 1020, "label": 2, "similarity": 0.9, "src": None}
    assert pixels_of(image["src"])[0, 0].tolist() == (colour(2, len(CLASSES)) * 255).round().tolist()
    assert shown["confusions"][2] == {"total": 10, "taken_for": [[2, 7], [3, 3]]}
    assert len(shown["growth"]["frames"]) == FRAMES
    assert (pixels_of(shown["growth"]["frames"][1])[4, 20] == 42).all()  # the third cell of the second frame


def test_real_images_are_shown_only_when_asked_for():
    mixed = make_shown(per_class=2, real_rows=(0, 3))
    hidden = data_of(make_page(mixed))["sets"][0]["images"]
    assert [image["src"] is None for image in hidden] == [row in (0, 3) for row in range(12)]
    assert [image["row"] for image in hidden[:4]] == [100, None, None, 103]
    included = data_of(make_page(mixed, include_source_images=True))["sets"][0]["images"]
    assert all(image["src"] for image in included)


def test_classes_in_another_order_are_the_same_classes():
    first, other = make_shown(), make_shown()
    turned = other.images.class_names[::-1]
    images = DistilledSet.from_pixels(other.images.pixels(), other.images.labels.tolist(), turned)
    second = ShownSet("turned", images, None, make_relations(list(range(6)), 6))
    shown = data_of(make_page(first, second))["sets"][1]
    assert [image["label"] for image in shown["images"]] == [5, 4, 3, 2, 1, 0]
    assert shown["images"][0]["real"][0]["label"] == 5
    assert shown["confusions"][5] == {"total": 10, "taken_for": [[5, 7], [4, 3]]}
    with pytest.raises(ValueError, match="'other' has other classes than 'distilled': sets side by side"):
        page_data([first, ShownSet("other", make_set())])


def test_a_class_that_was_not_seen_has_no_confusions():
    shown = make_shown()
    shown.relations.confusions[1] = torch.zeros(6)
    assert page_data([shown])["sets"][0]["confusions"][1] == {"total": 0, "taken_for": []}


@pytest.mark.parametrize("name", [*HOSTILE, *NASTY])
def test_no_name_ends_the_data(name):
    names = [name, "other"]
    page = make_page(make_shown(names, name=name))
    assert data_of(page)["classes"] == names
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<!--" not in page
    assert page.count("<b>") == 0


def test_the_page_may_ask_for_nothing():
    page = make_page()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert page.index(policy) < page.index("<style>") and "unsafe" not in policy
    assert not re.findall(r"https?://", page.replace(str(data_of(page)), ""))


def test_only_an_earlier_gallery_is_written_over(tmp_path):
    check_is_ours(tmp_path / "new.html")
    (tmp_path / "page.html").write_text(make_page())
    check_is_ours(tmp_path / "page.html")
    (tmp_path / "page.html").write_text("<p>a letter</p>")
    with pytest.raises(FileExistsError, match=r"page.html' is there and no gallery of hf_lgm: choose another name"):
        check_is_ours(tmp_path / "page.html")
    with pytest.raises(FileExistsError, match="is a folder: give the name of a file"):
        check_is_ours(tmp_path)
