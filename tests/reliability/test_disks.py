"""A disk that is full at any moment, read-only, or taken away: a sentence, and nothing that was saved is lost."""

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from reliability_run import distil, finish, leftovers, result_of, start
from transformers import TrainerCallback

from hf_lgm.distillation.checkpoint_folders import all_checkpoints, damage_of

SIZE = 4  # MB; a run of this size takes a tenth


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=False)
    subprocess.run(["umount", "-l", str(folder)], check=True)


class At(TrainerCallback):
    """Does something to the disk after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def filled(root, step, left, **settings):
    """A run on a disk of which few bytes are left after a step."""

    def fill():
        free = shutil.disk_usage(root).free - left
        Path(root, "filler").write_bytes(b"\0" * max(0, free))

    distil(root, callbacks=[At(step, fill)], **settings)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "run"
    assert finish(start(root, max_steps=6)) == 0
    return result_of(root)


def sentence_of(process):
    """What it says, which is no traceback."""
    said = process.said()
    assert "Traceback" not in said and said.count("error: ") == 1, said
    return said.partition("error: ")[2].splitlines()[0]


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_full_disk(disk, result, count):
    said = Counter()
    for number in range(count):
        root = disk / f"{number}"
        step, left = random.randint(1, 5), random.choice([0, 4096, random.randint(0, 150_000)])
        process = start(root, report=disk.parent / "said", run=filled, step=step, left=left, max_steps=6)
        if finish(process) != 0:
            sentence = sentence_of(process)
            assert "No space left" in sentence or "MB of room" in sentence, sentence
            said["No space left" if "Last good" in sentence else "elsewhere"] += 1
        else:
            said["enough room"] += 1
        assert all(damage_of(folder) is None for folder in all_checkpoints(root / "out"))
        (root / "filler").unlink(missing_ok=True)
        assert finish(start(root, report=disk.parent / "said", max_steps=6)) == 0
        assert result_of(root) == result and leftovers(root) == [], f"after step {step}, {left} bytes left"
        shutil.rmtree(root)
    print(f"{count} full disks: {dict(said)}; none lost")


def read_only(root, step, disk, **settings):
    """A run whose disk takes nothing any more."""
    remount = ["mount", "-o", "remount,ro", str(disk)]
    outcome = disk.parent / "remount"
    distil(
        root,
        callbacks=[At(step, lambda: outcome.write_text(str(subprocess.run(remount, check=False).returncode)))],
        **settings,
    )


def test_a_disk_that_becomes_read_only(disk, result):
    process = start(disk / "run", report=disk.parent / "said", run=read_only, step=3, disk=disk, max_steps=6)
    code = finish(process)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    if (disk.parent / "remount").read_text() != "0":
        pytest.skip("a disk that is in use can't be made read-only here")
    assert code != 0
    assert "Read-only file system" in sentence_of(process)
    assert finish(start(disk / "run", report=disk.parent / "said", max_steps=6)) == 0
    assert result_of(disk / "run") == result and leftovers(disk / "run") == []


def removed(root, step, **settings):
    """A run whose folder somebody removes."""
    distil(root, callbacks=[At(step, lambda: shutil.rmtree(Path(root, "out")))], **settings)


def test_a_folder_that_is_removed(tmp_path, result):
    """The run goes on, and says what is lost."""
    process = start(tmp_path / "run", run=removed, step=3, max_steps=6)
    assert finish(process) == 0, process.said()
    assert process.said().count("was removed while this run is on: what was in it is lost") == 1
    assert result_of(tmp_path / "run") == result and leftovers(tmp_path / "run") == []
    assert not os.path.exists(tmp_path / "run/out/run.lock")
