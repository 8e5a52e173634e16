import pytest
from accelerate import Accelerator

from hf_lgm.distributed import check_launch, check_processes, owned_range


@pytest.mark.parametrize(("total", "world"), [(10, 1), (10, 3), (2, 3), (7, 7), (1000, 16)])
def test_every_row_has_one_owner(total, world):
    ranges = [owned_range(total, rank, world) for rank in range(world)]
    assert [row for owned in ranges for row in owned] == list(range(total))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    assert len(ranges[0]) > 0  # the one that draws the previews


@pytest.mark.parametrize("kind", ["DeepSpeed", "FSDP"])
def test_what_shards_weights_is_refused(monkeypatch, kind):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind.upper()}", "true")
    with pytest.raises(ValueError, match=f"asks for {kind}, which shards weights"):
        check_launch()


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch):
    accelerator = Accelerator(cpu=True)
    check_processes(accelerator)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes, of which each works alone"):
        check_processes(accelerator)
