import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import SIDE, make_dataset, make_vit
from sklearn.linear_model import LogisticRegression

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, Preprocessing, ProbeProtocol, evaluate_probe
from hf_lgm.data.augmentation import random_views
from hf_lgm.evaluation.baselines import real_image_set
from hf_lgm.evaluation.probe import ViewFeatures, _batches, probe_logits, train_probes
from hf_lgm.evaluation.scoring import EvalFeatures
from hf_lgm.features.coresets import random_rows
from hf_lgm.settings import ViewSettings

QUICK = ProbeProtocol(epochs=200, learning_rate=1e-2, views=4, seeds=2)
NAMES = [f"class {label}" for label in range(7)]


@pytest.fixture
def blobs():
    """Overlapping clusters in eight dimensions: train features, labels, test features, labels."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(7, 8, generator=generator)
    y, y_eval = torch.arange(700) % 7, torch.arange(350) % 7
    z, z_eval = (means[labels] + 0.7 * torch.randn(len(labels), 8, generator=generator) for labels in (y, y_eval))
    return z, y, z_eval, y_eval


def scored(z, y, z_eval, y_eval, protocol):
    W, b = train_probes(lambda view: z[None], y, 7, protocol)
    return EvalFeatures(z_eval, y_eval, NAMES).result("set", "b", "", probe_logits(W, b)).accuracies


def test_a_converged_probe_is_logistic_regression(blobs):
    z, y, z_eval, y_eval = blobs
    ours = scored(*blobs, ProbeProtocol(epochs=2000, learning_rate=3e-2, seeds=1))
    reference = LogisticRegression(C=1e6, max_iter=5000).fit(z, y)
    assert ours["top-1"][0] == pytest.approx(100 * reference.score(z_eval, y_eval), abs=0.6)
    best = torch.from_numpy(reference.predict_proba(z_eval)).topk(5).indices
    top5 = 100 * (best == y_eval[:, None]).any(dim=1).double().mean()
    assert ours["top-5"][0] == pytest.approx(float(top5), abs=0.6)


def test_probes_side_by_side_are_trained_as_if_alone(blobs):
    z, y, *_ = blobs
    both = torch.stack([z, z + 1])
    W, b = train_probes(lambda view: both, y, 7, ProbeProtocol(epochs=20, seeds=2))
    alone = train_probes(lambda view: both[:1], y, 7, ProbeProtocol(epochs=20, seeds=1))
    torch.testing.assert_close(W[:1], alone[0])
    torch.testing.assert_close(b[:1], alone[1])


@pytest.mark.parametrize(("views", "order"), [(3, [0, 1, 2, 0, 1]), (5, [0, 1, 2, 3, 4])])
def test_a_probe_follows_the_plain_algorithm(blobs, views, order):
    """One view of each image per epoch, in turn or all fresh; Adam; cosine."""
    z, y, *_ = blobs
    asked = []

    def features(view):
        asked.append(view)
        return (z * (view + 1))[None]

    W, b = train_probes(features, y, 7, ProbeProtocol(epochs=5, learning_rate=0.1, views=views, seeds=1))
    assert asked[1:] == order  # the first only asks for the shape
    start, _ = train_probes(features, y, 7, ProbeProtocol(epochs=0, seeds=1))
    expected = torch.nn.Linear(8, 7)
    expected.weight.data.copy_(start[0])
    expected.bias.data.zero_()
    optimizer = torch.optim.Adam(expected.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    for view in order:
        optimizer.zero_grad()
        F.cross_entropy(expected(z * (view + 1)), y).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(W[0], expected.weight.detach())
    torch.testing.assert_close(b[0], expected.bias.detach())


def test_larger_sets_are_shuffled_into_batches(blobs):
    """Each epoch sees every image once, and batches reach what the whole reaches."""
    z, y, z_eval, y_eval = blobs
    protocol = ProbeProtocol(epochs=60, learning_rate=1e-2, batch_size=50, seeds=1)
    expected = 100 * LogisticRegression().fit(z, y).score(z_eval, y_eval)
    assert scored(*blobs, protocol)["top-1"][0] == pytest.approx(expected, abs=2)


def test_each_probe_and_each_epoch_has_an_order_of_its_own():
    """Else the spread over probes would leave out what the order does."""
    labels = torch.arange(40).expand(2, 40)
    orders = []
    for epoch in (0, 1):
        z, targets = zip(*_batches(labels[..., None].float(), labels, 15, epoch), strict=True)
        assert [rows.shape[1] for rows in targets] == [15, 15, 10]
        targets = torch.cat(targets, dim=1)
        assert torch.equal(torch.cat(z, dim=1)[..., 0].long(), targets)  # features stay beside their labels
        assert targets.sort(dim=1).values.tolist() == labels.tolist()
        orders += [tuple(order) for order in targets.tolist()]
    assert len(set(orders)) == 4


def test_soft_labels_stay_beside_their_images_in_batches(blobs):
    z, y, *_ = blobs
    protocol, both = ProbeProtocol(epochs=2, learning_rate=0.1, batch_size=50, seeds=2), z.expand(2, *z.shape)
    hard = train_probes(lambda view: both, y, 7, protocol)
    soft = train_probes(lambda view: both, F.one_hot(y, 7).float().expand(2, -1, -1), 7, protocol)
    torch.testing.assert_close(hard, soft, rtol=1e-3, atol=1e-4)


def test_the_learning_rate_falls_once_per_epoch(blobs, monkeypatch):
    """Four batches in each of five epochs: a rate for each epoch, as the cosine gives it."""
    z, y, *_ = blobs
    rates = []

    class Watched(torch.optim.Adam):
        def step(self, *args, **kwargs):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    train_probes(lambda view: z[None], y, 7, ProbeProtocol(epochs=5, learning_rate=0.1, batch_size=200, seeds=1))
    cosine = [0.05 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(5) for _ in range(4)]
    assert rates == pytest.approx(cosine)


def test_the_papers_protocol():
    paper = ProbeProtocol.named("paper")
    assert (paper.epochs, paper.views, paper.batch_size, paper.seeds) == (1000, 1000, 100, 5)
    assert paper.rate(10) == pytest.approx(1e-3 * 10 / 256) and paper.rate(5000) == pytest.approx(1e-3 * 100 / 256)
    assert paper.description == "probe: 1000 epochs of Adam, lr 1e-3 * batch / 256, cosine, fresh views"
    assert ProbeProtocol.named("fast") == ProbeProtocol() and ProbeProtocol().rate(10) == 1e-3
    assert ProbeProtocol.named("paper", 0.01, 2).rate(10) == 0.01
    with pytest.raises(ValueError, match="must be one of fast, paper, found 'slow'"):
        ProbeProtocol.named("slow")


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
        "n_seeds": 2,
        "protocol": "probe: 200 epochs of Adam, lr 0.01, cosine, 4 cached views, crops of 0.08 to 1, flips",
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


def test_views_are_of_their_number_alone(backbone, real_set):
    """Of one seed, one image and one view: the block they were encoded in is in the number."""
    settings = ViewSettings()
    features = ViewFeatures(backbone, [real_set, real_set], settings)
    pixels = real_set.pixels()
    for seed, image, view in ((0, 0, 3), (1, 4, 3), (1, 5, 120)):
        views = random_views(
            pixels[image : image + 1], [image], 50, SIDE, settings.without_noise(), seed, view // 50, "probe views"
        )
        expected = backbone(views)[view % 50]
        torch.testing.assert_close(features(view)[seed, image], expected, rtol=1e-4, atol=1e-5)
    again = ViewFeatures(backbone, [real_set, real_set], settings, batch_size=500)
    torch.testing.assert_close(features(7), again(7), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features(7), features(57))  # fresh ones


def test_the_papers_protocol_end_to_end(backbone, real_set, splits):
    paper = dataclasses.replace(ProbeProtocol.named("paper", 1e-2, 2), epochs=120, views=120)
    result = evaluate_probe(backbone, real_set, splits["test"], protocol=paper)
    assert result.mean > 80 and "fresh views" in result.protocol
