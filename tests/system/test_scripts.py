"""The scripts, as a user types them."""

import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from commands import QUICK, run
from conftest import ROOT
from datasets import load_dataset
from transformers import TrainingArguments

from hf_lgm import DistilledSet
from hf_lgm.arguments import LGMArguments


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """The same in this process, which starts faster: what was printed, and the error if there was one."""

    def run_in_process(*flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["distill.py", *map(str, flags)])
        try:
            runpy.run_path(str(ROOT / "scripts" / "distill.py"), run_name="__main__")
        except SystemExit as exit_:
            return capsys.readouterr().out, exit_.code
        return capsys.readouterr().out, None

    return run_in_process


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_folder, dataset_folder):
    """One run with the user's own model and images: the working folder and what was printed."""
    cwd = tmp_path_factory.mktemp("own")
    flags = ["--model", model_folder, "--dataset", dataset_folder, "--eval_models", f"{model_folder}@24", *QUICK]
    accelerate = (str(Path(sys.executable).with_name("accelerate")), "launch")
    return cwd, run(*flags, cwd=cwd, launcher=accelerate)


def test_own_model_and_images(finished):
    cwd, done = finished
    folder = cwd / "outputs" / "colours-lgm-tiny-dinov2-ipc1"
    assert "| trained on" in done.stdout and "tiny-dinov2@24" in done.stdout
    for row in ("random real images", "centroid real images", "distilled", "nearest class mean", "all real images"):
        assert f"| {row} " in done.stdout
    for name in ("README.md", "preview.png", "comparison.png", "timelapse.gif", "lgm_config.json", "results.json"):
        assert (folder / name).stat().st_size > 0
    assert "comparison.png" in done.stdout and "load_dataset" in done.stdout
    assert len(load_dataset(str(folder))["train"]) == 3


def test_nothing_of_this_machine_is_in_what_is_published(finished):
    cwd, _ = finished
    for name in ("README.md", "lgm_config.json", "results.json"):
        text = next(cwd.rglob(name)).read_text()
        assert "/" + str(cwd).split("/")[1] + "/" not in text and os.uname().nodename not in text


def test_the_card_has_the_command_with_the_last_parts_of_paths(finished):
    cwd, _ = finished
    config = json.loads(next(cwd.rglob("lgm_config.json")).read_text())
    assert config["command"].startswith("hf-lgm distill --model tiny-dinov2 --dataset colours ")
    assert "--eval_models tiny-dinov2@24 --max_steps 4" in config["command"]
    assert config["command"] in next(cwd.rglob("README.md")).read_text()


def test_the_table_is_of_the_saved_images(finished, model_folder, dataset_folder):
    """What was printed is found again with the folder alone."""
    from hf_lgm import ProbeProtocol, evaluate_probe, load_images

    cwd, _ = finished
    saved = DistilledSet.from_pretrained(cwd / "outputs" / "colours-lgm-tiny-dinov2-ipc1")
    _, evaluation = load_images(dataset_folder)
    again = evaluate_probe(model_folder, saved, evaluation, protocol=ProbeProtocol(seeds=2))
    assert again.rows() == [
        row for row in saved.results if (row["training_set"], row["backbone"]) == ("distilled", "tiny-dinov2")
    ]
    assert len(saved.results) == 10  # five rows, two backbones, top-1


def test_a_killed_run_goes_on_with_the_same_bits(run_here, tmp_path, model_folder, dataset_folder):
    """SIGKILL as soon as there is a checkpoint; then the same command with `auto`."""
    flags = ["--model", model_folder, "--dataset", dataset_folder, *QUICK, "--max_steps", "30", "--save_steps", "5"]
    flags += ["--resume_from_checkpoint", "auto"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_here(*flags, "--output_dir", whole)[1] is None
    command = [sys.executable, str(ROOT / "scripts" / "distill.py"), *flags, "--output_dir", str(killed)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while not list(killed.glob("checkpoint-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "results.json").exists()
    assert "Going on at step" in run(*flags, "--output_dir", killed, cwd=tmp_path).stderr
    for name in ("data/train-00000-of-00001.parquet", "results.json", "checkpoint-30/synthetic.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_yaml_and_flags_over_it(run_here, tmp_path, model_folder, dataset_folder):
    config = {
        "model": model_folder,
        "dataset": dataset_folder,
        "max_steps": 2,
        "eval_seeds": 1,
        "crop_scale": [0.5, 1.0],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**config, "output_dir": "out", "seed": 5}))
    run_here("--config", "recipe.yaml", "--seed", "6", "--disable_tqdm", "true")
    settings = json.loads((tmp_path / "out" / "lgm_config.json").read_text())["settings"]
    assert (settings["seed"], settings["max_steps"], settings["crop_scale"]) == (6, 2, [0.5, 1.0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model", "user/absent"],
            "The model 'user/absent' can't be fetched: https://huggingface.co can't be reached",
        ),
        (["--dataset", "./images"], "--dataset needs a --model"),
        (["--model", "demo-vit", "--dataset", "./absent"], "there is no folder './absent'"),
        (["--model", "demo-vit", "--classes", "3", "x"], "'x' is no class of this dataset. Found 10: 0, 1"),
        (["--num_train_epochs", "3"], "LGMConfig does not take num_train_epochs; use max_steps"),
        (["--config", "absent.yaml"], "there is no file 'absent.yaml'"),
        (["--no_such_flag", "1"], "--no_such_flag"),
    ],
)
def test_errors_are_one_sentence(run_here, flags, message):
    _, error = run_here(*flags)
    assert message in error and error.startswith("\nerror: ")


def test_a_launch_that_became_one_process(run_here, monkeypatch):
    """What `accelerate launch --cpu --num_processes 2` leaves behind."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert "meant for several processes and started one" in run_here()[1]


def test_two_backbones_of_one_name(run_here, model_folder, dataset_folder):
    _, error = run_here("--model", model_folder, "--eval_models", model_folder, "--dataset", dataset_folder)
    assert "Two backbones have the same name: tiny-dinov2, tiny-dinov2" in error


@pytest.mark.parametrize(
    "flags", [["--use_cpu", "true"], ["--eval_strategy", "steps", "--eval_steps", "2", "--report_to", "tensorboard"]]
)
def test_flags_that_transformers_reads_too(run_here, model_folder, dataset_folder, flags):
    """`TrainingArguments` changes other fields for them, which are not to be held against the user."""
    given = ["--model", model_folder, "--dataset", dataset_folder, *QUICK, "--also_init", "centroid", *flags]
    printed, error = run_here(*given)
    assert error is None and "| distilled from centroid " in printed


@pytest.mark.parametrize("also", [["noise", "noise"], ["maker/a", "other/a"]])
def test_two_runs_do_not_write_into_one_folder(run_here, tmp_path, also):
    _, error = run_here("--model", "demo-vit", "--also_init", *also, "--output_dir", "out")
    assert f"what begins with '{also[0]}' and what begins with '{also[1]}' would both be written to out-from-" in error
    assert "distil one of them by another command, with --init and --output_dir." in error
    assert not list(tmp_path.iterdir())


def test_broken_yaml_and_single_values_for_lists(run_here, tmp_path):
    (tmp_path / "broken.yaml").write_text("model: [a")
    assert "broken.yaml" in run_here("--config", "broken.yaml")[1]
    (tmp_path / "single.yaml").write_text("model: demo-vit\nclasses: 3\nsave_strategy: no\n")
    assert "Expected at least two classes, found 1: ['3']" in run_here("--config", "single.yaml")[1]


def test_unknown_flags_in_yaml(run_here, tmp_path):
    (tmp_path / "recipe.yaml").write_text("max_step: 3\n")
    assert "recipe.yaml has unknown flags: max_step" in run_here("--config", "recipe.yaml")[1]


def test_an_unreachable_hub_is_asked_once(tmp_path):
    """The Hub's client would try five times for each file, which takes 23 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = []

        def hang_up():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the test is over
                    return
                asked.append(connection.recv(4096))
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint}
        done = run("--model", "facebook/dinov2-base", cwd=tmp_path, check=False, **environment)
        server.shutdown(socket.SHUT_RDWR)
    assert f"{endpoint} can't be reached" in done.stderr and "built-in demo" in done.stderr
    assert len(asked) == 1


def test_help_shows_what_can_be_set_and_nothing_else(run_here):
    text, _ = run_here("--help-all")
    assert all(f"--{name} " in text for name in ("model", "dataset", "output_dir", "max_steps", "also_init"))
    without_meaning = {f.name for f in fields(TrainingArguments)} - {f.name for f in fields(LGMArguments)}
    assert "fp16" in without_meaning and not [name for name in without_meaning if f"--{name} " in text]


def test_the_demo_with_fewer_steps(run_here, tmp_path):
    """The settings of the demo, short and with fewer digits; `pytest -m slow` runs all of it."""
    flags = ["--max_steps", "8", "--eval_seeds", "2", "--disable_tqdm", "true"]
    flags += ["--max_train_samples", "200", "--max_eval_samples", "100"]
    printed, error = run_here(*flags)  # no model, no dataset: the demo
    assert error is None and "| distilled " in printed and "demo-convnext" in printed
    card = (tmp_path / "outputs" / "demo" / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "# demo-digits in 10 images" in card
    assert "add --resume_from_checkpoint auto or --overwrite" in run_here(*flags)[1]
    again, error = run_here(*flags, "--resume_from_checkpoint", "auto")
    assert error is None and again.split("|")[:40] == printed.split("|")[:40]


@pytest.mark.slow
def test_the_demo_beats_real_images(tmp_path):
    run(cwd=tmp_path)
    rows = DistilledSet.from_pretrained(tmp_path / "outputs" / "demo").results
    top1 = {r["training_set"]: r["mean"] for r in rows if (r["backbone"], r["metric"]) == ("demo-vit", "top-1")}
    assert top1["distilled"] > max(top1["random real images"], top1["centroid real images"])


def test_a_set_to_begin_with_is_not_written_over(run_here, dataset_folder, model_folder, tmp_path):
    folder = tmp_path / "out" / "data"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"precious")
    flags = ("--model", model_folder, "--dataset", dataset_folder, "--init", "out", "--output_dir", "out")
    assert "is also where new images are to go: give another --output_dir." in run_here(*flags, "--overwrite")[1]
    assert (folder / "train-00000-of-00001.parquet").read_bytes() == b"precious"


def test_an_existing_run_is_not_written_over(finished, run_here, model_folder, dataset_folder, monkeypatch, caplog):
    flags = ["--model", model_folder, "--dataset", dataset_folder, *QUICK]
    flags += ["--output_dir", finished[0] / "outputs" / "colours-lgm-tiny-dinov2-ipc1"]
    _, refused = run_here(*flags)
    assert refused.startswith("\nerror: ") and "add --resume_from_checkpoint auto or --overwrite" in refused
    assert run_here(*flags, "--resume_from_checkpoint", "auto")[1] is None and "Going on at step 4" in caplog.text
    caplog.clear()
    assert run_here(*flags, "--overwrite")[1] is None and "Going on" not in caplog.text
    folder = Path(flags[flags.index("--output_dir") + 1])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for mistake in (
        ["--model", "no/such"],
        ["--eval_split", "nothing"],
        ["--init", "no/set"],
        ["--images_per_class", "99"],
        ["--resume_from_checkpoint", "nosuch"],
        ["--output_dir", dataset_folder],
    ):
        assert run_here(*flags, "--overwrite", *mistake)[1], mistake  # and nothing of the old run is lost
    assert run_here(*flags, "--overwrite", "--resume_from_checkpoint", "auto")[1].count("give one of them") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
