"""Images in a grid, with their names."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from .markdown import one_line

# Optimised images hardly compress: this many pixels of three bytes each stay under 2 MB as a PNG.
PREVIEW_PIXELS = 640_000
MAX_FRAME_IMAGES = 100  # of a set, in a frame of the time-lapse
_MAX_COLUMNS = 10
MAX_NAMED = 100  # more than these are not taken in at a glance, and their names are too small to read
_CELL, GAP, _LINE = 96, 4, 18
_LARGEST, _FONT_SIZE = 160, 13  # sides of a named image, and its name


def save_preview(dataset: Dataset, path: Path) -> Path:
    """All images of a set, at most 2 MB, with names where there are few; hatched where one is not here."""
    images, names = dataset["image"][:], dataset.features["label"].names
    if len(images) <= MAX_NAMED:
        picture = named_grid(images, [names[label] for label in dataset["label"][:]], max_pixels=PREVIEW_PIXELS)
    else:
        empty = hatched(next(image for image in images if image is not None).size)
        shown = [empty if image is None else image.convert("RGB") for image in images]
        picture = grid(shown, max_pixels=PREVIEW_PIXELS)
    picture.save(path, optimize=True)
    return path


def named_grid(
    images: Sequence[Image.Image | None], names: Sequence[str], note: str = "", max_pixels: int | None = None
) -> Image.Image:
    """Images in rows of ten, their names under them, and a line at the end; hatched where one is `None`.

    Sides are the images' own, of 96 to 160 pixels, or less to fit `max_pixels`.
    """
    columns = max(1, min(_MAX_COLUMNS, len(images)))
    rows = math.ceil(len(images) / columns)

    def size(side: int) -> tuple[int, int]:
        return columns * (side + GAP) + GAP, rows * (side + _LINE + GAP) + GAP

    side = max(_CELL, min(max((image.width for image in images if image is not None), default=_CELL), _LARGEST))
    while max_pixels and math.prod(size(side)) > max_pixels:
        side -= 1
    font, (width, height) = ImageFont.load_default(size=_FONT_SIZE), size(side)
    width = max(width, math.ceil(font.getlength(note)) + 2 * GAP)
    canvas = Image.new("RGB", (width, height + (_LINE if note else 0)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        row, column = divmod(number, columns)
        left, top = GAP + column * (side + GAP), GAP + row * (side + _LINE + GAP)
        tile = hatched((side, side)) if image is None else image.convert("RGB").resize((side, side))
        canvas.paste(tile, (left, top))
        draw.text((left, top + side), fitted(one_line(name), font, side), fill="black", font=font)
    draw.text((GAP, height), note, fill="black", font=font)
    return canvas


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


def fitted(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """The text, cut to a width."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
