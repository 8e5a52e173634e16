"""Only our own files are ever removed, by what is in them; whatever would touch others is refused before it begins."""

import json

import pytest
from conftest import make_dataset
from sets import make_set

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.distillation.checkpoint import Checkpoint
from hf_lgm.distillation.checkpoint_folders import all_checkpoints, remove_checkpoint
from hf_lgm.distillation.output_folder import (
    PROBE_FILES,
    SET_FILES,
    TABLE_FILES,
    check_is_ours,
    check_room,
    earlier_run,
    frames,
    remove_earlier_run,
)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def foreign_checkpoint(folder, number=500):
    """As another trainer writes it."""
    checkpoint = folder / f"checkpoint-{number}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights that took a week")
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


def our_checkpoint(folder, number):
    checkpoint = folder / f"checkpoint-{number}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.json").write_text(json.dumps({"identity": {}, "seconds": 1.0}))
    (checkpoint / "synthetic.safetensors").write_bytes(b"")
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


FOREIGN = {
    "another trainer's checkpoint": foreign_checkpoint,
    "a project's README": lambda folder: (folder / "README.md").write_text("# My project"),
    "somebody's results": lambda folder: (folder / "results.json").write_text('{"accuracy": 1}'),
    "a dataset's parquet": lambda folder: [
        (folder / "data").mkdir(), (folder / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    ],
    "a configuration of the same name": lambda folder: (folder / "lgm_config.json").write_text("[1, 2]"),
    "a checkpoint with a run.json of its own": lambda folder: [
        foreign_checkpoint(folder, 7), (folder / "checkpoint-7/run.json").write_text('{"wandb": 1}')
    ],
    "a configuration with one of our keys": lambda folder: [
        (folder / "lgm_config.json").write_text('{"versions": 1}'), (folder / "README.md").write_text("# My project")
    ],
    "a README beside a table of ours": lambda folder: [
        (folder / "details.json").write_text('[{"training_set": "a"}]'), (folder / "README.md").write_text("# Mine")
    ],
    "a README beside a checkpoint of ours": lambda folder: [
        our_checkpoint(folder, 2), (folder / "README.md").write_text("# Mine")
    ],
    "an empty list in details.json": lambda folder: [
        (folder / "details.json").write_text("[]"), (folder / "results.json").write_text("[]")
    ],
    "a configuration that is nested too deeply": lambda folder: (folder / "lgm_config.json").write_text("[" * 100_000),
    "a list of its own in details.json": lambda folder: [
        (folder / "details.json").write_text('[{"a": 1}]'), (folder / "results.json").write_text("[]")
    ],
}  # fmt: skip


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path, make):
    make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds .* which is not of a run of hf_lgm: choose another output_dir"):
        check_is_ours(tmp_path)
    with pytest.raises(FileExistsError):
        remove_earlier_run(tmp_path)
    assert contents(tmp_path) == before


def test_what_is_ours_is_removed_and_all_else_stays(tmp_path):
    make_set().save_pretrained(tmp_path)
    for number in (2, 4):
        our_checkpoint(tmp_path, number)
    (tmp_path / "runs/frames").mkdir(parents=True)
    for name in ("000001.png", "000002.png", "of-somebody.png"):
        (tmp_path / "runs/frames" / name).write_bytes(b"")
    (tmp_path / "runs/Nov27_host").mkdir()
    (tmp_path / "runs/Nov27_host/events.out.tfevents.1").write_bytes(b"log")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-2/notes.txt").write_text("mine too")
    (tmp_path / "checkpoint-best").mkdir()
    assert earlier_run(tmp_path) == "data/train-00000-of-00001.parquet"
    assert len(frames(tmp_path)) == 2
    remove_earlier_run(tmp_path)
    assert set(contents(tmp_path)) == {
        "runs/frames/of-somebody.png",
        "runs/Nov27_host/events.out.tfevents.1",
        "notes.txt",
        "checkpoint-2/notes.txt",
    }
    assert (tmp_path / "checkpoint-best").is_dir()
    assert earlier_run(tmp_path) is None


def test_folders_that_are_ours_or_empty_are_taken(tmp_path):
    check_is_ours(tmp_path)
    check_is_ours(tmp_path / "not" / "there" / "yet")
    our_checkpoint(tmp_path / "killed", 3)
    (tmp_path / "killed/timelapse.gif").write_bytes(b"")  # before the set itself
    check_is_ours(tmp_path / "killed")
    table = tmp_path / "table"
    table.mkdir()
    (table / "details.json").write_text(json.dumps([{"training_set": "a", "backbone": "b"}]))
    (table / "table.md").write_text("")
    check_is_ours(table, TABLE_FILES)
    with pytest.raises(FileExistsError, match="holds table.md"):
        (table / "details.json").unlink()
        check_is_ours(table, TABLE_FILES)


def test_a_file_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"can't be written, because of .*file"):
        check_is_ours(tmp_path / "file" / "run")


def test_a_model_beside_a_set_is_not_written_over(tmp_path):
    make_set().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights that took a week")
    check_is_ours(tmp_path)
    with pytest.raises(FileExistsError, match="holds model.safetensors"):
        check_is_ours(tmp_path, (*SET_FILES, *PROBE_FILES))


def test_a_link_into_another_run_is_not_followed(tmp_path):
    checkpoint = our_checkpoint(tmp_path / "other", 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint-2").symlink_to(checkpoint)
    with pytest.raises(FileExistsError, match="holds checkpoint-2"):
        remove_earlier_run(tmp_path / "run")
    assert all_checkpoints(tmp_path / "other") == [checkpoint]


def test_too_little_room_is_said_before_the_first_step(tmp_path):
    check_room(tmp_path / "new", 10)
    with pytest.raises(OSError, match=r"MB of room, and checkpoints and images need about .* MB"):
        check_room(tmp_path / "new", 2**60)


@pytest.mark.parametrize("gone", [["synthetic.safetensors"], ["synthetic.safetensors", "trainer_state.json"], None])
def test_a_removal_that_was_killed_does_not_block_the_folder(tmp_path, gone):
    our_checkpoint(tmp_path, 3)
    checkpoint = our_checkpoint(tmp_path, 5)
    for path in list(checkpoint.iterdir()) if gone is None else [checkpoint / name for name in gone]:
        path.unlink()
    (checkpoint / ".nfs0001").write_bytes(b"")
    (tmp_path / ".checkpoint-7.tmp").mkdir()
    (tmp_path / ".checkpoint-7.tmp/synthetic.safetensors").write_bytes(b"")
    check_is_ours(tmp_path)
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-3"]
    remove_earlier_run(tmp_path)
    assert contents(tmp_path) == {"checkpoint-5/.nfs0001": b""}


def test_a_checkpoint_goes_beside_files_of_somebody_in_its_folder(tmp_path, backbone):
    distiller = trained(tmp_path / "run", backbone)
    for name in ("checkpoint-4/notes.txt", "checkpoint-4/.DS_Store"):
        (tmp_path / "run" / name).write_text("mine")
    checkpoint = Checkpoint.load(tmp_path / "run/checkpoint-4")
    assert checkpoint.save(tmp_path / "run") == tmp_path / "run/checkpoint-4"
    assert all_checkpoints(tmp_path / "run")[-1].name == "checkpoint-4"
    assert (tmp_path / "run/checkpoint-4/notes.txt").read_text() == "mine"
    assert Checkpoint.load(tmp_path / "run/checkpoint-4").tensors.keys() == distiller.learned.state_dict().keys()


def test_a_checkpoint_of_ours_with_something_besides_keeps_that(tmp_path):
    checkpoint = our_checkpoint(tmp_path, 1)
    (checkpoint / "notes.txt").write_text("mine")
    remove_checkpoint(checkpoint)
    assert [path.name for path in checkpoint.iterdir()] == ["notes.txt"]


def trained(folder, backbone, resume=None, **settings):
    args = LGMConfig(
        output_dir=str(folder), max_steps=4, save_steps=2, views_per_step=1, disable_tqdm=True, **settings
    )
    distiller = LGMDistiller(backbone, args, make_dataset())
    distiller.train(resume)
    return distiller


def test_training_never_goes_into_a_folder_of_somebody_else(tmp_path, backbone):
    foreign_checkpoint(tmp_path / "other", 1)
    before = contents(tmp_path / "other")
    with pytest.raises(FileExistsError, match="holds checkpoint-1"):
        trained(tmp_path / "other", backbone, save_total_limit=1)
    trained(tmp_path / "own", backbone)
    with pytest.raises(FileExistsError, match="holds checkpoint-1"):
        trained(tmp_path / "other", backbone, tmp_path / "own/checkpoint-2")
    assert contents(tmp_path / "other") == before


def test_a_checkpoint_of_another_folder_does_not_cost_those_that_are_there(tmp_path, backbone):
    trained(tmp_path / "one", backbone)
    trained(tmp_path / "two", backbone, seed=1)
    before = contents(tmp_path / "two")
    with pytest.raises(ValueError, match=r"two: found checkpoint-4, of another run than .*one/checkpoint-2"):
        trained(tmp_path / "two", backbone, tmp_path / "one/checkpoint-2")
    assert contents(tmp_path / "two") == before
    elsewhere = trained(tmp_path / "three", backbone, tmp_path / "one/checkpoint-2")
    assert elsewhere.state.global_step == 4
    assert [path.name for path in all_checkpoints(tmp_path / "three")] == ["checkpoint-4"]


def test_the_names_that_a_set_writes_are_the_ones_that_are_looked_for(tmp_path):
    make_set().save_pretrained(tmp_path)
    assert set(contents(tmp_path)) <= set(SET_FILES)
