"""What images distilled through one backbone are worth on another, beside how alike the two see."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..backbones.backbone import FrozenBackbone
from ..data.labelled_images import LabelledImages
from ..features.extraction import FeatureExtractor
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import differences, made_through
from ..publishing.results import ALL_REAL_IMAGES, markdown_table
from ..randomness import seeded_generator
from ..settings import ProbeProtocol
from .evaluator import Evaluator

# Below these a correlation over pairs of backbones says nothing.
MIN_PAIRS, MIN_FAMILIES = 12, 2
_MAX_PERMUTATIONS = 5040  # all of them up to seven backbones

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

    def correlation(self) -> "RankCorrelation | None":
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
        names = shown_names(self.backbones)
        cells = [
            [f"{a:.1f} ({share:.0%}; {alike:.2f})" for a, share, alike in zip(*row, strict=True)]
            for row in zip(self.accuracy.tolist(), self.share.tolist(), self.alignment.tolist(), strict=True)
        ]
        return markdown_table(
            [
                ["distilled through \\ evaluated on", *names],
                *([name, *row] for name, row in zip(names, cells, strict=True)),
                [f"*{ALL_REAL_IMAGES}*", *(f"{value:.1f}" for value in self.full_data.tolist())],
            ]
        )


def transfer_matrix(
    sets: Sequence[Any],
    backbones: Sequence[Any],
    train_dataset: Any,
    eval_dataset: Any,
    *,
    protocol: ProbeProtocol | None = None,
    extractor: FeatureExtractor | None = None,
    cache: bool = False,
    **loading: Any,
) -> TransferMatrix:
    """Every set on every backbone.

    Args:
        sets (`Sequence`): M of them, in the forms that [`evaluate_probe`] takes, each distilled through the backbone
            at its place.
        backbones (`Sequence`): M of them, likewise.
        train_dataset ([`LabelledImages`], `datasets.Dataset`, or what [`LabelledImages.wrap`] takes besides): All real
            training images, for the full-data probe.
        eval_dataset (likewise): What is scored on and aligned by.
        protocol ([`ProbeProtocol`], *optional*): How probes are trained.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        cache (`bool`, *optional*, defaults to `False`): See [`Evaluator`].
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ValueError: If there are not as many sets as backbones, one stands at another's place, or classes differ.
    """
    if len(sets) != len(backbones):
        raise ValueError(f"Expected one set for each backbone, found {len(sets)} for {len(backbones)}.")
    seen_through = [FrozenBackbone.wrap(backbone) for backbone in backbones]
    distilled = [DistilledSet.wrap(images) for images in sets]
    for images, backbone in zip(distilled, seen_through, strict=True):
        models = made_through(images.config)
        if models and (others := differences(images.config, backbone)):
            raise ValueError(
                f"A set that was distilled through {' and '.join(models)} stands at the place of {backbone.name} "
                f"({'; '.join(others)})."
            )
    train_images, eval_images = (LabelledImages.wrap(images) for images in (train_dataset, eval_dataset))
    eval_images = eval_images.aligned(train_images.class_names)
    protocol, extractor = protocol or ProbeProtocol(), FeatureExtractor.given(extractor, loading)
    evaluators = [Evaluator(each, eval_images, train_images, protocol, extractor, cache) for each in seen_through]

    def top1(evaluator: Evaluator, images: DistilledSet) -> float:
        return evaluator.probe("distilled", [images] * protocol.seeds, distilled[0].views).mean

    return matrix_of(evaluators, [[top1(e, images) for e in evaluators] for images in distilled])


def matrix_of(evaluators: Sequence[Evaluator], accuracy: Sequence[Sequence[float]]) -> TransferMatrix:
    """The matrix of accuracies that are known, of M rows and columns, with what else it holds."""
    rows = torch.randperm(len(evaluators[0].eval_images), generator=seeded_generator(0, "aligned images"))[
        :_ALIGNED_IMAGES
    ]
    z = [e.scored.z[rows.to(e.scored.z.device)] for e in evaluators]
    full_data = [result.mean for e in evaluators if (result := e.reference(ALL_REAL_IMAGES)) is not None]
    return TransferMatrix(
        [e.backbone.name for e in evaluators],
        [type(e.backbone.model).__name__ for e in evaluators],
        torch.tensor(accuracy),
        torch.tensor(full_data),
        torch.tensor([[mutual_knn_alignment(a, b) for b in z] for a in z]),
    )


def shown_names(names: Sequence[str]) -> list[str]:
    """Names of backbones in a table: their last parts, but where two of these are the same."""
    last = [Path(name).name for name in names]
    return [short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)]


def _rounded(values: torch.Tensor) -> Any:
    return torch.round(values.double(), decimals=4).tolist()


def mutual_knn_alignment(z_a: torch.Tensor, z_b: torch.Tensor, k: int = 10) -> float:
    """Mean share of an image's k nearest neighbours that two backbones agree on (Huh et al., 2024, arXiv 2405.07987).

    Args:
        z_a (`torch.Tensor`): Shape (N, D_a), features of N images through one backbone.
        z_b (`torch.Tensor`): Shape (N, D_b), of the same images through the other.
        k (`int`, *optional*, defaults to 10): Neighbours by cosine, without the image itself; at most N - 1.
    """
    if len(z_a) < 2:
        raise ValueError("Alignment compares the neighbours of images: it needs at least two.")
    k, shared, size = min(k, len(z_a) - 1), 0, 1024
    z_a, z_b = F.normalize(z_a.float(), dim=1), F.normalize(z_b.float(), dim=1)
    for rows in torch.arange(len(z_a), device=z_a.device).split(size):
        nearest_a, nearest_b = (_neighbours(z, rows, k) for z in (z_a, z_b))
        shared += int((nearest_a[:, :, None] == nearest_b[:, None, :]).sum())
    return shared / (k * len(z_a))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of two matrices over pairs of different backbones.

    Args:
        rho (`float`): The correlation.
        p (`float`): Share of permutations of the backbones that give one at least as large. Pairs that share a
            backbone are not independent, so backbones are permuted and not pairs (Mantel's test): of M backbones it is
            1 / M! at least.
        pairs (`int`): n.
        families (`int`): Architectures among the backbones.
    """

    rho: float
    p: float
    pairs: int
    families: int

    @property
    def claim(self) -> str:
        """What may be said."""
        if math.isnan(self.rho):
            return f"Of {self.pairs} pairs all have one alignment or one transfer: nothing to correlate"
        found = f"Spearman's rho {self.rho:.2f} over {self.pairs} pairs, permutation p {self.p:.3f}"
        if self.pairs >= MIN_PAIRS and self.families >= MIN_FAMILIES:
            return found
        return f"{found}: no claim below {MIN_PAIRS} pairs or {MIN_FAMILIES} families (found {self.families})"


def rank_correlation(a: torch.Tensor, b: torch.Tensor, families: int) -> RankCorrelation:
    """Of two (M, M) matrices, diagonals left out; see [`RankCorrelation`].

    Args:
        a (`torch.Tensor`): Shape (M, M), M > 2.
        b (`torch.Tensor`): Shape (M, M).
        families (`int`): Architectures among the M backbones.
    """
    from scipy.stats import rankdata  # here, since it is slow to load

    count = len(a)
    others = ~torch.eye(count, dtype=torch.bool)
    ranks = torch.zeros(count, count, dtype=torch.float64)
    ranks[others] = torch.from_numpy(rankdata(a[others]))
    fixed = torch.from_numpy(rankdata(b[others]))

    def correlation(order: torch.Tensor) -> float:
        return torch.corrcoef(torch.stack([ranks[order][:, order][others], fixed]))[0, 1].item()

    rho = correlation(torch.arange(count))
    if math.isnan(rho):
        return RankCorrelation(rho, 1.0, int(others.sum()), families)
    at_least = [correlation(order) >= rho - 1e-12 for order in _permutations(count)]
    return RankCorrelation(rho, sum(at_least) / len(at_least), int(others.sum()), families)


def _permutations(count: int) -> list[torch.Tensor]:
    """All orders of so many things, or a random sample of them; the first is the identity."""
    if math.factorial(count) <= _MAX_PERMUTATIONS:
        return [torch.tensor(order) for order in itertools.permutations(range(count))]
    generator = seeded_generator(0, "permutations")
    drawn = [torch.randperm(count, generator=generator) for _ in range(_MAX_PERMUTATIONS - 1)]
    return [torch.arange(count), *drawn]


def _neighbours(z: torch.Tensor, rows: torch.Tensor, k: int) -> torch.Tensor:
    """The k most similar other images of the given rows, of shape (len(rows), k)."""
    similarity = z[rows] @ z.T
    similarity[torch.arange(len(rows)), rows] = -torch.inf
    return similarity.topk(k, dim=1).indices
