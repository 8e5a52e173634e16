"""Scores per seed, class and group, by counting."""

import pytest
import torch

from hf_lgm.evaluation.scoring import EvalFeatures, macro_accuracy
from hf_lgm.publishing.results import ProbeResult

NAMES = [f"class {label}" for label in range(7)]


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 210, 7, generator=generator), torch.arange(210) % 7


def result_of(logits, y, **kwargs):
    rows = torch.arange(len(y)).float()[:, None]  # the features say which row
    return EvalFeatures(rows, y, NAMES, **kwargs).result("set", "b", "how", lambda z: logits[:, z[:, 0].long()])


def test_top_1_top_5_and_classes_are_counted(logits, monkeypatch):
    scores, y = logits
    whole = result_of(scores, y)
    monkeypatch.setattr("hf_lgm.evaluation.scoring._MAX_LOGITS", 70)
    assert result_of(scores, y) == whole  # ten rows at a time
    for seed in range(2):
        hits = scores[seed].argmax(dim=1) == y
        assert whole.accuracies["top-1"][seed] == pytest.approx(100 * hits.double().mean().item())
        best = scores[seed].topk(5, dim=1).indices
        expected = sum(int(y[row]) in best[row].tolist() for row in range(210)) / 2.1
        assert whole.accuracies["top-5"][seed] == pytest.approx(expected)
    of_class = (scores[:, y == 3].argmax(dim=2) == 3).double().mean().item()
    assert whole.per_class["class 3"] == pytest.approx(100 * of_class, abs=0.01)
    assert list(whole.accuracies) == ["top-1", "top-5"]  # classes of one size, no groups


def test_macro_where_classes_differ_much_in_size(logits):
    scores, y = logits
    kept = torch.cat([(y == 0).nonzero()[:5, 0], (y > 0).nonzero()[:, 0]])
    result = result_of(scores[:, kept], y[kept])
    hits = scores[:, kept].argmax(dim=2) == y[kept]
    assert result.accuracies["macro"] == pytest.approx((100 * macro_accuracy(hits, y[kept])).tolist())


def test_the_worst_group_is_that_of_class_and_group(logits):
    scores, y = logits
    groups = torch.arange(210) // 7 % 3 - 1  # a third has none
    result = result_of(scores, y, groups=groups, group_names=["land", "water"])
    worst = []
    for seed in range(2):
        hits = {}
        for row in range(210):
            if groups[row] >= 0:
                right = bool(scores[seed, row].argmax() == y[row])
                hits.setdefault((int(y[row]), int(groups[row])), []).append(right)
        worst.append(100 * min(sum(of) / len(of) for of in hits.values()))
        if seed == 0:
            first = hits
    assert result.accuracies["worst group"] == pytest.approx(worst)
    assert list(result.per_group)[:3] == ["class 0 / land", "class 0 / water", "class 1 / land"]
    assert len(result.per_group) == len(first) == 14


def test_groups_that_nobody_knows_are_no_metric(logits):
    scores, y = logits
    result = result_of(scores, y, groups=torch.full((210,), -1), group_names=["land", "water"])
    assert "worst group" not in result.accuracies and result.per_group == {}


def test_mean_std_and_rows():
    result = ProbeResult("set", "b", "how", {"top-1": [50.0, 60.0], "top-5": [90.0, 90.0]})
    assert (result.mean, result.std) == (55.0, 7.07)
    described = {"training_set": "set", "backbone": "b", "protocol": "how"}
    assert result.rows()[1] == {**described, "metric": "top-5", "mean": 90.0, "std": 0.0, "n_seeds": 2}
    assert ProbeResult(**result.to_dict()) == result
    assert result.named("other", "c").rows()[0]["training_set"] == "other"
