import pytest

from hf_lgm.parallel import owned_range


@pytest.mark.parametrize(("total", "world"), [(10, 1), (10, 3), (2, 3), (7, 7), (1000, 16)])
def test_every_row_has_one_owner(total, world):
    ranges = [owned_range(total, rank, world) for rank in range(world)]
    assert [row for owned in ranges for row in owned] == list(range(total))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    assert len(ranges[0]) > 0  # the one that draws the previews
