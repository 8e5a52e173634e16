from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import SIDE, make_dataset, make_vit
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, Preprocessing, ProbeProtocol, evaluate_probe
from hf_lgm.baselines import centroid_rows, random_rows, real_image_set
from hf_lgm.probe import EvalFeatures, class_means, nearest_class_mean, probe_accuracies, train_probes

QUICK = ProbeProtocol(steps=200, learning_rate=1e-2, views=4, seeds=2)


@pytest.fixture
def blobs():
    """Overlapping clusters in eight dimensions: train features, labels, test features, labels."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(7, 8, generator=generator)
    y, y_eval = torch.arange(700) % 7, torch.arange(350) % 7
    z, z_eval = (means[labels] + 0.7 * torch.randn(len(labels), 8, generator=generator) for labels in (y, y_eval))
    return z, y, z_eval, y_eval


def test_a_converged_probe_is_logistic_regression(blobs):
    z, y, z_eval, y_eval = blobs
    protocol = ProbeProtocol(steps=2000, learning_rate=3e-2, seeds=1)
    ours = probe_accuracies(z[None, :, None], y, EvalFeatures(z_eval, y_eval), 7, protocol)
    reference = LogisticRegression(C=1e6, max_iter=5000).fit(z, y)
    assert ours["top-1"][0] == pytest.approx(100 * reference.score(z_eval, y_eval), abs=0.6)
    best = torch.from_numpy(reference.predict_proba(z_eval)).topk(5).indices
    top5 = 100 * (best == y_eval[:, None]).any(dim=1).double().mean()
    assert ours["top-5"][0] == pytest.approx(float(top5), abs=0.6)


def test_probes_side_by_side_are_trained_as_if_alone(blobs):
    z, y, *_ = blobs
    z_seeds = torch.stack([z, z + 1])[:, :, None]
    W, b = train_probes(z_seeds, y, 7, ProbeProtocol(steps=20, seeds=2))
    alone = train_probes(z_seeds[:1], y, 7, ProbeProtocol(steps=20, seeds=1))
    torch.testing.assert_close(W[:1], alone[0])
    torch.testing.assert_close(b[:1], alone[1])


def test_a_probe_follows_the_plain_algorithm(blobs):
    """One view of each image per step, in turn; Adam; cosine."""
    z, y, *_ = blobs
    views = torch.stack([z, -z, z * 2], dim=1)  # (n, 3, D)
    W, b = train_probes(views[None], y, 7, ProbeProtocol(steps=5, learning_rate=0.1, views=3, seeds=1))
    start, _ = train_probes(views[None], y, 7, ProbeProtocol(steps=0, seeds=1))
    expected = torch.nn.Linear(8, 7)
    expected.weight.data.copy_(start[0])
    expected.bias.data.zero_()
    optimizer = torch.optim.Adam(expected.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    for view in (z, -z, z * 2, z, -z):
        optimizer.zero_grad()
        F.cross_entropy(expected(view), y).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(W[0], expected.weight.detach())
    torch.testing.assert_close(b[0], expected.bias.detach())


def test_large_training_sets_are_drawn_from(blobs, monkeypatch):
    monkeypatch.setattr("hf_lgm.probe._MAX_ROWS", 50)
    z, y, z_eval, y_eval = blobs
    protocol = ProbeProtocol(steps=1000, learning_rate=1e-2, seeds=1)
    drawn = probe_accuracies(z[None, :, None], y, EvalFeatures(z_eval, y_eval), 7, protocol)["top-1"][0]
    assert drawn == pytest.approx(100 * LogisticRegression().fit(z, y).score(z_eval, y_eval), abs=2)


def test_nearest_class_mean_is_scikit_learns(blobs):
    z, y, z_eval, y_eval = blobs
    expected = 100 * NearestCentroid().fit(z.numpy(), y.numpy()).score(z_eval.numpy(), y_eval.numpy())
    result = nearest_class_mean("b", z, y, EvalFeatures(z_eval, y_eval), 7)
    assert result.mean == pytest.approx(expected, abs=0.01) and result.std == 0
    torch.testing.assert_close(class_means(z, y, 7)[3], z[y == 3].mean(dim=0))


def test_baselines_are_of_their_class_and_what_they_say(train_images, backbone):
    z = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    for rows in (random_rows(train_images.labels, 3, 2, seed=0), centroid_rows(z, train_images.labels, 3, 2)):
        assert train_images.labels[rows].tolist() == [0, 0, 1, 1, 2, 2] and len(set(rows.tolist())) == 6
    assert not torch.equal(random_rows(train_images.labels, 3, 2, 0), random_rows(train_images.labels, 3, 2, 1))
    nearest = centroid_rows(z, train_images.labels, 3, 1)
    distance = (z - class_means(z, train_images.labels, 3)[train_images.labels]).norm(dim=1)
    assert all(distance[row] == distance[train_images.labels == label].min() for label, row in enumerate(nearest))
    with pytest.raises(ValueError, match="Class 0 has 8 images, fewer than images_per_class=9"):
        random_rows(train_images.labels, 3, 9, seed=0)
    chosen = real_image_set(train_images, nearest, SIDE, 1.0)
    assert chosen.dataset["source_index"][:] == nearest.tolist()
    assert chosen.dataset[1]["image"].tobytes() == train_images.image(int(nearest[1])).tobytes()


@pytest.fixture
def real_set(train_images):
    return real_image_set(train_images, random_rows(train_images.labels, 3, 2, seed=0), SIDE, 1.0)


def test_evaluate_probe(backbone, real_set, splits):
    result = evaluate_probe(backbone, real_set, splits["test"], protocol=QUICK, name="real")
    again = evaluate_probe(backbone, real_set, splits["test"], protocol=QUICK, name="real")
    assert result == again
    assert result.mean > 80
    (row,) = result.rows()
    assert row == {
        "training_set": "real", "backbone": "tiny-dinov2", "metric": "top-1", "mean": result.mean, "std": result.std,
        "n_seeds": 2, "protocol": "probe: 200 Adam steps, lr 0.01, cosine, 4 cached views, crops of 0.08 to 1, flips",
    }  # fmt: skip


def test_evaluate_probe_by_name_and_from_a_folder(model_folder, real_set, splits, tmp_path):
    saved = DistilledSet.from_pretrained(real_set.save_pretrained(tmp_path / "set"))
    images = LabelledImages.from_dataset(splits["test"])
    result = evaluate_probe(model_folder, saved, images, protocol=QUICK)
    assert result.backbone == "tiny-dinov2" and result.mean > 80


def test_classes_that_differ_are_refused(backbone, real_set):
    with pytest.raises(ValueError, match="other classes"):
        evaluate_probe(backbone, real_set, make_dataset(classes=2), protocol=QUICK)


def test_another_side_through_another_backbone(real_set, splits):
    """Images of 16 pixels through a backbone that takes 32."""
    backbone = FrozenBackbone(make_vit(), Preprocessing(image_size=32, resize_ratio=1.0))
    assert evaluate_probe(backbone, real_set, splits["test"], protocol=QUICK).mean > 80


def test_the_worst_group_is_that_of_class_and_group(blobs):
    z, y, z_eval, y_eval = blobs
    groups = torch.arange(350) // 7 % 3 - 1  # a third has none
    images = SimpleNamespace(labels=y_eval, groups=groups)
    result = nearest_class_mean("b", z, y, EvalFeatures.of(images, z_eval), 7)
    nearest = torch.cdist(z_eval, class_means(z, y, 7)).argmin(dim=1)
    hits = {}
    for row in range(350):
        if groups[row] >= 0:
            hits.setdefault((int(y_eval[row]), int(groups[row])), []).append(bool(nearest[row] == y_eval[row]))
    assert len(hits) == 14
    worst = min(sum(of_group) / len(of_group) for of_group in hits.values())
    assert result.accuracies["worst group"] == [pytest.approx(100 * worst)]
