"""How the images of a run grew: the pictures of its time-lapse, each of which shows all images in a grid."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageSequence

from ..data.images import to_rgb, to_tensor
from ..publishing.distilled_set import DistilledSet
from ..publishing.figures import MAX_FRAME_IMAGES, PREVIEW_PIXELS, grid_shape
from ..publishing.files import TIMELAPSE_FILE

logger = logging.getLogger(__name__)

_MAX_BYTES, _MAX_FRAMES = 2**26, 100  # of a file that may be anybody's
_SIDE = 8  # at which cells are told apart
_SAME = 0.9  # share of the cells that are where they are expected


@dataclass(frozen=True)
class Growth:
    """The pictures of a time-lapse, and where in them an image of the set is.

    Args:
        frames (`list[Image.Image]`): Each shows the images in a grid, from first to last step.
        columns (`int`): Cells from left to right.
        rows (`int`): Cells from top to bottom.
        cells (`dict[int, int]`): By the row of an image in the set the number of its cell.
    """

    frames: list[Image.Image]
    columns: int
    rows: int
    cells: dict[int, int]


def growth_of(folder: str | Path, images: DistilledSet) -> Growth | None:
    """The growth of a set's images, where their run left a time-lapse in this folder.

    `None` as well where the last picture does not show these images: another run's, or one of several processes, each
    of which has images of its own.

    Args:
        folder (`str` or `Path`): The folder of the set; a Hub id has none.
        images ([`DistilledSet`]): The set.
    """
    path, learned = Path(folder).expanduser() / TIMELAPSE_FILE, (~images.real_rows).nonzero()[:, 0].tolist()
    learned = learned[:MAX_FRAME_IMAGES]
    if not learned or not path.is_file():
        return None
    finished = [images[row]["image"] for row in learned]
    columns, rows, _ = grid_shape(len(learned), finished[0].width, PREVIEW_PIXELS)
    frames = _frames(path, columns, rows)
    if not frames or not _are_the_same([_cell(frames[-1], i, columns, rows) for i in range(len(learned))], finished):
        logger.info("%s shows other images than the set: no growth", path)
        return None
    return Growth(frames, columns, rows, {row: number for number, row in enumerate(learned)})


def _frames(path: Path, columns: int, rows: int) -> list[Image.Image]:
    """The pictures of a GIF that shows so many square cells, at any size; none where it is another file."""
    if path.stat().st_size > _MAX_BYTES:
        return []
    try:
        with Image.open(path, formats=["GIF"]) as file:
            is_grid = abs(file.width / columns - file.height / rows) <= 1
            too_much = file.width * file.height > PREVIEW_PIXELS or getattr(file, "n_frames", 1) > _MAX_FRAMES
            if too_much or not is_grid:
                return []
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(file)]
    except Exception as error:  # broken files make decoders raise anything
        logger.warning("%s can't be read, so there is no growth: %s", path, error)
        return []


def _cell(frame: Image.Image, number: int, columns: int, rows: int) -> Image.Image:
    width, height = frame.width / columns, frame.height / rows
    left, top = number % columns, number // columns
    return frame.crop((round(left * width), round(top * height), round((left + 1) * width), round((top + 1) * height)))


def _are_the_same(cells: list[Image.Image], images: list[Image.Image]) -> bool:
    """Whether each cell is more like its own image than like the others, but for a few; colours are not exact."""
    shown, expected = (_small(pictures) for pictures in (cells, images))
    nearest = torch.cdist(shown, expected).argmin(dim=1)
    return bool((nearest == torch.arange(len(cells))).double().mean() >= _SAME)


def _small(pictures: list[Image.Image]) -> torch.Tensor:
    pixels = [to_tensor(to_rgb(picture)).float()[None] for picture in pictures]
    return torch.cat([F.interpolate(each, (_SIDE, _SIDE), mode="area").flatten(1) for each in pixels])
