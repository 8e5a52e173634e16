"""The real clients against a Hub on 127.0.0.1; what can't be had is one sentence."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from hub_server import TOKEN, serve

QUICK = [
    "--max_steps",
    "2",
    "--views_per_step",
    "2",
    "--init",
    "noise",
    "--eval_seeds",
    "1",
    "--disable_tqdm",
    "true",
    "--save_steps",
    "9",
]


@pytest.fixture(scope="module")
def hub(model_folder, dataset_folder):
    """One model and one dataset, each also private and gated, and a dataset of two configurations."""
    with serve() as hub:
        for kind, folder in (("models", model_folder), ("datasets", dataset_folder)):
            for name in ("user/open", "user/private", "user/gated"):
                hub.add(kind, name, folder)
        hub.private, hub.gated = {"user/private"}, {"user/gated"}
        yield hub


@pytest.fixture
def distill(hub, tmp_path):
    """Runs the script in a process of its own, with an empty cache, where only this Hub can be reached."""

    def run(*flags, **environment):
        hub.requests.clear()
        environment = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **environment}
        command = [sys.executable, str(ROOT / "scripts" / "distill.py"), *QUICK, *map(str, flags)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_model_and_dataset_come_from_the_hub_and_streaming_stores_no_image(distill, hub, tmp_path):
    streamed = distill(
        *("--model", "user/open", "--dataset", "user/open", "--streaming", "true", "--output_dir", "streamed")
    )
    assert streamed.returncode == 0, streamed.stderr[-2000:]
    commit = json.loads((tmp_path / "streamed" / "lgm_config.json").read_text())["backbone"]["revision"]
    assert any(f"/user/open/resolve/{commit}/model.safetensors" in request for request in hub.requests)
    assert "one pass, through user/open" in streamed.stderr and "| centroid real images" not in streamed.stdout
    stored_files = [path.name for path in (tmp_path / "home" / "datasets").rglob("*.arrow")]
    assert not stored_files and not list((tmp_path / "home" / "hub").rglob("*.png"))
    stored = distill("--model", "user/open", "--dataset", "user/open", "--output_dir", "stored")
    assert stored.returncode == 0, stored.stderr[-2000:]
    data = "data/train-00000-of-00001.parquet"
    assert (tmp_path / "streamed" / data).read_bytes() == (tmp_path / "stored" / data).read_bytes()
    results = {row["training_set"]: row["mean"] for row in json.loads((tmp_path / "stored/results.json").read_text())}
    for row in json.loads((tmp_path / "streamed" / "results.json").read_text()):
        if row["training_set"] != "random real images":  # drawn among the pictures that a stream keeps
            assert row["mean"] == results[row["training_set"]]


def test_private_repositories_with_a_token(distill):
    done = distill("--model", "user/private", "--dataset", "user/private", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr[-2000:]
    assert TOKEN not in done.stdout + done.stderr


REFUSED = {
    ("--model", "user/gated", "--dataset", "user/open"): "'user/gated' is gated: ask for access at "
    "https://huggingface.co/user/gated, then run `hf auth login`.",
    ("--model", "user/private", "--dataset", "user/open"): "'user/private' can't be loaded",
    ("--model", "user/open", "--dataset", "user/gated"): "'user/gated' is gated: ask for access at "
    "https://huggingface.co/datasets/user/gated, then run",
    (
        "--model",
        "user/open",
        "--dataset",
        "user/gated",
        "--streaming",
        "true",
    ): "'user/gated' is gated: ask for access at https://huggingface.co/datasets/user/gated, then run",
    (
        "--model",
        "user/open",
        "--dataset",
        "user/private",
    ): "'user/private' does not exist, or is private. If it exists, run `hf auth login`",
    ("--model", "user/open", "--dataset", "user/nothing"): "'user/nothing' does not exist, or is private.",
}
ONE_AFTER_THE_OTHER = """
import json, runpy, sys
for flags in json.loads(sys.argv[1]):
    sys.argv = ["distill.py", *flags]
    try:
        runpy.run_path(SCRIPT, run_name="__main__")
        print(json.dumps("finished"))
    except SystemExit as exit_:
        print(json.dumps(exit_.code))
"""


@pytest.fixture(scope="module")
def refusals(hub, tmp_path_factory):
    """What each of these commands ends with, in one process, since each would take long to start."""
    cwd = tmp_path_factory.mktemp("refusals")
    environment = {"HF_HOME": str(cwd / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    code = ONE_AFTER_THE_OTHER.replace("SCRIPT", repr(str(ROOT / "scripts" / "distill.py")))
    commands = json.dumps([[*QUICK, *flags] for flags in REFUSED])
    done = subprocess.run(
        [sys.executable, "-c", code, commands],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(REFUSED, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("flags", REFUSED)
def test_what_can_not_be_had_is_one_sentence(refusals, flags):
    assert refusals[flags].startswith("\nerror: ") and REFUSED[flags] in refusals[flags]


def test_a_stream_needs_the_hub(distill):
    flags = ["--model", "user/open", "--dataset", "user/open"]
    assert distill(*flags).returncode == 0  # now both are in the cache
    refused = distill(*flags, "--streaming", "true", "--overwrite", "true", HF_ENDPOINT="http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "can't be streamed, because http://127.0.0.1:9 can't be reached; there is a cached copy" in refused.stderr
