"""How many images are encoded at a time, with a device that only counts."""

import pytest
import torch

from hf_lgm.distillation.encoding import beside_chunks, find_chunk_size

GB = 2**30


class Memory:
    """A device of so many bytes, on which each image takes some, and of more than four perhaps more than it seemed."""

    def __init__(self, total, per_image, really=None):
        self.total, self.per_image, self.really = total, per_image, really or per_image
        self.most = 0

    def mem_get_info(self):
        return self.total, self.total

    def memory_allocated(self):
        return 0

    def max_memory_allocated(self):
        return self.most

    def reset_peak_memory_stats(self):
        self.most = 0

    def empty_cache(self):
        pass

    def encode(self, pixels, image_ids):
        count = len(image_ids)
        taken = count * (self.per_image if count <= 4 else self.really)
        if taken > self.total:
            raise torch.OutOfMemoryError(f"{taken}")
        self.most = max(self.most, taken)
        return pixels


@pytest.fixture
def find(monkeypatch):
    def find(memory, count, reserved=0):
        monkeypatch.setattr(torch, "get_device_module", lambda device: memory)
        monkeypatch.setattr("hf_lgm.distillation.encoding.beside_chunks", lambda count, image: reserved)
        return find_chunk_size(memory.encode, torch.zeros(3, 4, 4), count)

    return find


@pytest.mark.parametrize(
    ("count", "reserved", "expected"),
    [(10, 0, 10), (20, 0, 20), (21, 0, 11), (1000, 0, 20), (1000, 12 * GB, 10), (3, 0, 3)],
)
def test_as_many_as_fit_in_chunks_of_equal_size(find, count, reserved, expected):
    assert find(Memory(24 * GB, GB), count, reserved) == expected


def test_fewer_where_many_take_more_than_few_let_expect(find):
    found = find(Memory(24 * GB, GB, 2 * GB), 1000)
    assert 8 <= found <= 12


def test_one_at_least_and_an_error_where_that_is_too_many(find):
    assert find(Memory(GB, GB // 2), 1000, reserved=2 * GB) == 1
    with pytest.raises(torch.OutOfMemoryError):
        find(Memory(GB, 2 * GB), 10)


def test_a_cpu_does_not_say():
    assert find_chunk_size(lambda pixels, image_ids: pixels, torch.zeros(3, 4, 4), 10) is None


def test_what_an_image_takes_beside_its_chunk():
    """A pyramid of a 256-pixel image has 4/3 as many numbers; each of them four times, and each pixel three times."""
    expected = 3 * 256**2 * 4 * (3 + 4 * 4 / 3)
    assert beside_chunks(5, torch.zeros(3, 256, 256)) == pytest.approx(5 * expected, rel=1e-6)
