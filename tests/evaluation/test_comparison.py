"""Tables over sets and backbones, and the transfer matrix."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from PIL import Image as PILImage

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, Preprocessing, ProbeProtocol, transfer_matrix
from hf_lgm.evaluation.comparison import Comparison, compare
from hf_lgm.evaluation.transfer import mutual_knn_alignment
from hf_lgm.evaluation.transfer_plot import save_transfer
from hf_lgm.publishing.comparison_figure import _LINE, _ROW, _SIDE
from hf_lgm.publishing.figures import GAP
from hf_lgm.publishing.results import ProbeResult

QUICK = ProbeProtocol(epochs=30, learning_rate=1e-2, seeds=2)


class Fails(torch.nn.Module):
    """Works when it is tried, and no more."""

    tries = 1

    def forward(self, pixels):
        if Fails.tries == 0:
            raise RuntimeError("out of order")
        Fails.tries = 0
        return pixels.flatten(1)


def make_backbone(seed, name):
    return FrozenBackbone(make_vit(seed), Preprocessing(SIDE, resize_ratio=1.0), name=name)


def make_set(backbone, seed=0, per_class=1):
    """Blurred colours in place of distilled images."""
    labels = [label for label in range(3) for _ in range(per_class)]
    pixels = torch.rand(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    names = [f"class {label}" for label in range(3)]
    return DistilledSet.from_pixels(pixels, labels, names, {"backbone": {"name": backbone.name}})


@pytest.fixture
def real():
    return LabelledImages.from_dataset(make_dataset(seed=1))


@pytest.fixture
def backbones():
    return [make_backbone(seed, f"vit-{seed}") for seed in range(3)]


def test_sets_baselines_and_references_through_backbones(backbones, train_images, real, tmp_path):
    sets = {"a": make_set(backbones[0]), "b": make_set(backbones[1], 1), "five": make_set(backbones[0], 2, 5)}
    kinds = ["random", "centroid", "neighbor", "matched", "kmeans", "herding"]
    comparison = compare(sets, backbones[:2], train_images, real, baselines=kinds, protocol=QUICK)
    rows = list(dict.fromkeys(result.training_set for result in comparison.results))
    assert rows == [
        *("random real images", "centroid real images", "neighbours of a", "neighbours of b", "matched real images"),
        *("random real images, 5 per class", "centroid real images, 5 per class", "neighbours of five"),
        *("matched real images, 5 per class", "k-means real images, 5 per class", "herding real images, 5 per class"),
        *("a", "b", "five", "nearest class mean", "probe on class means", "k nearest neighbours"),
        *("ridge regression", "discriminant analysis", "all real images"),
    ]
    assert len(comparison.results) == 2 * len(rows) and comparison.backbones == ["vit-0", "vit-1"]
    assert {result.protocol for result in comparison.results if result.training_set in ("a", "five")} == {
        f"{QUICK.description}, crops of 0.08 to 1, flips"
    }
    lines = comparison.table().splitlines()
    assert lines[0].split() == ["|", "trained", "on", "|", "vit-0", "|", "vit-1", "|"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 2 + len(rows)
    assert lines[-1].count("±") == 0 and lines[2].count("±") == 2
    assert comparison.save_figure(tmp_path / "c.png", comparison.backbones).stat().st_size > 0
    assert comparison.transfer.backbones == ["vit-0", "vit-1"]
    top1 = {(result.training_set, result.backbone): result.mean for result in comparison.results}
    expected = [[top1["a", "vit-0"], top1["a", "vit-1"]], [top1["b", "vit-0"], top1["b", "vit-1"]]]
    assert comparison.transfer.accuracy.tolist() == torch.tensor(expected).tolist()


def test_random_images_are_drawn_anew_for_each_seed(backbones, train_images, real):
    comparison = compare({"a": make_set(backbones[0])}, backbones[:1], train_images, real, protocol=QUICK)
    assert comparison.sets["random real images"].dataset["source_index"][:]


def test_transfer_below_random_images_is_warned_of(backbones):
    results = [
        ProbeResult("random real images", "vit-0", "", {"top-1": [50.0, 52.0]}),
        ProbeResult("bad", "vit-0", "", {"top-1": [40.0, 41.0]}),
        ProbeResult("within its spread", "vit-0", "", {"top-1": [48.0, 53.0]}),
    ]
    sets = {"bad": make_set(backbones[0]), "within its spread": make_set(backbones[0])}
    warnings = Comparison(sets, results).warnings()
    assert warnings == ["'bad' is worse than random real images on vit-0, 40.5 against 51.0 %: use those there."]


def test_a_backbone_that_fails_leaves_the_others_columns(backbones, train_images, real, caplog):
    Fails.tries = 1
    broken = FrozenBackbone(Fails(), Preprocessing(SIDE, resize_ratio=1.0), name="broken")
    sets = {"a": make_set(backbones[0])}
    comparison = compare(sets, [broken, backbones[0]], train_images, real, protocol=QUICK)
    assert comparison.failures == {"broken": "out of order"} and "broken failed" in caplog.text
    assert comparison.backbones == ["vit-0"]
    assert all("failed" in line for line in comparison.table().splitlines()[2:])
    with pytest.raises(ValueError, match="No backbone could be evaluated: out of order"):
        compare(sets, [broken], train_images, real, protocol=QUICK)


class Raises(torch.nn.Module):
    """What the model of another library may do."""

    tries = 1

    def forward(self, pixels):
        Raises.tries -= 1
        if Raises.tries < 0:
            raise KeyError("no such thing")
        return pixels.flatten(1)


def test_whatever_a_model_raises(backbones, train_images, real):
    broken = FrozenBackbone(Raises(), Preprocessing(SIDE, resize_ratio=1.0), name="broken")
    comparison = compare({"a": make_set(backbones[0])}, [backbones[0], broken], train_images, real, protocol=QUICK)
    assert list(comparison.failures) == ["broken"] and comparison.backbones == ["vit-0"]


def test_the_picture_has_each_class_under_its_name(backbones, train_images, real, tmp_path):
    """Though one of the sets numbers them otherwise."""
    names = [f"class {label}" for label in range(3)]
    pixels = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, SIDE, SIDE)
    sets = {
        "a": DistilledSet.from_pixels(pixels, [0, 1, 2], names),
        "b": DistilledSet.from_pixels(pixels.flip(0), [0, 1, 2], names[::-1]),
    }
    comparison = compare(sets, backbones[:1], train_images, real, baselines=[], references=[], protocol=QUICK)
    picture = np.array(PILImage.open(comparison.save_figure(tmp_path / "c.png", comparison.backbones)))
    rows = [picture[2 * _LINE + _ROW * row + _SIDE // 2] for row in range(2)]
    columns = [GAP + (_SIDE + GAP) * column + _SIDE // 2 for column in range(3)]
    assert [[int(row[column][0]) for column in columns] for row in rows] == [[0, 128, 255], [0, 128, 255]]


def test_bad_input_is_refused_before_anything_is_encoded(train_images, real, backbones):
    Fails.tries = 1
    broken = FrozenBackbone(Fails(), Preprocessing(SIDE, resize_ratio=1.0), name="broken")
    other = DistilledSet.from_pixels(torch.rand(2, 3, SIDE, SIDE), [0, 1], ["class 0", "class x"])
    with pytest.raises(
        ValueError, match="'other' has other classes than the dataset: missing class 1, class 2; additional class x"
    ):
        compare({"other": other}, [broken], train_images, real)
    with pytest.raises(
        ValueError, match="images_per_class=9 is more than the 8 real images of class 'class 0'. baselines="
    ):
        compare({"a": make_set(backbones[0], 0, 9)}, [broken], train_images, real)
    uneven = DistilledSet.from_pixels(torch.rand(4, 3, SIDE, SIDE), [0, 0, 1, 2], real.class_names)
    with pytest.raises(ValueError, match="'uneven' has 1 to 2 images of a class: expected as many of each"):
        compare({"uneven": uneven}, [broken], train_images, real)
    with pytest.raises(ValueError, match="Expected some of random, centroid, .*; found best"):
        compare({"a": make_set(backbones[0])}, [broken], train_images, real, baselines=["best"])


def test_transfer_takes_the_number_of_images_that_most_backbones_made(backbones, train_images, real):
    sets = {"five": make_set(backbones[0], 2, 5), "a": make_set(backbones[0]), "b": make_set(backbones[1], 1)}
    settings = {"baselines": [], "protocol": QUICK}
    matrix = compare(sets, backbones, train_images, real, **settings).transfer
    assert matrix.backbones == ["vit-0", "vit-1"]
    assert compare({"a": sets["a"]}, backbones, train_images, real, **settings).transfer is None


def test_transfer_needs_a_set_for_each_backbone(backbones, train_images, real):
    with pytest.raises(ValueError, match="one set for each backbone, found 1 for 3"):
        transfer_matrix([make_set(backbones[0])], backbones, train_images, real)
    exchanged = [make_set(backbones[1]), make_set(backbones[0])]
    with pytest.raises(ValueError, match="distilled through vit-1 stands at the place of vit-0"):
        transfer_matrix(exchanged, backbones[:2], train_images, real)


@pytest.mark.parametrize(("name", "value"), [("revision", "a"), ("pooling", "mean"), ("image_size", 8)])
def test_another_state_of_a_backbone_is_another_one(backbones, train_images, real, caplog, name, value):
    own, backbones[0].revision = backbones[:2], "b"
    sets = {title: make_set(backbone) for title, backbone in zip("ab", own, strict=True)}
    sets["a"].config["backbone"] = {**own[0].describe(), name: value}
    with pytest.raises(ValueError, match=rf"through vit-0 stands at the place of vit-0 \({name} {value}, not "):
        transfer_matrix(list(sets.values()), own, train_images, real)
    assert compare(sets, own, train_images, real, baselines=[], protocol=QUICK).transfer is None
    assert f"'a' is left out of the transfer matrix: it was made with {name} {value}, not" in caplog.text
    rounded = {"mean": [round(value, 6) for value in own[0].preprocessing.mean]}  # as earlier versions wrote it
    sets["a"].config["backbone"] = {**own[0].describe(), "dtype": "bfloat16", "resize_ratio": 0.5, **rounded}
    assert compare(sets, own, train_images, real, baselines=[], protocol=QUICK).transfer is not None


def test_columns_of_equal_last_parts_have_their_whole_names(backbones, train_images, real):
    backbones[0].name, backbones[1].name = "maker/vit", "other/vit"
    found = compare({"a": make_set(backbones[0])}, backbones, train_images, real, baselines=[], protocol=QUICK)
    assert "| maker/vit" in found.table() and "| other/vit" in found.table()
    backbones[1].name = "maker/vit"
    with pytest.raises(ValueError, match="Two backbones have the same name: maker/vit, maker/vit"):
        compare({"a": make_set(backbones[0])}, backbones, train_images, real)


def test_transfer_takes_names_and_datasets(model_folder, splits, tmp_path):
    images = make_set(SimpleNamespace(name="tiny-dinov2")).save_pretrained(tmp_path)
    matrix = transfer_matrix([str(images)], [model_folder], splits["train"], splits["test"], protocol=QUICK)
    assert matrix.backbones == ["tiny-dinov2"] and matrix.accuracy.shape == (1, 1)


def test_transfer_matrix(backbones, train_images, real, tmp_path):
    sets = [make_set(backbone, seed) for seed, backbone in enumerate(backbones)]
    matrix = transfer_matrix(sets, backbones, train_images, real, protocol=QUICK)
    assert matrix.accuracy.shape == matrix.alignment.shape == (3, 3) and matrix.families == ["Dinov2Model"] * 3
    torch.testing.assert_close(matrix.share, matrix.accuracy / matrix.full_data[None])
    assert matrix.alignment.diagonal().tolist() == [1.0] * 3
    torch.testing.assert_close(matrix.alignment, matrix.alignment.T)
    squares = torch.stack([torch.from_numpy(_array(real, row)) for row in range(len(real))])
    z_a, z_b = backbones[0].encode(squares), backbones[1].encode(squares)
    assert matrix.alignment[0, 1] == pytest.approx(mutual_knn_alignment(z_a, z_b))
    assert "over 6 pairs" in matrix.claim and "no claim" in matrix.claim
    read = json.loads(json.dumps(matrix.to_dict()))
    assert read["backbones"] == ["vit-0", "vit-1", "vit-2"] and read["claim"] == matrix.claim
    assert len(matrix.table().splitlines()) == 6
    assert save_transfer(matrix, tmp_path / "transfer.png").stat().st_size > 0


def _array(images, row):
    return np.array(images.image(row)).transpose(2, 0, 1)
