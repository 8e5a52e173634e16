"""`scripts/evaluate.py` and `scripts/baselines.py`, as a user types them."""

import json
import runpy
from functools import partial

import pytest
from commands import said_by
from conftest import ROOT, make_dataset
from datasets import ClassLabel, DatasetDict

from hf_lgm import DistilledSet


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A script in this process, which starts faster: what was printed, and the error if there was one."""

    def run_in_process(script, *flags):
        monkeypatch.chdir(tmp_path)
        main = partial(runpy.run_path, str(ROOT / "scripts" / script), run_name="__main__")
        return said_by(main, [script, *flags], monkeypatch, capsys)

    return run_in_process


@pytest.fixture
def with_sets(run, model_folder, dataset_folder):
    """Two sets of real images, made by the script."""
    where = ["--model", model_folder, "--dataset", dataset_folder]
    for kind in ("random", "matched"):
        printed, error = run("baselines.py", "--kind", kind, *where, "--output_dir", kind)
        assert error is None and f"hf-lgm evaluate --sets {kind} --model {model_folder}" in printed
    return where


def test_baselines_then_one_table(run, with_sets, tmp_path, model_folder):
    flags = ["--sets", "random", "matched", *with_sets, "--eval_seeds", "2", "--output_dir", "table"]
    printed, error = run("evaluate.py", *flags, "--baselines", "centroid", "kmeans", "--model", model_folder)
    assert error is None
    for row in ("centroid real images", "random", "matched", "nearest class mean", "ridge regression"):
        assert f"| {row} " in printed
    assert "k-means" not in printed  # at one image per class it is the centroid
    rows = json.loads((tmp_path / "table" / "results.json").read_text())
    assert set(rows[0]) == {"training_set", "backbone", "protocol", "metric", "mean", "std", "n_seeds"}
    assert {row["training_set"] for row in rows} >= {"random", "matched", "all real images"}
    details = json.loads((tmp_path / "table" / "details.json").read_text())
    assert list(details[0]["per_class"]) == ["class 0", "class 1", "class 2"]
    assert "| matched " in (tmp_path / "table" / "table.md").read_text()
    assert (tmp_path / "table" / "comparison.png").stat().st_size > 0
    assert DistilledSet.from_pretrained(tmp_path / "matched").config["command"].startswith("hf-lgm baselines")


def test_views_are_the_first_sets_or_as_told(run, with_sets, tmp_path):
    only_sets = ["--baselines", "none", "--references", "none", "--eval_seeds", "1", "--output_dir", "table"]
    _, error = run("evaluate.py", "--sets", "random", *with_sets, *only_sets, "--flip", "false")
    (row,) = json.loads((tmp_path / "table" / "results.json").read_text())
    assert error is None and row["protocol"].endswith("crops of 0.08 to 1")
    run("evaluate.py", "--sets", "random", *with_sets, *only_sets, "--crop_scale", "0.5", "1")
    (row,) = json.loads((tmp_path / "table" / "results.json").read_text())
    assert row["protocol"].endswith("crops of 0.5 to 1, flips")
    run("evaluate.py", "--sets", "random", *with_sets, *only_sets, "--bounded_crops", "false")
    (row,) = json.loads((tmp_path / "table" / "results.json").read_text())
    assert row["protocol"].endswith("crops of 0.08 to 1 and beyond the image, flips")


def test_a_model_that_can_not_be_loaded_leaves_the_others_columns(run, with_sets, tmp_path, model_folder):
    where = ["--model", "./absent", model_folder, *with_sets[2:]]
    printed, error = run("evaluate.py", "--sets", "random", *where, "--eval_seeds", "1", "--references", "none")
    assert "| random real images " in printed and "failed" in printed
    assert "1 of the backbones failed: ./absent" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--sets names what to evaluate"),
        (["--sets", "./absent"], "there is no folder './absent'"),
        (["--sets", "user/absent"], "Give a local folder as sets, or"),
        (["--sets", "random", "--protocol", "paper", "--baselines", "best"], "found best"),
        (
            ["--sets", "random", "--classes", "class 0", "class 1"],
            "'random' has other classes than the dataset: missing none; additional class 2",
        ),
        (["--sets", "random", "--eval_split", "nothing"], "there is no split 'nothing'"),
        (["--sets", "random", "--crop_scale", "0.3"], "crop_scale must be two areas"),
        (["--sets", "random", "--eval_seeds", "0"], "eval_seeds must be at least 1, found 0"),
        (["--sets", "random", "--output_dir", "matched"], "matched is a set, whose results a table would replace"),
    ],
)
def test_errors_are_one_sentence(run, with_sets, flags, message):
    _, error = run("evaluate.py", *with_sets, *flags)
    assert message in error and error.startswith("\nerror: ")


def test_images_without_labels_to_evaluate_on(run, with_sets, tmp_path):
    unlabelled = make_dataset().map(lambda row: {"label": -1})
    DatasetDict(train=make_dataset(), test=unlabelled).save_to_disk(tmp_path / "hidden")
    _, error = run("evaluate.py", "--sets", "random", *with_sets[:2], "--dataset", tmp_path / "hidden")
    assert "There is no labelled image to evaluate on: give another split as eval_dataset" in error


def test_sets_of_other_class_names(run, with_sets, tmp_path):
    renamed = make_dataset().cast_column("label", ClassLabel(names=["red", "class 1", "class 2"]))
    DatasetDict(train=renamed, test=renamed).save_to_disk(tmp_path / "renamed")
    _, error = run("evaluate.py", "--sets", "random", *with_sets[:2], "--dataset", tmp_path / "renamed")
    assert "missing red; additional class 0" in error


def test_baselines_refuse_what_they_can_not_choose(run, with_sets):
    _, error = run("baselines.py", *with_sets, "--images_per_class", "9", "--output_dir", "nine")
    assert "images_per_class=9 is more than the 8" in error
    _, error = run("baselines.py", *with_sets, "--crop_scale", "0.3", "--output_dir", "crops")
    assert "crop_scale must be two areas" in error
    _, error = run("baselines.py", *with_sets, "--output_dir", "random")
    assert "random: found data/train-00000-of-00001.parquet: add --overwrite\n" in error
    printed, error = run("baselines.py", *with_sets, "--output_dir", "random", "--overwrite")
    assert error is None and "random/preview.png" in printed
