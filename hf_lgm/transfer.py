"""What images distilled through one backbone are worth on another, beside how alike the two see."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from .alignment import RankCorrelation, mutual_knn_alignment, rank_correlation
from .backbone import FrozenBackbone
from .data import LabelledImages
from .distilled_set import DistilledSet
from .evaluation import Evaluation
from .loading import align_classes
from .provenance import made_through
from .randomness import seeded_generator

# Images that neighbours are sought among, drawn at random: the cost grows with the square of their number.
_ALIGNED_IMAGES = 10_000


@dataclass(frozen=True)
class TransferMatrix:
    """Accuracies of sets distilled through M backbones, on the same M backbones.

    Args:
        backbones (`list[str]`): Their names, length M.
        families (`list[str]`): Their architectures, length M.
        accuracy (`torch.Tensor`): Shape (M, M), top-1 in percent: row distilled through, column evaluated on.
        full_data (`torch.Tensor`): Shape (M,), top-1 of the probe on all real images.
        alignment (`torch.Tensor`): Shape (M, M), mutual nearest neighbours, see [`mutual_knn_alignment`].
    """

    backbones: list[str]
    families: list[str]
    accuracy: torch.Tensor
    full_data: torch.Tensor
    alignment: torch.Tensor

    @property
    def share(self) -> torch.Tensor:
        """Shape (M, M): the accuracy as a share of the probe on all real images through the same backbone."""
        return self.accuracy / self.full_data

    def correlation(self) -> RankCorrelation | None:
        """Whether sets transfer better between backbones that see more alike; `None` for two backbones."""
        if len(self.backbones) < 3:
            return None
        return rank_correlation(self.alignment, self.share, len(set(self.families)))

    @property
    def claim(self) -> str:
        """What may be said of alignment and transfer."""
        correlation = self.correlation()
        return correlation.claim if correlation else "Two backbones have one alignment: nothing to correlate."

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "backbones": self.backbones,
            "families": self.families,
            "accuracy": _rounded(self.accuracy),
            "share": _rounded(self.share),
            "full_data": _rounded(self.full_data),
            "alignment": _rounded(self.alignment),
            "claim": self.claim,
        }

    def table(self) -> str:
        """Markdown: accuracy, share of the full-data probe, and alignment in each cell."""
        names = [Path(name).name for name in self.backbones]
        lines = ["| distilled through \\ evaluated on | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row, name in enumerate(names):
            cells = [
                f"{self.accuracy[row, column]:.1f} ({self.share[row, column]:.0%}; {self.alignment[row, column]:.2f})"
                for column in range(len(names))
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("| *all real images* | " + " | ".join(f"{value:.1f}" for value in self.full_data) + " |")
        return "\n".join(lines)


def transfer_matrix(
    sets: Sequence[DistilledSet | str],
    backbones: Sequence[FrozenBackbone | str],
    train_dataset: LabelledImages | Dataset,
    eval_dataset: LabelledImages | Dataset,
    **settings: Any,
) -> TransferMatrix:
    """Every set on every backbone.

    Args:
        sets (`Sequence[DistilledSet | str]`): M of them, each distilled through the backbone at its place.
        backbones (`Sequence[FrozenBackbone | str]`): M of them.
        train_dataset ([`LabelledImages`] or `datasets.Dataset`): All real training images, for the full-data probe.
        eval_dataset ([`LabelledImages`] or `datasets.Dataset`): What is scored on and aligned by.
        settings (*optional*): As in [`Evaluation`]: `protocol`, `accelerator`, `batch_size`, `num_workers`, `cache`.

    Raises:
        ValueError: If there are not as many sets as backbones, one stands at another's place, or classes differ.
    """
    if len(sets) != len(backbones):
        raise ValueError(f"Expected one set for each backbone, found {len(sets)} for {len(backbones)}.")
    seen_through = [FrozenBackbone.wrap(backbone) for backbone in backbones]
    distilled = [DistilledSet.from_pretrained(images) if isinstance(images, str) else images for images in sets]
    for images, backbone in zip(distilled, seen_through, strict=True):
        models = made_through(images.config)
        if models not in ([], [backbone.name]):
            raise ValueError(
                f"A set that was distilled through {' and '.join(models)} stands at the place of {backbone.name}."
            )
    train, real = (
        images if isinstance(images, LabelledImages) else LabelledImages.from_dataset(images)
        for images in (train_dataset, eval_dataset)
    )
    real = align_classes(real, train.class_names)
    evaluations = [Evaluation(backbone, real, train, **settings) for backbone in seen_through]

    def top1(evaluation: Evaluation, images: DistilledSet) -> float:
        return evaluation.probe("distilled", [images] * evaluation.protocol.seeds, distilled[0].views).mean

    return matrix_of(evaluations, [[top1(e, images) for e in evaluations] for images in distilled])


def matrix_of(evaluations: Sequence[Evaluation], accuracy: Sequence[Sequence[float]]) -> TransferMatrix:
    """The matrix of accuracies that are known, of M rows and columns, with what else it holds."""
    rows = torch.randperm(len(evaluations[0].real), generator=seeded_generator(0, "aligned images"))[:_ALIGNED_IMAGES]
    z = [e.scored.z[rows.to(e.scored.z.device)] for e in evaluations]
    full_data = [result.mean for e in evaluations if (result := e.reference("all real images")) is not None]
    return TransferMatrix(
        [e.backbone.name for e in evaluations],
        [type(e.backbone.model).__name__ for e in evaluations],
        torch.tensor(accuracy),
        torch.tensor(full_data),
        torch.tensor([[mutual_knn_alignment(a, b) for b in z] for a in z]),
    )


def _rounded(values: torch.Tensor) -> Any:
    return torch.round(values.double(), decimals=4).tolist()
