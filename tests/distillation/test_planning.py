"""What a distillation is said to cost, before anything is done."""

import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SIDE
from datasets import load_dataset
from diffusers import AutoencoderTiny
from hub_server import serve

from hf_lgm import LGMConfig
from hf_lgm.distillation import planning
from hf_lgm.distillation.planning import DatasetSize, plan


@pytest.mark.parametrize(
    ("size", "processes"),
    [(DatasetSize(1_000, 1_281_167, 50_000), 1), (DatasetSize(21_841, 14_197_122, 0, 2**40), 8)],
)
def test_imagenet(backbone, tmp_path, size, processes):
    args = LGMConfig(str(tmp_path), save_total_limit=2)
    found = plan(backbone, args, size, processes)
    own = -(-size.num_classes // processes)
    assert (found.num_images, found.chunk_size, found.steps) == (size.num_classes, 12, 300)
    features = (size.num_train + size.num_eval) * backbone.dim * 4
    pixels = 3 * SIDE**2 * 4
    assert features + own * pixels * 6 < found.memory_bytes < features + own * pixels * 12 + 2**28
    assert features + 2 * size.num_classes * pixels * 3 < found.disk_bytes
    assert found.step_seconds > 0 and found.extraction_seconds > 0
    assert found.seconds == 300 * found.step_seconds + found.extraction_seconds
    text = str(found)
    assert f"{size.num_train:,} to distil" in text and f"{size.num_classes:,}" in text
    assert ("on each of 8 processes" in text) == (processes == 8) and ("1024.0 GB" in text) == (processes == 8)
    assert 2**26 < found.libraries_bytes < 2**34  # this process, with torch in it
    assert f", {planning._amount(found.libraries_bytes)} of it for Python and its libraries" in text


def test_amounts_and_times_are_in_units_that_say_something():
    assert [planning._amount(size) for size in (0, 3 * 2**20, 2**30, 1.5 * 2**40)] == [
        "1 MB",
        "3 MB",
        "1.0 GB",
        "1536.0 GB",
    ]
    assert re.fullmatch(r"\d\d:\d\d( on \d\d \w+)?", planning._clock(60))
    assert re.fullmatch(r"\d\d:\d\d on \d\d \w+", planning._clock(2 * 86_400))


def test_twice_the_steps_and_half_the_processes_take_longer(backbone, tmp_path):
    size = DatasetSize(400, 10_000, 1_000)
    long = plan(backbone, LGMConfig(str(tmp_path), max_steps=3000), size)
    short = plan(backbone, LGMConfig(str(tmp_path), max_steps=300), size, num_processes=8)
    assert long.seconds > 5 * short.seconds and long.memory_bytes > short.memory_bytes


def test_the_memory_of_a_chunk_is_that_of_its_graph(backbone, tmp_path):
    """Twice the images at a time keep twice as much for the backward pass."""
    size = DatasetSize(100, 1, 0)
    one, two, four = (plan(backbone, LGMConfig(str(tmp_path), chunk_size=n), size).memory_bytes for n in (1, 2, 4))
    assert two > one and four - two == pytest.approx(2 * (two - one), rel=0.2)


def script(*flags, cwd, **environment):
    command = [sys.executable, str(ROOT / "scripts" / "distill.py"), "--plan", *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


def test_of_a_folder_nothing_is_written(model_folder, dataset_folder, tmp_path):
    done = script("--model", model_folder, "--dataset", dataset_folder, "--num_gpus", 2, cwd=tmp_path)
    assert "24 to distil, 24 to evaluate on" in done.stdout, done.stderr
    assert "3, 2 at a time on each of 2 processes" in done.stdout
    assert not list(tmp_path.iterdir())


def test_of_the_hub_nothing_is_downloaded(model_folder, dataset_folder, tmp_path):
    """The card says how many there are; one that does not is refused."""
    dataset = load_dataset(dataset_folder)
    folder = tmp_path / "set"
    lines = "".join(f"  - name: {name}\n    num_examples: {len(split)}\n" for name, split in dataset.items())
    names = "".join(f"          '{i}': class {i}\n" for i in range(3))
    for name, split in dataset.items():
        split.to_parquet(str(folder / "data" / f"{name}-00000-of-00001.parquet"))
    info = (
        "dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        f"      class_label:\n        names:\n{names}  splits:\n{lines}  download_size: 1073741824\n"
    )
    with serve() as hub:
        hub.add("datasets", "user/mute", folder)
        (folder / "README.md").write_text(f"---\n{info}---\n")
        hub.add("datasets", "user/photos", folder)
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = script("--model", model_folder, "--dataset", "user/photos", cwd=tmp_path, **environment)
        assert "24 to distil, 24 to evaluate on" in done.stdout, done.stderr[-2000:]
        assert "a download of 1.0 GB" in done.stdout
        refused = script("--model", model_folder, "--dataset", "user/mute", cwd=tmp_path, **environment)
        assert "does not say how many classes and images it has" in refused.stderr, refused.stderr[-2000:]
        assert not any("parquet" in request and request.startswith("GET") for request in hub.requests)


def test_random_images_leave_no_gradient_on_the_backbone(backbone, tmp_path):
    plan(backbone, LGMConfig(str(tmp_path)), DatasetSize(3, 10, 10))
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "settings",
    [{"objective": "ridge"}, {"images_per_class": 3}, {"images_per_class": 3, "objective": "ridge"}],
    ids=str,
)
def test_other_objectives_and_clusters_are_planned(backbone, tmp_path, settings):
    args = LGMConfig(str(tmp_path), views_per_step=2, **settings)
    found = plan([backbone, backbone], args, DatasetSize(20, 1000, 100))
    alone = plan(backbone, args, DatasetSize(20, 1000, 100))
    assert found.num_images == 20 * args.images_per_class
    assert found.memory_bytes > alone.memory_bytes and found.seconds > 0


def test_an_autoencoder_is_planned(backbone, tmp_path):
    AutoencoderTiny().save_pretrained(tmp_path / "vae")
    size, settings = DatasetSize(4, 100, 10), {"views_per_step": 1, "chunk_size": 4}
    latent = LGMConfig(str(tmp_path), parameterization="latent", vae=str(tmp_path / "vae"), **settings)
    plain, found = plan(backbone, LGMConfig(str(tmp_path), **settings), size), plan(backbone, latent, size)
    weights = sum(parameter.nbytes for parameter in AutoencoderTiny().parameters())
    assert found.memory_bytes > plain.memory_bytes + weights and found.step_seconds > plain.step_seconds


def test_ridge_takes_longer_the_more_real_images_there_are(backbone, tmp_path):
    """It scores its probe on all of them, in each step."""
    few, many = DatasetSize(10, 10_000, 0), DatasetSize(10, 2_000_000, 0)
    steps = {}
    for objective in ("lgm", "ridge"):
        args = LGMConfig(str(tmp_path), objective=objective)
        steps[objective] = [plan(backbone, args, size).step_seconds for size in (few, many)]
    assert steps["ridge"][1] - steps["ridge"][0] > 1.5 * (steps["lgm"][1] - steps["lgm"][0]) > 0
