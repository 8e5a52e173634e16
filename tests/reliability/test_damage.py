"""Damage of every file of a checkpoint, bit by bit at random places and by truncation: each is found."""

import random
import shutil
from collections import Counter

import pytest
import torch
from transformers import TrainerState

from hf_lgm.distillation.checkpoint import Checkpoint


@pytest.mark.parametrize("count", [40, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_damage_is_believed(tmp_path, count):
    """What is loaded is what was saved, or there is an error that names the file. Blanks may change in JSON alone."""
    generator, found = torch.Generator().manual_seed(0), Counter()
    tensors = {f"level.{level}": torch.rand(2, 3, 2**level, 2**level, generator=generator) for level in range(4)}
    state = TrainerState(global_step=7, log_history=[{"loss": 0.25, "step": step} for step in range(7)])
    whole = Checkpoint(tensors, state, {"max_steps": 9, "labels": "0a" * 32}, 1.5, 2)
    folder = whole.save(tmp_path)
    copies = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(copies) == 4
    for name, data in copies.items():
        bits = random.sample(range(8 * len(data)), min(count, 8 * len(data)))
        cuts = random.sample(range(len(data)), min(count, len(data)))
        changed = [flipped(data, bit) for bit in bits] + [data[:size] for size in cuts] + [b"", data + b" ", None]
        for other in changed:
            (folder / name).unlink(missing_ok=True)
            if other is not None:
                (folder / name).write_bytes(other)
            try:
                loaded = Checkpoint.load(folder)
            except ValueError as error:
                assert f"checkpoint-7' is damaged ({name} is " in str(error), error  # noqa: PT017
                found[name] += 1
            else:
                assert name == "checksums.json" and other.split() == data.split()
                assert all(torch.equal(loaded.tensors[key], tensors[key]) for key in tensors)
                found["blanks of checksums.json"] += 1
        (folder / name).write_bytes(data)
    assert Checkpoint.load(folder).state.log_history == state.log_history
    shutil.rmtree(folder)
    print(f"{sum(found.values())} damages, all found: {dict(found)}")


def flipped(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)
