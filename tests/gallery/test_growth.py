"""The time-lapse of a run, as its callback writes it: which cell is whose, and what is no time-lapse of the set."""

import logging

import numpy as np
import pytest
import torch
from sets import make_set

from hf_lgm import DistilledSet
from hf_lgm.data.images import to_images
from hf_lgm.gallery.growth import growth_of
from hf_lgm.publishing.figures import PREVIEW_PIXELS, grid, grid_shape
from hf_lgm.publishing.timelapse import save_timelapse


def timelapse(folder, pixels, steps=4):
    """Pictures from black to these images, at most a hundred."""
    folder.mkdir(exist_ok=True)
    paths = []
    for step in range(1, steps + 1):
        grid(to_images(pixels[:100] * step / steps), PREVIEW_PIXELS).save(folder / f"{step}.png")
        paths.append(folder / f"{step}.png")
    save_timelapse(paths, folder)


def random_set(count, classes, size=16, sources=None):
    pixels = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))
    return DistilledSet.from_pixels(
        pixels, [i % classes for i in range(count)], [str(i) for i in range(classes)], source_index=sources
    )


@pytest.mark.parametrize("count", [1, 7, 10, 23, 100, 130])
def test_each_image_has_its_cell(count, tmp_path):
    images = random_set(count, count)
    timelapse(tmp_path, images.pixels())
    growth = growth_of(tmp_path, images)
    assert len(growth.frames) == 4 and growth.cells == {row: row for row in range(min(100, count))}
    columns, rows, _ = grid_shape(min(100, count), 16, PREVIEW_PIXELS)
    assert (growth.columns, growth.rows) == (columns, rows)
    side = growth.frames[-1].width / columns  # many are shown smaller than in a preview
    last = min(99, count - 1)
    left, top = last % columns * side, last // columns * side
    cell = np.asarray(
        growth.frames[-1].crop((int(left), int(top), int(left + side), int(top + side))).resize((16, 16)), dtype=float
    )
    expected = (images.pixels()[last] * 255).permute(1, 2, 0).numpy()
    assert np.abs(cell - expected).mean() < 30  # of 256 colours in a GIF
    assert np.asarray(growth.frames[0]).mean() < 0.6 * np.asarray(growth.frames[-1]).mean()


def test_real_images_have_no_cell(tmp_path):
    images = random_set(6, 3, sources=[None, 5, None, None, 9, None])
    timelapse(tmp_path, images.pixels()[~images.real_rows])
    assert growth_of(tmp_path, images).cells == {0: 0, 2: 1, 3: 2, 5: 3}


def test_another_run_is_not_the_growth_of_this_set(tmp_path, caplog):
    images = random_set(10, 10)
    timelapse(tmp_path, images.pixels().flip(0))
    with caplog.at_level(logging.INFO, "hf_lgm"):
        assert growth_of(tmp_path, images) is None
    assert "timelapse.gif shows other images than the set: no growth" in caplog.text
    timelapse(tmp_path, images.pixels()[:5])  # of one process of two
    assert growth_of(tmp_path, images) is None


def test_where_there_is_none(tmp_path):
    images = random_set(4, 4)
    assert growth_of(tmp_path, images) is None
    assert growth_of("user/set", images) is None
    all_real = make_set(source_index=list(range(6)))
    timelapse(tmp_path, all_real.pixels())
    assert growth_of(tmp_path, all_real) is None


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n"])
def test_a_broken_file_is_left_out(content, tmp_path, caplog):
    (tmp_path / "timelapse.gif").write_bytes(content)
    assert growth_of(tmp_path, random_set(4, 4)) is None
    assert "timelapse.gif can't be read, so there is no growth" in caplog.text
