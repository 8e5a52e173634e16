import datasets
import pytest
import torch
import torch.nn.functional as F
from datasets import load_dataset

from hf_lgm import DistilledSet, LGMConfig, LGMDistiller, ProbeProtocol, evaluate_probe
from hf_lgm.distillation.learned import SoftLabels
from hf_lgm.evaluation.probe import train_probes


@pytest.fixture
def make(backbone, splits, tmp_path):
    def distiller(folder="out", **settings):
        settings = {"max_steps": 8, "views_per_step": 3, "save_steps": 4, "disable_tqdm": True, **settings}
        return LGMDistiller(backbone, LGMConfig(str(tmp_path / folder), **settings), splits["train"], splits["test"])

    return distiller


def test_projection_is_the_nearest_distribution():
    """Against bisection on the level that is taken away."""
    labels = SoftLabels(torch.arange(5), 7, are_learned=True)
    moved = labels.probabilities.detach() + torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels.start_from(moved)
    labels.project()
    low, high = moved.min(dim=1, keepdim=True).values - 1, moved.max(dim=1, keepdim=True).values
    for _ in range(60):
        level = (low + high) / 2
        too_low = (moved - level).clamp(min=0).sum(dim=1, keepdim=True) > 1
        low, high = torch.where(too_low, level, low), torch.where(too_low, high, level)
    torch.testing.assert_close(labels.probabilities.detach(), (moved - level).clamp(min=0), rtol=0, atol=1e-6)
    before = labels.probabilities.detach().clone()
    labels.project()
    torch.testing.assert_close(labels.probabilities.detach(), before, rtol=0, atol=1e-6)


def test_hard_labels_stay_and_learned_ones_leave_them(make):
    hard, soft = make("hard"), make("soft", label_learning_rate=0.02)
    hard.train(), soft.train()
    assert not hard.distilled_set().has_soft_labels
    learned = soft.distilled_set().targets_as(["class 0", "class 1", "class 2"])
    torch.testing.assert_close(learned.sum(dim=1), torch.ones(3))
    assert learned.min() >= 0 and (learned - torch.eye(3)).abs().max() > 0.02
    assert learned.argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("objective", ["lgm", "ridge"])
def test_the_same_bits_when_resumed(make, objective):
    settings = {"label_learning_rate": 0.02, "objective": objective}
    whole, resumed = make("whole", **settings), make("resumed", **settings)
    whole.train()
    resumed.train()
    resumed = make("resumed", **settings)
    resumed.train(resume_from_checkpoint=str(resumed.args.output_dir) + "/checkpoint-4")
    assert torch.equal(resumed.learned.soft_labels.probabilities, whole.learned.soft_labels.probabilities)
    assert torch.equal(resumed.images(), whole.images())


def test_they_are_stored_and_a_probe_is_trained_with_them(make, backbone, splits):
    distiller = make(label_learning_rate=0.02)
    distiller.train()
    folder = distiller.save_model()
    table = load_dataset(str(folder), split="train")
    assert table.features["soft_label"] == datasets.List(datasets.Value("float32"), length=3)
    assert "`soft_label`" in (folder / "README.md").read_text()
    loaded, made = DistilledSet.from_pretrained(folder), distiller.distilled_set()
    assert loaded.fingerprint == made.fingerprint
    hard = DistilledSet(loaded.dataset.remove_columns("soft_label"), loaded.config)
    assert hard.fingerprint != loaded.fingerprint

    swapped = loaded.dataset.remove_columns("soft_label").add_column(
        "soft_label", [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    )
    protocol = ProbeProtocol(seeds=1)
    right = evaluate_probe(backbone, hard, splits["test"], protocol=protocol).mean
    wrong = evaluate_probe(backbone, DistilledSet(swapped, loaded.config), splits["test"], protocol=protocol).mean
    assert wrong < 20 < 60 < right  # it does what they say


def test_classes_in_another_order_take_their_columns_along(make):
    distiller = make(label_learning_rate=0.02)
    distiller.train()
    distilled = distiller.distilled_set()
    targets = distilled.targets_as(["class 0", "class 1", "class 2"])
    assert torch.equal(distilled.targets_as(["class 2", "class 0", "class 1"]), targets[:, [2, 0, 1]])


def test_probes_with_one_hot_distributions_are_those_with_labels():
    z = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    y, protocol = torch.arange(6) % 3, ProbeProtocol(epochs=20, seeds=2)
    hard = train_probes(lambda view: z, y, 3, protocol)
    soft = train_probes(lambda view: z, F.one_hot(y, 3).float().expand(2, 6, 3), 3, protocol)
    for one, other in zip(hard, soft, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_an_earlier_set_is_gone_on_from_with_its_labels(make):
    first = make("first", label_learning_rate=0.02)
    first.train()
    folder = first.save_model()
    second = make("second", init=str(folder), label_learning_rate=0.02)
    second._begin(None)
    earlier = DistilledSet.from_pretrained(folder)
    torch.testing.assert_close(second.images(), earlier.pixels(), rtol=0, atol=1 / 255)
    torch.testing.assert_close(
        second.learned.soft_labels.probabilities.detach(), earlier.targets_as(earlier.class_names)
    )


def test_a_loss_that_is_no_number_is_left_to_those_who_watch_it():
    labels = SoftLabels(torch.arange(2), 3, are_learned=True)
    labels.start_from(torch.full((2, 3), float("nan")))
    labels.project()
    assert labels.probabilities.isnan().all()
