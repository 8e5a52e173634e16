"""The metrics against scikit-learn and counting, in batches and in several processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from hf_lgm.evaluation.metrics import MacroAccuracy, TopKAccuracy, WorstGroupAccuracy

generator = torch.Generator().manual_seed(0)
LOGITS = torch.randn(200, 7, generator=generator)
LABELS = torch.randint(7, (200,), generator=generator)
GROUPS = torch.randint(3, (200,), generator=generator)
PREDICTIONS = LOGITS.argmax(dim=1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_scikit_learns(k):
    result = TopKAccuracy().compute(predictions=LOGITS.topk(k).indices.tolist(), references=LABELS.tolist())
    assert result["top_k_accuracy"] == pytest.approx(top_k_accuracy_score(LABELS, LOGITS, k=k))


def test_macro_is_scikit_learns_in_batches_too():
    metric = MacroAccuracy()
    for rows in torch.arange(200).split(64):
        metric.add_batch(predictions=PREDICTIONS[rows].tolist(), references=LABELS[rows].tolist())
    assert metric.compute()["macro_accuracy"] == pytest.approx(balanced_accuracy_score(LABELS, PREDICTIONS))


def test_the_worst_group_is_found_by_counting():
    groups = torch.where(PREDICTIONS[0] == PREDICTIONS, -1, GROUPS)  # some have none
    result = WorstGroupAccuracy().compute(
        predictions=PREDICTIONS.tolist(), references=LABELS.tolist(), groups=groups.tolist()
    )
    hits = {}
    for row in (groups >= 0).nonzero()[:, 0].tolist():
        hits.setdefault((int(LABELS[row]), int(GROUPS[row])), []).append(bool(PREDICTIONS[row] == LABELS[row]))
    assert result["worst_group_accuracy"] == pytest.approx(min(sum(of) / len(of) for of in hits.values()))


PROCESS = """
import sys
from test_metrics import LABELS, PREDICTIONS, MacroAccuracy
rank, cache = int(sys.argv[1]), sys.argv[2]
metric = MacroAccuracy(num_process=2, process_id=rank, experiment_id="two", cache_dir=cache)
metric.add_batch(predictions=PREDICTIONS[rank::2].tolist(), references=LABELS[rank::2].tolist())
result = metric.compute()
print(result["macro_accuracy"] if rank == 0 else result)
"""


def test_two_processes_count_as_one(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path)],
            cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0].split()[-1] for process in processes]
    assert float(printed[0]) == pytest.approx(balanced_accuracy_score(LABELS, PREDICTIONS)) and printed[1] == "None"
