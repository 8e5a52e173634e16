"""Files are whole or not there, and nothing stays of what was begun."""

import errno
import os
import time

import pytest
import torch
from safetensors import SafetensorError
from sets import make_set

from hf_lgm import DistilledSet
from hf_lgm.processes import Process
from hf_lgm.whole_files import remove_abandoned, replacing, save_tensors, temporary_name


def test_a_file_that_can_not_be_written_stays_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("said", "number"), [("I/O error: No space left on device (os error 28)", errno.ENOSPC), ("odd", errno.EIO)]
)
def test_a_fault_of_the_disk_is_the_same_for_tensors(tmp_path, monkeypatch, said, number):
    def fail(*args):
        raise SafetensorError(said)

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="tensors.st") as caught:
        save_tensors({"a": torch.zeros(1)}, tmp_path / "tensors.st")
    assert caught.value.errno == number


OWN = Process.this()


def test_what_killed_processes_leave_is_cleared_and_nothing_else(tmp_path, monkeypatch):
    def left_by(**who):
        monkeypatch.setattr(Process, "this", lambda: Process(**{**vars(OWN), **who}))
        (path := tmp_path / temporary_name("shard-00000.safetensors")).write_bytes(b"half")
        monkeypatch.undo()
        return path

    own, elsewhere = left_by(), left_by(host="another")
    gone, reused = left_by(pid=2**22 + 1), left_by(started="1")
    (folder := left_by(pid=2**22 + 2)).unlink()
    folder.mkdir()
    (folder / "part").write_bytes(b"")
    former, somebodys = tmp_path / f"shard-00000.{'0a' * 16}.tmp", tmp_path / "work.tmp"
    for path in (former, somebodys):
        path.write_bytes(b"")
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == {own, elsewhere, former, somebodys} and not gone.exists() and not reused.exists()
    a_day_ago = time.time() - 2 * 24 * 3600
    for path in tmp_path.iterdir():
        os.utime(path, (a_day_ago, a_day_ago))
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == {own, somebodys}


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize("has_earlier", [False, True])
@pytest.mark.parametrize("point", range(6))
def test_a_set_is_the_old_one_the_new_one_or_none(tmp_path, monkeypatch, point, has_earlier):
    """Never images with the settings or the results of others, whenever the process is killed."""
    old, new = make_set(), make_set()
    old, new = (
        DistilledSet(each.dataset, {**each.config, "settings": {"flip": flip}}, [])
        for each, flip in ((old, True), (new.with_images(list(new.dataset["image"])[::-1]), False))
    )
    assert old.fingerprint != new.fingerprint
    if has_earlier:
        old.save_pretrained(tmp_path)
    real, done = os.replace, []

    def replace(source, target):
        if ".tmp" not in str(target) and len(done) == point:
            raise Killed
        done.extend([target] * (".tmp" not in str(target)))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    try:
        new.save_pretrained(tmp_path)
    except Killed:
        pass
    monkeypatch.undo()
    try:
        found = DistilledSet.from_pretrained(tmp_path)
    except FileNotFoundError as error:
        assert "is not a distilled set: it has no data/" in str(error)  # noqa: PT017
    else:
        is_old = found.fingerprint == old.fingerprint
        assert found.views.flip == is_old and (is_old or found.fingerprint == new.fingerprint)
    new.save_pretrained(tmp_path)
    assert DistilledSet.from_pretrained(tmp_path).fingerprint == new.fingerprint


def test_what_a_killed_save_left_goes_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(Process, "this", lambda: Process(**{**vars(OWN), "pid": 2**22 + 1}))
    (tmp_path / temporary_name("set")).mkdir()
    monkeypatch.undo()
    make_set(2, size=8).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
