"""Real images and distilled ones above each other, with their accuracies as bars."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from PIL import Image, ImageDraw, ImageFont

from .figures import GAP, fitted
from .markdown import one_line
from .plotting import REAL, SYNTHETIC

# Sides of the images, letters and lines, lengths and heights of bars: a page shows the picture at half its size.
_SIDE, _LETTER, _LINE, _MARGIN = 128, 18, 24, 20
_BAR_WIDTH, _BAR, _BARS_IN_A_COLUMN = 260, 50, 3
_ROW = _LINE + _SIDE + 2 * GAP


@dataclass(frozen=True)
class Score:
    """A number in percent: as it is written, its mean and its standard deviation."""

    text: str
    mean: float
    std: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score | None":
        """The mean of some values, of several with their spread; `None` of none."""
        if not values:
            return None
        spread = stdev(values) if len(values) > 1 else 0.0
        text = f"{fmean(values):.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")
        return cls(text, fmean(values), spread)


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the comparison: what it shows, one image per class shown, and its accuracies.

    Args:
        title (`str`): Above the images.
        images (`Sequence[PIL.Image.Image]`): One for each class that is shown.
        scores (`Sequence[Score]`): As many in each row; `None` where there is none.
        is_real (`bool`, *optional*, defaults to `False`): Whether the images are real ones; for the colour.
    """

    title: str
    images: Sequence[Image.Image]
    scores: Sequence[Score | None]
    is_real: bool = False


def save_comparison(
    rows: Sequence[ComparisonRow],
    class_names: Sequence[str],
    score_names: Sequence[str],
    path: Path,
    limits: Sequence[Score | None] = (),
) -> Path:
    """The rows above each other, class names on top, and beside each its scores as bars.

    Args:
        rows (`Sequence[ComparisonRow]`): What is compared.
        class_names (`Sequence[str]`): Of the images of a row.
        score_names (`Sequence[str]`): Of the scores of a row.
        path (`Path`): Where to.
        limits (`Sequence[Score]`, *optional*): For each score what all real images give: a dotted line on its bars.
    """
    font = ImageFont.load_default(size=_LETTER)
    scores_left = GAP + len(class_names) * (_SIDE + GAP) + _MARGIN
    columns = math.ceil(len(score_names) / _BARS_IN_A_COLUMN)
    width, height = scores_left + columns * (_BAR_WIDTH + _MARGIN), _LINE + len(rows) * _ROW
    has_limits = any(limit is not None for limit in limits)
    canvas = Image.new("RGB", (width, height + (_LINE if has_limits else 0)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((scores_left, 0), "accuracy in %", fill="black", font=font)
    for column, name in enumerate(class_names):
        draw.text((GAP + column * (_SIDE + GAP), 0), fitted(one_line(name), font, _SIDE), fill="black", font=font)
    for number, row in enumerate(rows):
        top = _LINE + number * _ROW
        draw.text((GAP, top), fitted(one_line(row.title), font, scores_left), fill="black", font=font)
        for column, image in enumerate(row.images):
            enlarged = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            canvas.paste(enlarged, (GAP + column * (_SIDE + GAP), top + _LINE))
        for place, score in enumerate(row.scores):
            column, line = divmod(place, _BARS_IN_A_COLUMN)
            corner = scores_left + column * (_BAR_WIDTH + _MARGIN), top + line * _BAR
            limit = limits[place] if limits else None
            colour = REAL if row.is_real else SYNTHETIC
            _draw_bar(draw, corner, one_line(score_names[place]), score, limit, colour)
    if has_limits:
        draw.text((scores_left, height), "dotted: all real images", fill="black", font=font)
    canvas.save(path)
    return path


def _draw_bar(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    name: str,
    score: Score | None,
    limit: Score | None,
    colour: str,
) -> None:
    """A name and a number, and below them a bar, on which a line says how far the number may be off."""
    if score is None:
        return
    font, (left, top) = ImageFont.load_default(size=_LETTER), corner
    room = _BAR_WIDTH - math.ceil(font.getlength(score.text)) - GAP
    draw.text((left, top), fitted(name, font, room), fill="black", font=font)
    draw.text((left + _BAR_WIDTH, top), score.text, fill="black", font=font, anchor="ra")
    top, bottom = top + _LINE, top + _BAR - 2 * GAP

    def x(percent: float) -> int:
        return left + round(min(max(percent, 0.0), 100.0) / 100 * _BAR_WIDTH)

    draw.rectangle((left, top, left + _BAR_WIDTH, bottom), fill="#eeeeee")
    draw.rectangle((left, top, x(score.mean), bottom), fill=colour)
    middle = (top + bottom) // 2
    draw.line(((x(score.mean - score.std), middle), (x(score.mean + score.std), middle)), "black", width=2)
    if limit is not None:
        for y in range(top, bottom, 4):
            draw.line(((x(limit.mean), y), (x(limit.mean), y + 1)), "black", width=2)
