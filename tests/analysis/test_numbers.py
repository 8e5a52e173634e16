"""The numbers of an analysis against the same computed another way, in float64."""

import math

import numpy as np
import pytest
import torch
from conftest import make_dataset

from hf_lgm import LabelledImages
from hf_lgm.analysis import projection
from hf_lgm.analysis.classes import class_accuracies, confusion_matrix
from hf_lgm.analysis.groups import group_accuracies, nearest_in_groups
from hf_lgm.analysis.projection import project
from hf_lgm.analysis.similarity import class_similarity, linear_weights
from hf_lgm.analysis.spectrum import compare_spectra, radial_power
from hf_lgm.evaluation.classifiers import logistic_regression

GENERATOR = torch.Generator().manual_seed(0)
Z, Y = torch.randn(60, 5, generator=GENERATOR), torch.arange(60) % 3
Z[:, 0] += 4.0 * Y
Z_SET, Y_SET = torch.stack([Z[Y == label].mean(dim=0) for label in range(3)]) + 0.5, torch.tensor([0, 1, 2])


def test_pca_is_that_of_an_eigendecomposition():
    found = project(Z, Y, Z_SET, Y_SET)
    z = Z.double().numpy()
    values, vectors = np.linalg.eigh(np.cov(z.T))
    largest = vectors[:, [-1, -2]]
    expected, expected_set = (z - z.mean(0)) @ largest, (Z_SET.double().numpy() - z.mean(0)) @ largest
    signs = np.sign((found.real.numpy() * expected).sum(0))  # of a component nobody decides
    assert found.real.numpy() * signs == pytest.approx(expected, abs=1e-9)
    assert found.synthetic.numpy() * signs == pytest.approx(expected_set, abs=1e-9)
    assert found.explained == pytest.approx(values[[-1, -2]] / values.sum())


def test_distances_to_class_means():
    moved = Z_SET[[0, 1, 1]]  # the third image lies where the second class is
    found = project(Z, Y, moved, Y_SET)
    assert found.nearest_is_own.tolist() == [True, True, False]
    z, means = Z.double().numpy(), [Z[Y == label].double().numpy().mean(0) for label in range(3)]
    for label in range(3):
        spread = np.linalg.norm(z[Y.numpy() == label] - means[label], axis=1).mean()
        away = np.linalg.norm(moved[label].double().numpy() - means[label])
        assert float(found.relative_distance[label]) == pytest.approx(away / spread, rel=1e-5)


def test_a_class_without_real_images_has_no_distance():
    found = project(Z[Y < 2], Y[Y < 2], Z_SET, Y_SET)
    assert found.nearest_is_own.tolist() == [True, True, False]
    assert found.relative_distance.isnan().tolist() == [False, False, True]


def test_many_real_images_are_drawn_by_a_sample_and_fitted_by_all():
    few, all_of_them = project(Z, Y, Z_SET, Y_SET, max_points=7), project(Z, Y, Z_SET, Y_SET)
    assert (len(few.real), len(few.real_labels)) == (7, 7)
    assert torch.equal(few.synthetic, all_of_them.synthetic)


def test_umap_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"projection='umap' needs a package .*: pip install 'hf_lgm\[umap\]'"):
        project(Z, Y, Z_SET, Y_SET, "umap")


@pytest.mark.filterwarnings("ignore")  # of numba
def test_umap_where_it_is():
    pytest.importorskip("umap", reason="the umap extra is not installed")
    found = project(Z, Y, Z_SET, Y_SET, "umap")
    assert (found.real.shape, found.synthetic.shape, found.explained) == ((60, 2), (3, 2), [])


def test_cosines_and_their_rank_correlation():
    W_set, W_full = torch.randn(2, 5, 4, generator=GENERATOR), torch.randn(5, 4, generator=GENERATOR)
    found = class_similarity(W_set, W_full)

    def cosines(W):
        W = W.double().numpy()
        W = W - W.mean(0)
        return W @ W.T / np.outer(np.linalg.norm(W, axis=1), np.linalg.norm(W, axis=1))

    expected, full = (cosines(W_set[0]) + cosines(W_set[1])) / 2, cosines(W_full)
    assert found.of_set.numpy() == pytest.approx(expected) and found.of_full.numpy() == pytest.approx(full)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    ranks = [np.argsort(np.argsort([values[pair] for pair in pairs])) for values in (expected, full)]
    assert found.rho == pytest.approx(np.corrcoef(*ranks)[0, 1])
    best = max(pairs, key=lambda pair: full[pair])
    assert found.most_alike(list("abcde"))[0]["classes"] == ["abcde"[best[0]], "abcde"[best[1]]]


def test_two_classes_have_one_pair_and_no_correlation():
    found = class_similarity(torch.randn(1, 2, 4), torch.randn(2, 4))
    assert math.isnan(found.rho)
    assert found.to_dict(["a", "b"])["rank_correlation"] is None


def test_weights_of_a_linear_classifier_from_its_logits():
    logits = logistic_regression(Z, Y, 3)(1e-2)
    W = linear_weights(lambda z: logits(z)[None], 5, Z.device)
    offset = logits(torch.zeros(1, 5))
    assert Z @ W.T + offset == pytest.approx(logits(Z), abs=1e-4)


def test_confusions_and_the_classes_that_lose_most():
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    of_set = torch.tensor([[0, 0, 1, 2, 1, 1, 1, 1], [0, 1, 1, 2, 1, 1, 1, 1]])
    of_full = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0]])
    ours, full = (confusion_matrix(predicted, y, 3) for predicted in (of_set, of_full))
    assert ours.tolist() == [[0.375, 0.375, 0.25], [0, 1, 0], [0, 0, 0]]
    worst, best = class_accuracies(ours, full, ["a", "b", "absent"])
    assert worst.to_dict() == {
        "class": "a", "set": 37.5, "all_real_images": 75.0, "loss": 37.5, "taken_for": "b", "taken_share": 37.5
    }  # fmt: skip
    assert best.to_dict() == {
        "class": "b", "set": 100.0, "all_real_images": 50.0, "loss": -50.0, "taken_for": None, "taken_share": 0.0
    }  # fmt: skip


def grouped_images():
    dataset = make_dataset(per_class=4, classes=2).add_column("place", ["land", "sea"] * 4)
    return LabelledImages.from_dataset(dataset, group_column_name="place")


def test_accuracies_of_groups_and_the_nearest_real_images():
    images = grouped_images()
    of_set = torch.tensor([[0, 1, 0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1, 0, 1]])
    of_full = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 0]])
    z = torch.tensor([[1.0, 0], [0, 2], [3, 1], [1, 1], [-1, 0], [0, -1], [-1, -2], [-3, 1]], dtype=torch.float64)
    nearest = nearest_in_groups(images, z, torch.tensor([[1.0, 0.9], [-1, -1]]), torch.tensor([0, 1]), size=8)
    found = [each.to_dict() for each in group_accuracies(images, of_set, of_full, nearest)]
    assert [list(each.values())[:5] for each in found] == [
        ["class 0", "land", 75.0, 100.0, 2],
        ["class 0", "sea", 25.0, 100.0, 2],
        ["class 1", "land", 50.0, 100.0, 2],
        ["class 1", "sea", 100.0, 50.0, 2],
    ]
    # by hand: of rows 0 and 2 the cosine with (1, 0.9) is 0.743 and 0.917, of 1 and 3 0.669 and 0.999, and so on
    assert [each["nearest_real_row"] for each in found] == [2, 3, 6, 5]
    assert [each["similarity"] for each in found] == pytest.approx([0.9168, 0.9986, 0.9487, 0.7071], abs=1e-4)
    assert nearest["class 0", "sea"][2].size == (8, 8)


def test_no_groups():
    images = LabelledImages.from_dataset(make_dataset(per_class=2))
    assert group_accuracies(images, torch.zeros(1, 6), torch.zeros(1, 6), {}) == []
    assert nearest_in_groups(images, Z[:6], Z_SET, Y_SET, size=8) == {}


@pytest.mark.parametrize("size", [8, 9])
def test_radial_power_is_that_of_a_sum_over_all_waves(size):
    pixels = torch.rand(2, 3, size, size, generator=GENERATOR)
    found = radial_power(pixels).numpy()
    places, hann = np.arange(size), 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))
    for image, of_image in zip(pixels.double().numpy().mean(1), found, strict=True):
        seen, rings = (image - image.mean()) * np.outer(hann, hann), {}
        for u in range(-(size // 2), size - size // 2):
            for v in range(-(size // 2), size - size // 2):
                wave = np.exp(-2j * np.pi * (u * places[:, None] + v * places) / size)
                rings.setdefault(round(math.hypot(u, v)), []).append(abs((seen * wave).sum()) ** 2)
        assert of_image == pytest.approx([np.mean(rings[ring]) for ring in range(1, size // 2 + 1)], rel=1e-9)


def test_a_wave_shows_at_its_frequency():
    x = torch.arange(32) / 32
    pixels = (0.5 + 0.5 * torch.sin(2 * math.pi * 5 * x)).expand(1, 3, 32, 32)
    assert int(radial_power(pixels)[0].argmax()) + 1 == 5


def test_spectra_of_as_many_real_images_and_their_slopes():
    images = LabelledImages.from_dataset(make_dataset(per_class=8))
    pixels = torch.rand(3, 3, 16, 16, generator=GENERATOR)
    found = compare_spectra(pixels, images)
    assert found.real.shape == (24, 8)  # all there are
    expected = radial_power(images.centre_crops(16, 1.0) / 255).mean(0)
    assert found.real.mean(0).tolist() == pytest.approx(expected.tolist())
    slope = np.polyfit(np.log(found.frequencies.numpy()), np.log(found.synthetic.mean(0).numpy()), 1)[0]
    assert found.slopes[0] == pytest.approx(slope)
    upper = found.synthetic.mean(0)[4:].sum() / found.real.mean(0)[4:].sum()  # 5 to 8 cycles
    assert found.fine_ratio == pytest.approx(float(upper))
