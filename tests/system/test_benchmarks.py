"""The scripts in benchmarks/, small."""

import copy
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, make_dataset
from datasets import DatasetDict, load_from_disk
from oracle import MEAN, STD, Oracle
from views import written_out

from hf_lgm import LabelledImages, load_images, select_baseline
from hf_lgm.distillation.objectives import LabelledFeatures, probe_gradient, uniform_weights


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


@pytest.fixture
def photos(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import spurious_photos

    return spurious_photos


def with_domains(per_pair, classes=3, domains=2):
    """As many images of each class and domain."""
    dataset = make_dataset(per_class=per_pair * domains, classes=classes)
    names = [f"domain {row % domains}" for row in range(len(dataset))]
    return dataset.add_column("domain", names)


@pytest.mark.parametrize(
    ("room", "correlation", "size", "planted"),
    [
        ([[90, 90], [90, 90]], 0.95, 95, [[90, 5], [5, 90]]),
        ([[10, 10, 10], [10, 10, 10]], 0.4, 26, [[10, 8, 8], [8, 10, 8]]),
        ([[10, 1, 10], [10, 10, 10]], 0.5, 21, [[10, 1, 10], [6, 10, 5]]),  # as even as there are images for it
        ([[30, 3], [4, 30]], 0.5, 7, [[4, 3], [3, 4]]),  # the smallest decides
        ([[30, 0], [0, 30]], 1.0, 30, [[30, 0], [0, 30]]),
        ([[0, 30], [9, 30]], 0.9, 0, None),  # a class without its domain
    ],
)
def test_how_many_images_are_planted(photos, room, correlation, size, planted):
    assert photos.class_size(room, correlation) == size
    if size:
        assert photos.planted_counts(room, size, correlation) == planted


def test_both_parts_have_the_same_number_of_each_class(photos):
    train = LabelledImages.from_dataset(with_domains(10), group_column_name="domain")
    parts = photos.subsets(train, 0.9, seed=0)
    for part in parts.values():
        assert torch.bincount(part.labels).tolist() == [11, 11, 11] and len(part.rows.unique()) == 33
    own = {name: (part.groups == part.labels % 2).float().mean().item() for name, part in parts.items()}
    assert own["planted"] == pytest.approx(10 / 11) and 0.4 < own["unplanted"] < 0.6
    again = photos.subsets(train, 0.9, seed=0)
    assert all(torch.equal(again[name].rows, part.rows) for name, part in parts.items())
    with pytest.raises(ValueError, match="--group_column_name: name the column of the domains"):
        photos.subsets(LabelledImages.from_dataset(make_dataset()), 0.9, seed=0)


@pytest.mark.slow
def test_spurious_photos(model_folder, tmp_path):
    """Each row is there once; a second call computes none again, another setting all of them."""
    DatasetDict(train=with_domains(8), test=with_domains(2)).save_to_disk(tmp_path / "data")
    where = ["--model", model_folder, "--dataset", "data", "--group_column_name", "domain", "--output_dir", "out"]
    small = ["--max_steps", 2, "--views_per_step", 2, "--eval_seeds", 2, "--disable_tqdm", "true"]
    printed = run("spurious_photos.py", *where, *small, cwd=tmp_path)
    assert printed.count("\n|") == 7 and "| distilled images, unplanted " in printed
    found = json.loads((tmp_path / "out" / "spurious_photos.json").read_text())
    assert found["domains"] == {"class 0": "domain 0", "class 1": "domain 1", "class 2": "domain 0"}
    assert all({"top-1", "worst group"} <= row["accuracies"].keys() for row in found["rows"])
    assert (tmp_path / "out" / "spurious_photos.png").stat().st_size > 0
    kept = tmp_path / "out" / "tiny-dinov2-planted-distilled-images.json"
    changed = kept.stat().st_mtime_ns
    assert run("spurious_photos.py", *where, *small, cwd=tmp_path) == printed and kept.stat().st_mtime_ns == changed
    run("spurious_photos.py", *where, *small, "--seed", 7, cwd=tmp_path)
    assert kept.stat().st_mtime_ns != changed


def test_protocols(model_folder, dataset_folder, tmp_path, train_images, backbone):
    images = select_baseline("random", backbone, train_images)
    folder = images.save_pretrained(tmp_path / "set")
    where = ["--model", model_folder, "--dataset", dataset_folder, "--output_dir", tmp_path]
    printed = run("protocols.py", "--sets", folder, *where, cwd=tmp_path)
    assert "| set | tiny-dinov2 | " in printed
    (found,) = json.loads((tmp_path / "protocols.json").read_text())
    assert [row["protocol"] for row in found["rows"]] == ["fast", "fresh views, lr of fast", "paper"]
    assert found["rows"][1]["mean"] > found["rows"][2]["mean"]  # at the paper's rate, three images have not converged


@pytest.mark.slow
def test_speed(tmp_path):
    flags = [
        "--photo_sides",
        64,
        "--architecture",
        "mobilenet",
        "--parts",
        "step",
        "chunks",
        "scale",
        "extraction",
        "--steps",
        1,
    ]
    sizes = ["--classes", 2, "--chunked_classes", 14, "--scales", "2x2x1", "--reference_scales", "2x2x1"]
    printed = run("speed.py", *flags, *sizes, "--images", 70, cwd=tmp_path)
    assert "| ours, one chunk | " in printed and "| reference | 2 | 2 | 1 | " in printed
    found = json.loads((tmp_path / "speed.json").read_text())
    rows = {row["what"]: row for row in found["step"]}
    assert rows["reference"]["seconds"] > rows["limit"]["seconds"] > 0
    assert all(row["peak"] >= 0 for row in found["step"] if "peak" in row)
    assert found["chunks"][0]["chunk"] == 12 and found["chunks"][0]["times the limit"] > 1


REFERENCES = [f"reference{what}" for what in ("", ", our lr and growth", ", our lr, growth and cached features")]


@pytest.mark.slow
def test_accuracy(model_folder, dataset_folder, tmp_path):
    """Both learn: with three classes, chance is a third."""
    where = [
        "--model",
        model_folder,
        "--dataset",
        dataset_folder,
        "--output_dir",
        tmp_path / "runs",
        "--eval_seeds",
        1,
    ]
    run("accuracy.py", *where, "--step_limit", 50, "--disable_tqdm", "true", cwd=tmp_path)
    curves = json.loads((tmp_path / "runs" / "accuracy.json").read_text())["curves"]
    assert list(curves) == ["ours", *REFERENCES]
    assert all([point["step"] for point in curve] == [25, 50] for curve in curves.values())
    assert all(curve[1]["seconds"] > curve[0]["seconds"] > 0 for curve in curves.values())
    assert (tmp_path / "runs" / "accuracy.png").stat().st_size > 0


@pytest.mark.slow
def test_objectives(model_folder, tmp_path):
    """Each row is there once, with its runs; a second call computes what is missing alone."""
    DatasetDict(train=make_dataset(12), test=make_dataset(2, seed=1)).save_to_disk(tmp_path / "colours")
    shutil.copytree(model_folder, tmp_path / "another")
    sizes = ["--image_size", 16, "--steps", 2, "--output_dir", "vae"]
    run("autoencoder.py", "--dataset", "colours", *sizes, cwd=tmp_path)
    where = ["--model", model_folder, "another", "--dataset", "colours", "--output_dir", "table"]
    small = ["--step_limit", 2, "--eval_seeds", 2, "--disable_tqdm", "true", "--autoencoder", "vae"]
    printed = run("objectives.py", *where, *small, "--rows", "one image:", cwd=tmp_path)
    assert printed.count("\n|") == 5  # a rule, the part and its three rows
    kept = tmp_path / "table" / "row-00.json"
    changed = kept.stat().st_mtime_ns
    printed = run("objectives.py", *where, *small, cwd=tmp_path)
    assert kept.stat().st_mtime_ns == changed
    found = json.loads((tmp_path / "table" / "objectives.json").read_text())["rows"]
    assert len(found) == len({(row["part"], row["name"]) for row in found}) > 10
    held_out = ["--held_out", "true", "--run_seeds", 7, 8, "--rows", "one image: ridge", "--output_dir", "chosen"]
    run("objectives.py", *where, *small, *held_out, cwd=tmp_path)  # the last of two --output_dir counts
    (chosen,) = json.loads((tmp_path / "chosen" / "objectives.json").read_text())["rows"]
    assert len(chosen["seconds"]) == 2
    made = json.loads((tmp_path / "chosen" / "row-01" / "seed-8" / "lgm_config.json").read_text())
    assert made["source"]["num_images"] == 30 and made["settings"]["seed"] == 8  # of 36, six are held out
    assert len(found[0]["seconds"]) == 3 and all(len(runs[0]) == 2 for row in found for runs in row["top1"].values())


@pytest.fixture
def reference_class(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from reference import Reference

    return Reference


def test_the_reference_does_what_the_package_does(reference_class):
    """The gradient that it takes by two backward passes is the one in closed form."""
    torch.manual_seed(0)
    W = torch.randn(3 * 4 * 4, 5)
    real = torch.randint(0, 255, (12, 3, 4, 4), dtype=torch.uint8)
    reference = reference_class(lambda x: x.flatten(1) @ W, real, torch.arange(12) % 3, 4, views=2)
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    probe = reference._probe()
    z = torch.rand(6, 3, 4, 4)
    found = reference._gradient(reference.encode(z), y, probe, True).detach()
    features = LabelledFeatures(z.flatten(1) @ W, y, uniform_weights(y))
    expected = probe_gradient(features, probe.weight.detach())
    torch.testing.assert_close(found[:15].view(3, 5), expected[:, :5])
    torch.testing.assert_close(found[15:], expected[:, 5])
    colours = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250]], dtype=torch.uint8)[torch.arange(12) % 3]
    real = colours[:, :, None, None].expand(12, 3, 4, 4).contiguous()
    reference = reference_class(reference.encode, real, torch.arange(12) % 3, 4, learning_rate=0.05, growth_steps=20)
    losses = torch.stack([reference.step() for _ in range(100)])
    assert losses[-20:].mean() < 0.5 * losses[:20].mean() and len(reference.levels) == 3
    cached, probe = torch.randn(12, 5), reference._probe()
    reference = reference_class(reference.encode, real, torch.arange(12) % 3, 4, cached=cached)
    z, y = reference._real_features(6)
    assert z is cached and len(y) == 12  # all of them in every step


def test_the_references_step_is_the_papers(reference_class):
    """Given the same random numbers and levels, in float32: the loss, the gradients, and when a level joins."""
    real = torch.randint(0, 256, (20, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 5, stride=3), torch.nn.GELU(), torch.nn.Flatten())
    oracle = Oracle(copy.deepcopy(model).double(), real, torch.arange(20) % 3, 12, views=2, growth_steps=5, seed=3)

    class Fed(reference_class):
        def start_as_the_oracle(self):
            for level, wanted in zip(self.levels, oracle.levels, strict=True):
                level.data.copy_(wanted.detach())

        def _grow(self):
            super()._grow()
            self.start_as_the_oracle()

        def _next_rows(self, count):
            return oracle.rows()

        def _probe(self):
            probe = torch.nn.Linear(oracle.dim, 3)
            probe.weight.data, probe.bias.data = (parameter.detach().float() for parameter in oracle.probe())
            return probe

        def _view(self, images):
            if images.requires_grad:
                return written_out(images[::2], range(3), 2, 12, oracle.seed, oracle.steps)
            return written_out(images, oracle.rows().tolist(), 1, 12, oracle.seed, oracle.steps, "real views")

    mean, std = MEAN.float(), STD.float()
    reference = Fed(lambda x: model((x - mean) / std), real, oracle.labels, 12, views=2, growth_steps=5)
    for _ in range(26):
        if len(reference.levels) == len(oracle.levels):  # else the next one joins in this step
            reference.start_as_the_oracle()
        loss = reference.step()
        expected, gradients = oracle.step()
        torch.testing.assert_close(loss.double(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close([level.grad.double() for level in reference.levels], gradients, rtol=0, atol=1e-6)


def test_the_references_views_are_not_bounded_by_the_image(reference_class):
    """White images; of the views without noise a seventh reach beyond, as their middle lines show."""
    white = torch.full((3000, 3, 16, 16), 255, dtype=torch.uint8)
    reference = reference_class(lambda x: x.flatten(1), white, torch.arange(3000) % 3, 32)
    views = reference._view(white.float() / 255)
    quiet = views[views.amax(dim=(1, 2, 3)) < 1.0001]
    darkest = torch.minimum(quiet[:, 0, 16].amin(dim=1), quiet[:, 0, :, 16].amin(dim=1))
    assert 1300 < len(quiet) < 1700 and 0.09 < (darkest < 0.5).float().mean() < 0.15


def test_every_part_is_timed_at_every_number_of_images(tmp_path):
    small = ["--rows", 60, 90, "--classes", 3, "--dim", 4, "--eval_rows", 5, "--steps", 1, "--output", "many.json"]
    table = run("many_images.py", *small, cwd=tmp_path)
    rows = json.loads((tmp_path / "many.json").read_text())["rows"]
    assert len(rows) == 12 and all(row["60"] > 0 and row["90"] > 0 for row in rows)
    assert "| objective ridge, a step |" in table and "| 20 nearest neighbours |" in table


@pytest.mark.slow
def test_a_plan_is_beside_what_it_came_to(tmp_path):
    case = ["--cases", "lgm on the features alone", "--classes", 2, "--per_class", 4, "--steps", 2]
    table = run("plan.py", *case, cwd=tmp_path)
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["steps, s", "in all, s", "memory, GB"]
    assert all(row["planned / found"] == pytest.approx(row["planned"] / row["found"]) for row in rows)
    assert "| lgm on the features alone | in all, s |" in table
