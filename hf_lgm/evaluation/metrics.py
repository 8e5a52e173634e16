"""The scores as metrics of `evaluate`: offline, in batches, and in several processes."""

from typing import Any

import datasets
import evaluate
import torch

from .scoring import accuracy, macro_accuracy, subgroup_accuracies

_CITATION = """@inproceedings{sagawa2020groupdro,
  title = {Distributionally Robust Neural Networks for Group Shifts},
  author = {Sagawa, Shiori and Koh, Pang Wei and Hashimoto, Tatsunori B. and Liang, Percy},
  booktitle = {ICLR},
  year = {2020}
}"""


class _ImageMetric(evaluate.Metric):
    """Of class indices. `evaluate.load` would fetch code from the Hub; these classes are used as they are."""

    columns: dict[str, Any] = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
    citation = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation=self.citation,
            inputs_description=", ".join(self.columns),
            features=datasets.Features(self.columns),
        )


class TopKAccuracy(_ImageMetric):
    """Share of images whose class is among the predicted ones: `{"top_k_accuracy": …}` between 0 and 1.

    `predictions` are lists of class indices of one length, best first, `references` class indices.
    """

    columns = {"predictions": datasets.List(datasets.Value("int64")), "references": datasets.Value("int64")}

    def _compute(self, predictions: list[list[int]], references: list[int]) -> dict[str, float]:
        hits = (torch.tensor(predictions) == torch.tensor(references)[:, None]).any(dim=1)
        return {"top_k_accuracy": accuracy(hits).item()}


class MacroAccuracy(_ImageMetric):
    """Mean over classes of the share of their images that are predicted rightly: `{"macro_accuracy": …}`.

    `predictions` and `references` are class indices.
    """

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        y = torch.tensor(references)
        return {"macro_accuracy": macro_accuracy(torch.tensor(predictions) == y, y).item()}


class WorstGroupAccuracy(_ImageMetric):
    """Accuracy of the worst pair of class and group (Sagawa et al., 2020): `{"worst_group_accuracy": …}`.

    `predictions`, `references` and `groups` are indices from 0; a group of -1 is none.
    """

    columns = {**_ImageMetric.columns, "groups": datasets.Value("int64")}
    citation = _CITATION

    def _compute(self, predictions: list[int], references: list[int], groups: list[int]) -> dict[str, float]:
        y = torch.tensor(references)
        shares, _ = subgroup_accuracies(torch.tensor(predictions) == y, y, torch.tensor(groups))
        return {"worst_group_accuracy": shares.amin().item()}
