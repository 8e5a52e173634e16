"""What a run shows: a grid of the synthetic images, and a comparison with real ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

# Optimised images hardly compress: this many pixels of three bytes each stay under 2 MB as a PNG.
PREVIEW_PIXELS = 640_000
MAX_FRAME_IMAGES = 100  # of a set, in a frame of the time-lapse
_MAX_COLUMNS = 10
_CELL, _GAP, _LABEL_WIDTH, _SCORE_WIDTH, _HEADER, _LINE = 96, 4, 150, 110, 44, 18


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the comparison: what it shows, one image per class shown, and its accuracies in words."""

    title: str
    images: Sequence[Image.Image]
    scores: Sequence[str]


def save_preview(dataset: Dataset, path: Path) -> Path:
    """A grid of all images of a set, at most 2 MB, however many there are; hatched where one is not here."""
    images = dataset["image"][:]
    empty = hatched(next(image for image in images if image is not None).size)
    shown = [empty if image is None else image.convert("RGB") for image in images]
    grid(shown, max_pixels=PREVIEW_PIXELS).save(path, optimize=True)
    return path


def grid(images: Sequence[Image.Image], max_pixels: int | None = None) -> Image.Image:
    """Images in rows of ten, in a square where they are over a hundred; 96 pixels each, less to fit `max_pixels`."""
    from diffusers.utils import make_image_grid  # here, since it is slow to load

    columns, rows, side = grid_shape(len(images), images[0].width, max_pixels)
    blank = [Image.new("RGB", images[0].size, "white")] * (rows * columns - len(images))
    return make_image_grid([*images, *blank], rows, columns, resize=side)


def grid_shape(count: int, width: int, max_pixels: int | None = None) -> tuple[int, int, int]:
    """Columns, rows and the side of a cell, in pixels, of the `grid` of so many images of this width."""
    columns = max(min(_MAX_COLUMNS, count), math.isqrt(count - 1) + 1 if count > 100 else 1)
    rows = math.ceil(count / columns)
    side = max(width, _CELL)  # small images are enlarged, to be seen
    if max_pixels:
        side = max(1, min(side, math.isqrt(max_pixels // (rows * columns))))
    return columns, rows, side


def hatched(size: tuple[int, int]) -> Image.Image:
    """What stands for an image that is not here: grey lines on white."""
    tile, step = Image.new("RGB", size, "white"), max(2, size[0] // 8)
    draw = ImageDraw.Draw(tile)
    for left in range(-size[1], size[0], step):
        draw.line((left, size[1], left + size[1], 0), fill="lightgrey", width=max(1, step // 4))
    return tile


def evenly_sampled(num_classes: int, limit: int = 10) -> list[int]:
    """Up to `limit` class indices, evenly spread."""
    shown = min(num_classes, limit)
    return [i * num_classes // shown for i in range(shown)]


def first_of_each(dataset: Dataset, labels: torch.Tensor, classes: Sequence[int]) -> list[Image.Image]:
    """The first image of each of these classes, by labels of shape (n,)."""
    rows = [int((labels == label).nonzero()[0, 0]) for label in classes]
    return [dataset[row]["image"].convert("RGB") for row in rows]


def save_comparison(
    rows: Sequence[ComparisonRow], class_names: Sequence[str], score_names: Sequence[str], path: Path
) -> Path:
    """The rows above each other, class names on top, accuracies at the end."""
    scores_left = _LABEL_WIDTH + len(class_names) * (_CELL + _GAP) + 2 * _GAP
    width = scores_left + len(score_names) * _SCORE_WIDTH
    header = max(_HEADER, _LINE * (1 + max(name.count("\n") + 1 for name in score_names)))
    canvas = Image.new("RGB", (width, header + len(rows) * (_CELL + _GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    for column, name in enumerate(class_names):
        left = _LABEL_WIDTH + column * (_CELL + _GAP)
        draw.text((left, header - 20), fitted(name, font, _CELL), fill="black", font=font)
    for column, name in enumerate(score_names):
        lines = "\n".join(fitted(line, font, _SCORE_WIDTH - _GAP) for line in name.split("\n"))
        draw.multiline_text((scores_left + column * _SCORE_WIDTH, 4), lines, fill="black", font=font)
    for number, row in enumerate(rows):
        top = header + number * (_CELL + _GAP)
        draw.multiline_text((4, top + _CELL // 3), row.title, fill="black", font=font)
        for column, image in enumerate(row.images):
            enlarged = image.resize((_CELL, _CELL), Image.Resampling.BICUBIC)
            canvas.paste(enlarged, (_LABEL_WIDTH + column * (_CELL + _GAP), top))
        for column, score in enumerate(row.scores):
            left = scores_left + column * _SCORE_WIDTH
            draw.text((left, top + _CELL // 3), score, fill="black", font=font)
    canvas.save(path)
    return path


def fitted(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """The text, cut to a width."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
