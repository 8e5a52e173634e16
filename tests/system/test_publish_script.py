"""scripts/publish.py, and what somebody else gets of it: in processes of their own, with an empty cache."""

import hashlib
import json
import os
import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hub_server import TOKEN, Fault, serve
from sets import make_set
from transformers import pipeline

from hf_lgm import DistilledSet, evaluate_probe

SOURCE = {"dataset": "user/open", "name": "colours", "license": "cc-by-4.0", "eval_split": "test"}
COLLEAGUE = """
import hashlib, json
from datasets import load_dataset
from hf_lgm import DistilledSet

def look(dataset):
    rows = list(dataset)
    pixels = hashlib.sha256(b"".join(row["image"].tobytes() for row in rows)).hexdigest()
    return [pixels, [row["label"] for row in rows], dataset.features["label"].names]

found = {
    "plain": look(load_dataset("user/set")["train"]),
    "tag": look(load_dataset("user/set", revision="v1.0", split="train")),
    "stream": look(load_dataset("user/set", split="train", streaming=True)),
    "ours": look(DistilledSet.from_pretrained("user/set", revision="v1.0").dataset),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(model_folder, dataset_folder):
    """A Hub with a model and a dataset."""
    with serve() as hub:
        hub.add("models", "user/open", model_folder)
        hub.add("datasets", "user/open", dataset_folder)
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory, hub):
    """A set on disk, as distil.py leaves it: with things beside it that are not to be published."""
    config = {
        "settings": {"images_per_class": 2, "crop_scale": [0.3, 1.0], "seed": 42},
        "changed_settings": ["images_per_class"],
        "source": SOURCE,
        "backbone": {"name": "user/open", "pooling": "pooler"},
        "command": "accelerate launch scripts/distill.py --model user/open",
    }
    folder = make_set(config=config).save_pretrained(tmp_path_factory.mktemp("runs") / "out")
    (folder / "comparison.png").write_bytes((folder / "preview.png").read_bytes())
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-2" / "optimizer.safetensors").write_bytes(b"state")
    return folder


@pytest.fixture(scope="module")
def elsewhere(hub, tmp_path_factory):
    """Runs Python in another process, with a cache of its own."""
    home = tmp_path_factory.mktemp("home")

    def run(*command, check=True):
        environment = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1", **environment}
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=home,
        )
        assert not check or done.returncode == 0, done.stderr[-2000:]
        return done

    return run


@pytest.fixture(scope="module")
def published(elsewhere, folder):
    """What the script printed."""
    flags = ["--folder", folder, "--repo_id", "user/set", "--tag", "v1.0"]
    return elsewhere(ROOT / "scripts" / "publish.py", *flags)


def test_a_colleague_gets_the_same_pixels(published, elsewhere, hub, folder):
    assert f"Published: {hub.url}/datasets/user/set" in published.stdout
    assert 'datasets.load_dataset("user/set", revision="v1.0")' in published.stdout
    here = DistilledSet.from_pretrained(folder)
    pixels = hashlib.sha256(b"".join(image.tobytes() for image in here.dataset["image"][:])).hexdigest()
    for way, found in json.loads(elsewhere("-c", COLLEAGUE).stdout).items():
        assert found == [pixels, here.labels.tolist(), here.class_names], way


XET = """
from sets import make_set
from hf_lgm import DistilledSet

images = make_set(12, 3, size=64)
try:
    images.push_to_hub("user/set", tag="v1.0")
    print(DistilledSet.from_pretrained("user/set").fingerprint == images.fingerprint)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (None, "True"),
        (Fault("POST /api/datasets/user/set/commit", "drop after"), "True"),  # committed once
        (Fault("POST /v1/xorbs", 503), "True"),
        (Fault("POST /v2/shards", "drop before"), "True"),
        (Fault("GET /api/datasets/user/set/xet-write-token", 403, times=1000), "the token may not do this: make one"),
    ],
)
def test_by_xet(fault, said, tmp_path):
    with serve() as hub:
        hub.faults = [fault] if fault else []
        environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
        command = [sys.executable, "-c", XET]
        done = subprocess.run(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "0", **environment},
            cwd=ROOT / "tests",
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert said in done.stdout, done.stderr[-2000:]
        repo = hub.repos["datasets", "user/set"]
        is_there = said == "True"
        assert (len(repo.commits), list(repo.tags)) == ((2, ["v1.0"]) if is_there else (1, []))
        assert bool(hub.chunks) == is_there and not any("/lfs/" in request for request in hub.requests)


def test_only_the_set_is_published_and_nothing_of_this_machine(published, hub, folder):
    files = hub.files("datasets", "user/set")
    assert set(files) == {".gitattributes", "README.md", "data/train-00000-of-00001.parquet", "preview.png",
                          "lgm_config.json", "results.json"}  # fmt: skip
    for secret in (TOKEN, str(Path.home()), str(folder.parent)):
        assert all(secret.encode() not in data for data in files.values()), secret
    texts = [data.decode() for path, data in files.items() if path.endswith((".md", ".json"))]
    assert not re.search(rf"\b{re.escape(platform.node())}\b", "".join(texts))
    assert TOKEN not in published.stdout + published.stderr


def test_the_snippet_of_the_card_runs_and_gives_our_accuracy(published, elsewhere, hub, folder, model_folder, splits):
    card = hub.files("datasets", "user/set")["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippet.splitlines()) <= 15
    printed = elsewhere("-c", snippet).stdout
    ours = evaluate_probe(model_folder, DistilledSet.from_pretrained(folder), splits["test"])
    assert printed == f"{ours.mean:.1f} ± {ours.std:.1f} %\n"


def test_the_probe_is_a_model_for_pipelines(elsewhere, hub, folder, tmp_path):
    flags = ["--folder", folder, "--probe", "--repo_id", "user/probe", "--output_dir", tmp_path / "probe"]
    done = elsewhere(ROOT / "scripts" / "publish.py", *flags)
    assert f"Published: {hub.url}/user/probe" in done.stdout
    assert set(hub.files("models", "user/probe")) >= {"config.json", "model.safetensors", "preprocessor_config.json"}
    classify = pipeline("image-classification", model=str(tmp_path / "probe"))
    assert set(answer["label"] for answer in classify(make_set().dataset[0]["image"])) == set(make_set().class_names)
    card = hub.files("models", "user/probe")["README.md"].decode()
    assert "base_model: user/open" in card and "datasets:\n- user/open" in card


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Expected --folder FOLDER, and --repo_id USER/NAME to publish"),
        (["--folder", "./absent", "--repo_id", "user/set"], "there is no folder './absent'"),
        (["--folder", ".", "--repo_id", "user/set"], "is not a distilled set: it has no data/train-00000"),
        (["--foldr", "x"], "'--foldr' is no flag. Did you mean --folder?"),
    ],
)
def test_what_can_not_be_published(monkeypatch, flags, message):
    monkeypatch.setattr(sys, "argv", ["publish.py", *flags])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "scripts" / "publish.py"), run_name="__main__")
    assert message in str(exit_.value.code)
