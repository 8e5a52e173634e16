"""A long run takes no more memory, descriptors or time per step at its end than at its beginning."""

import json
import os
import time
from pathlib import Path

import pytest
from reliability_run import distil, finish, start
from transformers import TrainerCallback

PAGE = os.sysconf("SC_PAGE_SIZE")


class Meter(TrainerCallback):
    """Writes down what the process holds, a hundred times."""

    def __init__(self):
        self.rows, self.since = [], time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        every = max(1, state.max_steps // 100)
        if state.global_step % every == 0:
            now = time.perf_counter()
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
            self.rows.append([memory, len(os.listdir("/proc/self/fd")), 1000 * (now - self.since) / every])
            self.since = now


def measured(root, **settings):
    """A run that leaves its measurements."""
    meter = Meter()
    distil(root, callbacks=[meter], **settings)
    Path(root, "meter.json").write_text(json.dumps(meter.rows))


@pytest.mark.parametrize("steps", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_soak(tmp_path, steps):
    process = start(tmp_path / "run", run=measured, max_steps=steps, save_steps=max(10, steps // 200))
    assert finish(process, seconds=7200) == 0, process.said()
    rows = json.loads((tmp_path / "run/meter.json").read_text())
    early, late = rows[20:40], rows[80:]
    (memory, files, ms), (memory_then, files_then, ms_then) = (
        [sorted(column)[len(column) // 2] for column in zip(*some, strict=True)] for some in (early, late)
    )
    print(f"{steps} steps: {memory:.0f} to {memory_then:.0f} MB, {files} to {files_then} files", end="")
    print(f", {ms:.1f} to {ms_then:.1f} ms a step")
    assert memory_then < memory + 20 and files_then <= files + 2
    assert steps < 1000 or ms_then < 2 * ms
