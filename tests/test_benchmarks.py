"""The scripts in benchmarks/, small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from datasets import load_from_disk

from hf_lgm import load_images, select_baseline

ROOT = Path(__file__).parent.parent


def run(script, *flags, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, flags)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_background_gives_the_class_away_in_training_and_misleads_in_half_of_the_test(tmp_path):
    run("spurious_digits.py", "--output_dir", "digits", cwd=tmp_path)
    shares = []
    for split in load_from_disk(str(tmp_path / "digits")).values():
        corners = np.array([np.asarray(image)[0, 0] for image in split["image"][:]], dtype=int)
        labels, groups = np.array(split["label"][:]), np.array(split["background"][:])
        # The colour of a class: that of most of its images with "its own" background and no ink in the corner.
        own = np.array([np.median(corners[(labels == label) & (groups == 0)], axis=0) for label in range(10)])
        assert len({tuple(colour) for colour in own.tolist()}) == 10
        nearest = np.abs(corners[:, None] - own).sum(axis=2).argmin(axis=1)
        assert ((nearest == labels) == (groups == 0)).mean() > 0.95  # some have ink in the corner
        shares.append(groups.mean())
    assert 0.03 < shares[0] < 0.07 and 0.4 < shares[1] < 0.6
    _, real = load_images(str(tmp_path / "digits"), group_column_name="background")
    assert real.group_names == ["of its class", "of another class"]


def test_protocols(model_folder, dataset_folder, tmp_path, train_images, backbone):
    images = select_baseline("random", backbone, train_images)
    folder = images.save_pretrained(tmp_path / "set")
    where = ["--model", model_folder, "--dataset", dataset_folder, "--output_dir", tmp_path]
    printed = run("protocols.py", "--sets", folder, *where, cwd=tmp_path)
    assert "| set | tiny-dinov2 | " in printed
    (found,) = json.loads((tmp_path / "protocols.json").read_text())
    assert [row["protocol"] for row in found["rows"]] == ["fast", "fresh views, lr of fast", "paper"]
    assert found["rows"][1]["mean"] > found["rows"][2]["mean"]  # at the paper's rate, three images have not converged
