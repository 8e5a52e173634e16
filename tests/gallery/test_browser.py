"""The page in a browser, as somebody uses it: by mouse, by keyboard alone, in the dark, on a phone."""

import re
import time
from io import BytesIO

import numpy as np
import pytest
import torch
from browser import Heard, browser
from galleries import CLASSES, FRAMES, make_page, make_relations, make_shown
from PIL import Image
from sets import NASTY

from hf_lgm import DistilledSet
from hf_lgm.gallery.data import ShownSet

HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "x" * 300, "שלום (כלב) 12", *NASTY]
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def show(chromium, heard, tmp_path):
    """Opens a page; at the end it must have had no error, and have asked for nothing but itself."""
    context = None

    def open_page(text, width=WIDE, scheme="light"):
        nonlocal context
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        context = chromium.new_context(viewport=width, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(10_000)
        heard.listen_to(page)
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield open_page
    if context is not None:
        context.close()
    assert heard.errors == [] and [path.rsplit("/", 1)[1] for path in heard.requests if path[:5] != "data:"] == [
        "page.html"
    ]


def shown_names(page):
    return page.locator("#classes li:visible h2").all_inner_texts()


def focused(page):
    """The words of the image in the button that has the focus, or else what kind of element has it."""
    return page.evaluate(
        "() => document.activeElement.querySelector?.('img')?.alt ?? (document.activeElement.id || 'nothing')"
    )


def pixel(page, selector):
    """The colour in the middle of what is drawn there."""
    box = page.locator(selector).bounding_box()
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "width": 1, "height": 1}
    return np.asarray(Image.open(BytesIO(page.screenshot(clip=middle))).convert("RGB"))[0, 0].tolist()


def test_classes_and_search(show):
    page = show(make_page())
    assert shown_names(page) == CLASSES and page.title() == "distilled"
    assert page.locator("#about").inner_text() == "6 images of 6 classes, through maker/net"
    page.get_by_label("Search classes by name").fill("CAFE")
    assert shown_names(page) == ["Café au lait"]
    count = page.get_by_role("status")
    assert count.inner_text() == "1 of 6 classes"
    page.get_by_label("Search classes by name").fill("xyzzy")
    assert shown_names(page) == [] and count.inner_text() == "No such class"
    page.get_by_label("Search classes by name").fill("")
    assert shown_names(page) == CLASSES and count.inner_text() == "6 classes"


def test_a_click_shows_all_that_is_known(show):
    page = show(make_page())
    page.get_by_role("button", name="Distilled image of owl").click()
    dialog = page.get_by_role("dialog", name="owl")
    assert dialog.locator("#detail-about").inner_text() == "distilled, through maker/net"
    large = dialog.locator("#large img")
    assert large.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    facts = dialog.locator("#facts").inner_text()
    assert "Rows of the train split of photos, whose images are not in this page." in facts
    assert re.findall(r"^(\d+)\s+(owl)\s+(\S+)$", facts, re.MULTILINE) == [
        ("1030", "owl", "0.90"),
        ("1031", "owl", "0.80"),
    ]
    assert "takes 10 real images of this class for" in facts
    assert dialog.locator(".shares li").all_inner_texts() == ["owl\n70 %", "newt\n30 %"]
    assert dialog.locator(".shares .right").count() == 1
    dialog.get_by_role("button", name="Distilled image of newt").click()  # its neighbour
    assert page.locator("#detail-name").inner_text() == "newt"
    page.get_by_role("button", name="Previous class").click()
    page.get_by_role("button", name="Previous class").click()
    assert page.locator("#detail-name").inner_text() == "Café au lait"
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog").is_visible() and focused(page) == "Distilled image of Café au lait"


def test_the_slider_shows_the_growth(show):
    page = show(make_page())
    page.get_by_role("button", name="Distilled image of owl").click()
    slider = page.get_by_label("Growth")
    assert (slider.get_attribute("aria-valuetext"), page.locator("#frame").inner_text()) == ("finished", "finished")
    box, finished = slider.bounding_box(), pixel(page, "#large")
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.get_by_role("img", name="owl on the way, picture 1 of 5").wait_for()
    assert slider.get_attribute("aria-valuetext") == "picture 1 of 5"
    assert np.allclose(pixel(page, "#large"), 3, atol=3)  # the first picture, the fourth cell
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    page.get_by_role("img", name="owl on the way, picture 3 of 5").wait_for()
    assert np.allclose(pixel(page, "#large"), 83, atol=3)
    slider.press("End")
    assert page.locator("#large canvas").count() == 0 and pixel(page, "#large") == finished
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => seen.push(document.getElementById('frame').textContent))"
        ".observe(document.getElementById('frame'), {childList: true}); }"
    )
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => seen.at(-1) === 'finished'")
    assert page.evaluate("seen") == [*(f"{number} of {FRAMES}" for number in range(1, FRAMES + 1)), "finished"]
    assert page.locator("#play").inner_text() == "Play" and page.locator("#large canvas").count() == 0


def test_by_keyboard_alone(show):
    page = show(make_page())
    page.keyboard.press("Tab")
    assert focused(page) == "search"
    page.keyboard.type("o")  # goldfish, owl, axolotl
    page.keyboard.press("Enter")
    assert focused(page) == "Distilled image of goldfish"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog", name="owl").is_visible() and focused(page) == "detail-name"
    for _ in range(12):  # Tab does not leave it
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    while focused(page) != "close":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-name").inner_text() == "axolotl"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible() and focused(page) == "Distilled image of axolotl"
    page.keyboard.press("Shift+Tab")
    assert focused(page) == "search"


def test_arrows_follow_the_lines(show):
    page = show(make_page(make_shown([str(number) for number in range(20)], details=False)))
    tops = page.locator(".tile").evaluate_all("all => all.map(one => one.getBoundingClientRect().top)")
    across = tops.count(tops[0])
    assert 3 < across < 20
    page.locator(".tile").first.focus()
    for key, expected in (
        ("ArrowDown", across),
        ("ArrowRight", across + 1),
        ("ArrowUp", 1),
        ("ArrowUp", 1),
        ("End", 19),
    ):
        page.keyboard.press(key)
        assert focused(page) == f"Distilled image of {expected}", key
    assert page.locator(".tile[tabindex='0']").count() == 1


def test_names_are_text(show):
    shown = make_shown(HOSTILE, name="<b>set</b> כלב")
    page = show(make_page(shown, make_shown(HOSTILE, name="</style><script>alert(3)</script>")))
    expected = [name.strip() or "(blank)" for name in HOSTILE]
    assert page.locator("#classes h2").evaluate_all("all => all.map(one => one.textContent)") == expected
    assert page.locator("#sets h2").all_inner_texts() == ["<b>set</b> כלב", "</style><script>alert(3)</script>"]
    for number, name in enumerate(expected[:5]):
        page.locator("#classes li").nth(number).locator(".tile").first.click()
        assert page.locator("#detail-name").evaluate("one => one.textContent") == name
        page.keyboard.press("Escape")
    assert page.locator("script").count() == 2 and page.locator("body b, img[src=x]").count() == 0
    direction = page.locator("#classes h2").nth(3).evaluate("one => getComputedStyle(one).direction")
    assert direction == "rtl"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_real_images_that_are_not_here_are_hatched(show):
    page = show(make_page(make_shown(per_class=2, real_rows=(1, 4), details=False)))
    missing = page.locator("#classes .missing")
    assert missing.all_inner_texts() == ["row 101\nnot here", "row 104\nnot here"]
    assert "repeating-linear-gradient" in missing.first.evaluate("one => getComputedStyle(one).backgroundImage")
    name = "Real image, row 101 of the source, of goldfish, which is not here"
    page.get_by_role("button", name=name).click()
    assert page.locator("#large").get_by_role("img", name=name).is_visible()
    assert page.locator("#detail-about").inner_text() == "distilled, through maker/net, image 2 of 2"


def test_real_images_that_may_be_shown(show):
    image = Image.new("RGB", (8, 8), "red")
    shown = ShownSet("distilled", make_shown().images, None, make_relations(list(range(6)), 6, image))
    page = show(make_page(shown))
    page.locator(".tile").nth(1).click()
    nearest = page.get_by_role("img", name="Real image, row 1010, of great white shark")
    assert nearest.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    assert not page.locator("#growth").is_visible()


def test_sets_side_by_side(show):
    page = show(make_page(make_shown(name="one"), make_shown(name="two"), make_shown(name="three")))
    assert page.locator("#sets > div").all_inner_texts() == [
        f"{name}\n\nthrough maker/net" for name in ("one", "two", "three")
    ]
    lefts = page.locator("#sets > div").evaluate_all("all => all.map(one => one.getBoundingClientRect().left)")
    for line in (0, 5):
        cells = page.locator("#classes li").nth(line).locator(".tile")
        assert cells.evaluate_all("all => all.map(one => one.getBoundingClientRect().left)") == lefts
    page.get_by_role("button", name="Distilled image of owl, two").click()
    assert page.locator("#detail-about").inner_text() == "two, through maker/net"
    page.locator("#same").get_by_role("button", name="Distilled image of owl, three").click()
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-name").inner_text() == "newt"
    assert page.locator("#detail-about").inner_text() == "three, through maker/net"


@pytest.mark.parametrize("width", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_wide_and_narrow(show, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = show(
        make_page(make_shown(per_class=2, real_rows=(3,)), make_shown(name="other", per_class=2)), width, scheme
    )
    for what in ("grid", "detail"):
        if what == "detail":
            page.locator(".tile").nth(2).click()
        violations = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
        page.evaluate("Promise.all([...document.images].filter(one => one.src).map(one => one.decode()))")
        picture = np.asarray(Image.open(BytesIO(page.screenshot())).convert("L"))
        assert picture.shape == (width["height"], width["width"])
        box = page.locator("header" if what == "grid" else "dialog").bounding_box()
        paper = picture[round(box["y"]) + 5, round(box["x"]) + 30]
        assert paper > 240 if scheme == "light" else paper < 40
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if width is PHONE:
        assert page.locator("dialog").bounding_box()["width"] == width["width"]


def thousand(size):
    """A thousand classes, of smooth noise."""
    coarse = torch.rand(1000, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    pixels = (pixels + 0.06 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    images = DistilledSet.from_pixels(pixels, list(range(1000)), [f"class number {number}" for number in range(1000)])
    return make_page(ShownSet("a thousand", images))


def test_images_are_decoded_when_they_come_into_view(show):
    page = show(thousand(8))
    page.locator(".tile img[src]").nth(20).wait_for()
    assert page.locator(".tile").count() == 1000 and page.locator(".tile img[src]").count() < 200
    page.keyboard.press("End")
    page.locator(".tile").last.scroll_into_view_if_needed()
    last = page.get_by_alt_text("Distilled image of class number 999")
    page.wait_for_function("image => image.src && image.complete", arg=last.element_handle())
    assert last.evaluate("image => image.naturalWidth") == 8
    assert page.locator(".tile img[src]").count() < 500


@pytest.mark.slow
def test_a_thousand_classes_are_there_within_three_seconds(show):
    text = thousand(224)
    began = time.perf_counter()
    page = show(text)
    page.locator(".tile img[src]").nth(20).wait_for()
    seconds = time.perf_counter() - began
    assert seconds < 3, f"{len(text) / 2**20:.0f} MB"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fillGrid();\n", "fillGird();\n", "script"),  # another script than the page allows is not run
        ("<main>", '<main><img src="https://example.com/x.png" alt="">', "img-src"),
        ("<main>", '<main><p style="color: red">red</p>', "style"),
    ],
)
def test_a_page_that_was_changed_is_found(chromium, heard, tmp_path, old, new, said):
    assert old in make_page()
    (tmp_path / "page.html").write_text(make_page().replace(old, new), encoding="utf-8")
    page = chromium.new_page()
    heard.listen_to(page)
    page.goto((tmp_path / "page.html").as_uri())
    assert any("Content Security Policy" in error and said in error for error in heard.errors), heard.errors
    assert said != "script" or page.locator("#classes li").count() == 0
    page.close()
