"""Whatever happens to a checkpoint's files is noticed, and half of one is never read."""

import json
import shutil

import pytest
import torch
from transformers import TrainerState

from hf_lgm.distillation.checkpoint import Checkpoint
from hf_lgm.distillation.checkpoint_folders import (
    CHECKSUMS,
    FILES,
    all_checkpoints,
    checkpoint_to_resume,
    damage_of,
    remove_checkpoint,
    remove_leftovers,
    remove_old_checkpoints,
)
from hf_lgm.distillation.output_folder import check_is_ours


def save(folder, step):
    tensors = {"level.0": torch.full((2, 3, 4, 4), float(step)), "step": torch.tensor(float(step))}
    identity = {"max_steps": 9, "learning_rate": 0.02}
    return Checkpoint(tensors, TrainerState(global_step=step), identity, 1.5, 2).save(folder)


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


DAMAGE = {
    "one bit in the middle": lambda path: flip(path, 4 * path.stat().st_size),
    "its last bit": lambda path: flip(path, 8 * path.stat().st_size - 1),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "an empty dictionary": lambda path: path.write_text("{}"),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", [*FILES, CHECKSUMS])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_and_the_one_before_goes_on(tmp_path, name, damage, caplog):
    for step in (2, 4):
        save(tmp_path, step)
    damage(tmp_path / "checkpoint-4" / name)
    check_is_ours(tmp_path)
    for load in (Checkpoint.load, lambda folder: checkpoint_to_resume(tmp_path, folder)):
        with pytest.raises(ValueError, match=rf"checkpoint-4' is damaged \({name} .*checkpoint-2 is whole: give that"):
            load(tmp_path / "checkpoint-4")
    assert checkpoint_to_resume(tmp_path, "auto").name == "checkpoint-2"
    assert f"checkpoint-4 is damaged ({name} " in caplog.text and "going on from checkpoint-2" in caplog.text


def test_where_none_is_whole_nothing_begins_anew(tmp_path):
    for step in (2, 4):
        flip(save(tmp_path, step) / "synthetic.safetensors", 4000)
    with pytest.raises(ValueError, match=r"no checkpoint is whole: checkpoint-4 \(synth.* checkpoint-2 \(synth"):
        checkpoint_to_resume(tmp_path, True)
    assert len(all_checkpoints(tmp_path)) == 2


def test_an_earlier_versions_checkpoint_is_taken_with_a_word(tmp_path, caplog):
    folder = save(tmp_path, 2)
    (folder / CHECKSUMS).unlink()
    run = json.loads((folder / "run.json").read_text())
    del run["has_checksums"]
    (folder / "run.json").write_text(json.dumps(run))
    assert checkpoint_to_resume(tmp_path, "auto") == folder
    assert Checkpoint.load(folder).state.global_step == 2
    assert "was written by an earlier version, without checksums" in caplog.text
    (folder / "trainer_state.json").write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint-2' is damaged"):
        Checkpoint.load(folder)


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize("point", range(6))
def test_a_removal_is_one_rename(tmp_path, monkeypatch, point):
    """Killed at any of its operations it leaves a whole checkpoint or none, and the rest goes at the next start."""
    folder, done = save(tmp_path, 3), []

    def counted(real):
        def operation(path, *args, **kwargs):
            if len(done) == point:
                raise Killed
            done.append(path)
            return real(path, *args, **kwargs)

        return operation

    for name in ("rename", "unlink", "rmdir"):
        monkeypatch.setattr(type(folder), name, counted(getattr(type(folder), name)))
    with pytest.raises(Killed):
        remove_checkpoint(folder)
    monkeypatch.undo()
    assert [damage_of(found) for found in all_checkpoints(tmp_path)] == ([None] if point == 0 else [])
    check_is_ours(tmp_path)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == ([folder] if point == 0 else [])


def test_what_is_half_written_is_none_and_is_cleared(tmp_path):
    whole = save(tmp_path, 3)
    shutil.copytree(whole, tmp_path / ".checkpoint-4.tmp")
    (tmp_path / ".checkpoint-4.tmp" / CHECKSUMS).unlink()
    assert all_checkpoints(tmp_path) == [whole]
    remove_old_checkpoints(tmp_path, 2)
    assert list(tmp_path.iterdir()) == [whole]


def test_somebodys_file_in_a_checkpoint_is_where_it_was(tmp_path):
    folder = save(tmp_path, 3)
    (folder / "notes.txt").write_text("mine")
    save(tmp_path, 3)
    assert damage_of(folder) is None and (folder / "notes.txt").read_text() == "mine"
    folder.rename(tmp_path / ".checkpoint-3.removed")  # killed while it was removed
    remove_leftovers(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"] and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_a_sentence_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    kept = save(tmp_path, 2)

    def full(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=r"checkpoint-4 can't be written \(No space left on device\). Last good .*-2\. "):
        save(tmp_path, 4)
    assert list(tmp_path.iterdir()) == [kept]
