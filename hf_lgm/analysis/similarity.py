"""Which classes look alike to a probe: cosines of its weights, beside those of the probe on all real images."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..evaluation.classifiers import Logits

# Of more classes the matrices are left out of the JSON, which would have millions of numbers.
_MAX_WRITTEN = 200
_PAIRS = 5


@dataclass(frozen=True)
class ClassSimilarity:
    """Cosines of the weights of a probe's classes.

    Args:
        of_set (`torch.Tensor`): Shape (C, C), of probes trained on the set, the mean over them.
        of_full (`torch.Tensor`): Shape (C, C), of the probe on all real images.
        rho (`float`): Spearman's rank correlation of the two over all pairs of classes; NaN for fewer than three pairs
            or where all are alike.
    """

    of_set: torch.Tensor
    of_full: torch.Tensor
    rho: float

    @property
    def pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines of the C (C - 1) / 2 pairs of different classes, by the set and by all real images."""
        rows, columns = torch.triu_indices(len(self.of_set), len(self.of_set), offset=1)
        return self.of_set[rows, columns], self.of_full[rows, columns]

    def most_alike(self, class_names: list[str]) -> list[dict[str, Any]]:
        """The pairs of classes that look most alike to the probe on all real images, with both cosines."""
        rows, columns = torch.triu_indices(len(self.of_set), len(self.of_set), offset=1)
        ours, full = self.pairs
        best = full.sort(descending=True, stable=True).indices[:_PAIRS]
        return [
            {
                "classes": [class_names[int(rows[pair])], class_names[int(columns[pair])]],
                "set": round(float(ours[pair]), 4),
                "all_real_images": round(float(full[pair]), 4),
            }
            for pair in best
        ]

    def to_dict(self, class_names: list[str]) -> dict[str, Any]:
        """For JSON."""
        described: dict[str, Any] = {
            "rank_correlation": None if math.isnan(self.rho) else round(self.rho, 4),
            "pairs": len(self.pairs[0]),
            "most_alike": self.most_alike(class_names),
        }
        if len(self.of_set) <= _MAX_WRITTEN:
            matrices = {"set": self.of_set, "all_real_images": self.of_full}
            described |= {name: torch.round(values.double(), decimals=4).tolist() for name, values in matrices.items()}
        return described


def class_similarity(W_set: torch.Tensor, W_full: torch.Tensor) -> ClassSimilarity:
    """Compare weights of shape (seeds, C, D) of a set's probes with those (C, D) of the probe on all real images.

    From each class's weights the mean over the classes is taken: it moves all logits alike and says nothing.
    """
    from scipy.stats import spearmanr  # here, since it is slow to load

    of_set = torch.stack([_cosines(W) for W in W_set]).mean(dim=0)
    similarity = ClassSimilarity(of_set, _cosines(W_full), math.nan)
    ours, full = similarity.pairs
    if len(ours) < 3 or ours.min() == ours.max() or full.min() == full.max():
        return similarity
    return ClassSimilarity(of_set, similarity.of_full, float(spearmanr(ours.numpy(), full.numpy()).statistic))


def linear_weights(logits: Logits, dim: int, device: torch.device) -> torch.Tensor:
    """Weights (C, D) of a linear classifier that is known by its logits: what it says of unit vectors."""
    with torch.no_grad():
        unit = torch.eye(dim, device=device)
        return (logits(unit) - logits(torch.zeros_like(unit[:1])))[0].T.cpu()


def _cosines(W: torch.Tensor) -> torch.Tensor:
    directions = F.normalize((W - W.mean(dim=0)).double().cpu(), dim=1)
    return directions @ directions.T
