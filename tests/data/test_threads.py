import threading
import time
from dataclasses import replace

import pytest
import torch
from conftest import SIDE
from torch.utils.data import DataLoader

from hf_lgm.data.threads import in_threads
from hf_lgm.features.extraction import CentreCrops


@pytest.fixture
def threads():
    """Says how many threads torch computes with; they are as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(threads):
    threads(3)
    last = threading.Event()

    def read(item):
        if item == 0:
            assert last.wait(timeout=60)  # so the first ends after one that was begun later
        elif item == 2:
            last.set()
        return 10 * item

    assert in_threads(read, range(5)) == [0, 10, 20, 30, 40]


def test_the_first_error_in_their_order_is_raised(threads):
    threads(4)

    def read(item):
        if item > 1:
            raise ValueError(f"row {item}")

    with pytest.raises(ValueError, match="^row 2$"):
        in_threads(read, range(8))


@pytest.mark.parametrize(("count", "items"), [(1, range(4)), (4, [7]), (4, [])])
def test_of_one_thread_or_one_item_no_thread_is_started(threads, count, items):
    threads(count)
    assert set(in_threads(lambda item: threading.current_thread(), items)) <= {threading.current_thread()}


def test_no_more_images_than_eight_are_held_at_a_time(threads):
    threads(64)
    running, most, lock = [], [], threading.Lock()

    def read(item):
        with lock:
            running.append(item)
            most.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(item)

    in_threads(read, range(64))
    assert 1 < max(most) <= 8


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_crops_are_the_same_bits_whoever_reads_them(threads, train_images, decode):
    side, images = SIDE // 2, replace(train_images, decode=decode)
    pixels = CentreCrops(images, (side, 1.0, "bicubic"))
    threads(1)
    alone, exact = torch.stack([pixels[row] for row in range(len(pixels))]), images.centre_crops(side, 1.0)
    threads(4)
    for workers in (0, 1):
        assert torch.equal(torch.cat(list(DataLoader(pixels, batch_size=5, num_workers=workers))), alone)
    assert torch.equal(images.centre_crops(side, 1.0), exact)
