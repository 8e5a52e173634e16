"""Real images and distilled ones above each other: bars as long as the numbers say, names as plain text."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from hf_lgm.publishing.comparison_figure import _BAR_WIDTH, ComparisonRow, Score, save_comparison
from hf_lgm.publishing.plotting import REAL, SYNTHETIC

TILE = Image.new("RGB", (8, 8), "green")


def drawn(tmp_path, rows, names=("vit", "convnext"), **options):
    return np.array(Image.open(save_comparison(rows, ["cat", "dog"], names, tmp_path / "c.png", **options)))


def lengths(picture, colour):
    """Of the bars of a colour, from the top: they are as long in all of their lines but for whiskers."""
    counts = (picture == ImageColor.getrgb(colour)).all(axis=2).sum(axis=1)
    starts = np.flatnonzero((counts > 0) & (np.roll(counts, 1) == 0))
    return counts[starts].tolist()


def test_a_bar_is_as_long_as_its_number(tmp_path):
    rows = [
        ComparisonRow("random real images", [TILE] * 2, [Score("50.0", 50.0), Score("25.0", 25.0)], is_real=True),
        ComparisonRow("distilled", [TILE] * 2, [Score("75.0", 75.0), Score("200", 200.0)]),
    ]
    picture = drawn(tmp_path, rows)
    assert lengths(picture, REAL) == pytest.approx([_BAR_WIDTH / 2, _BAR_WIDTH / 4], abs=1)
    assert lengths(picture, SYNTHETIC) == pytest.approx([_BAR_WIDTH * 3 / 4, _BAR_WIDTH], abs=1)


def test_no_number_is_no_bar(tmp_path):
    picture = drawn(tmp_path, [ComparisonRow("nearest", [TILE] * 2, [None, Score.of([])], is_real=True)])
    assert not lengths(picture, REAL)


def test_many_scores_get_columns_of_their_own(tmp_path):
    rows = [ComparisonRow("distilled", [TILE] * 2, [Score("50.0", 50.0)] * 7)]
    wide, narrow = (
        drawn(tmp_path, rows, names=list("abcdefg")),
        drawn(tmp_path, [ComparisonRow("d", [TILE] * 2, [])], names=["a"]),
    )
    assert lengths(wide, SYNTHETIC) == pytest.approx([_BAR_WIDTH * 1.5, _BAR_WIDTH, _BAR_WIDTH], abs=3)
    assert wide.shape[1] > narrow.shape[1] + 2 * _BAR_WIDTH


def test_a_line_says_what_all_real_images_give(tmp_path):
    row = ComparisonRow("distilled", [TILE] * 2, [Score("20.0", 20.0)])
    without, with_line = (
        drawn(tmp_path, [row], names=["vit"], limits=limits) for limits in ([], [Score("60.0", 60.0)])
    )
    height = len(without)
    assert len(with_line) > height
    changed = np.flatnonzero((without != with_line[:height]).any(axis=2).any(axis=0))
    left = without.shape[1] - _BAR_WIDTH - 20
    assert changed.mean() - left == pytest.approx(0.6 * _BAR_WIDTH, abs=2)


def test_numbers_are_written_with_their_spread():
    assert Score.of([50.0, 52.0]) == Score("51.0 ± 1.4", 51.0, pytest.approx(2**0.5))
    assert Score.of([50.0]).text == "50.0"


def test_names_stay_on_their_line(tmp_path):
    hostile = "a\nb" + "x" * 300
    rows = [ComparisonRow(hostile, [TILE] * 2, [Score("50.0", 50.0)])]
    plain = drawn(tmp_path, [ComparisonRow("a", [TILE] * 2, [Score("50.0", 50.0)])], names=["vit"])
    assert drawn(tmp_path, rows, names=[hostile]).shape == plain.shape
