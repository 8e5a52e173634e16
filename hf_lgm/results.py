"""What a classifier on features scores on real images: per seed, per class, per group."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from .data import LabelledImages
from .scores import accuracy, group_accuracies, macro_accuracy, subgroup_accuracies

# Numbers that are scored at a time, for each seed.
_MAX_LOGITS = 2**24
# Largest over smallest class, from which on the mean over classes is worth a number of its own.
_UNBALANCED = 1.5


# What tables call a draw of real images, of which there are as many as synthetic ones.
RANDOM_IMAGES = "random real images"
CLASS_MEAN = "nearest class mean"


def numbered(name: str, images_per_class: int) -> str:
    """The name of a row of a table whose sets differ in size."""
    return name if images_per_class == 1 else f"{name}, {images_per_class} per class"


def top1_rows(rows: Sequence[dict[str, Any]], training_set: str) -> dict[str, dict[str, Any]]:
    """The top-1 of one training set, by backbone."""
    return {row["backbone"]: row for row in rows if (row["training_set"], row["metric"]) == (training_set, "top-1")}


def worse_than_random(rows: Sequence[dict[str, Any]], training_set: str, images_per_class: int) -> list[str]:
    """The backbones on which as many random real images are better than a set, by more than its spread."""
    random = top1_rows(rows, numbered(RANDOM_IMAGES, images_per_class))
    own = top1_rows(rows, training_set).items()
    return [name for name, row in own if name in random and row["mean"] + row["std"] < random[name]["mean"]]


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies of one training set through one backbone, in percent.

    Args:
        training_set (`str`): What was trained on.
        backbone (`str`): What it was seen through.
        protocol (`str`): How the accuracy was found.
        accuracies (`dict[str, list[float]]`): For each metric one value per seed: `top-1`; `top-5` with more than five
            classes; `macro`, the mean over classes, where they differ much in size; `worst group` where there are
            groups.
        per_class (`dict[str, float]`, *optional*): Top-1 of each class, mean over the seeds.
        per_group (`dict[str, float]`, *optional*): Likewise of each pair of class and group.
    """

    training_set: str
    backbone: str
    protocol: str
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    per_group: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean top-1 over the seeds."""
        return self.rows()[0]["mean"]

    @property
    def std(self) -> float:
        """Standard deviation of top-1 over the seeds; 0 for one."""
        return self.rows()[0]["std"]

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """What trackers get: `eval_accuracy`, its spread, and what else there is, each name with a suffix."""
        values = {"eval_accuracy": self.mean, "eval_accuracy_std": self.std}
        names = {"top-5": "eval_accuracy_top5", "worst group": "eval_accuracy_worst_group"}
        values |= {names[row["metric"]]: row["mean"] for row in self.rows() if row["metric"] in names}
        return {f"{name}{suffix}": value for name, value in values.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One row per metric, as `results.json` holds them."""
        rows = []
        for metric, values in self.accuracies.items():
            tensor = torch.tensor(values, dtype=torch.float64)
            std = tensor.std().item() if len(values) > 1 else 0.0
            described = {name: getattr(self, name) for name in ("training_set", "backbone", "protocol")}
            numbers = {"mean": round(tensor.mean().item(), 2), "std": round(std, 2), "n_seeds": len(values)}
            rows.append({**described, "metric": metric, **numbers})
        return rows

    def named(self, training_set: str, backbone: str) -> "ProbeResult":
        """The same under other names."""
        return replace(self, training_set=training_set, backbone=backbone)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class EvalFeatures:
    """What is scored on.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        class_names (`list[str]`): Length C.
        groups (`torch.Tensor`, *optional*): Shape (N,), numbers of their groups; -1 for none.
        group_names (`list[str]`, *optional*): The groups' names.
    """

    z: torch.Tensor
    y: torch.Tensor
    class_names: list[str]
    groups: torch.Tensor | None = None
    group_names: list[str] | None = None

    @classmethod
    def of(cls, images: LabelledImages, z: torch.Tensor) -> "EvalFeatures":
        """Of images and their features, on the features' device."""
        groups = None if images.groups is None else images.groups.to(z.device)
        return cls(z.float(), images.labels.to(z.device), images.class_names, groups, images.group_names)

    @torch.no_grad()
    def result(
        self, training_set: str, backbone: str, protocol: str, logits: Callable[[torch.Tensor], torch.Tensor]
    ) -> ProbeResult:
        """What a classifier scores.

        Args:
            training_set (`str`): See [`ProbeResult`], also for the next two.
            backbone (`str`): Likewise.
            protocol (`str`): Likewise.
            logits (`Callable`): Logits of shape (seeds, M, C) of features of shape (M, D).
        """
        num_classes = len(self.class_names)
        k = 5 if num_classes > 5 else 1
        rows = max(1, _MAX_LOGITS // num_classes)  # at a time
        batches = zip(self.z.split(rows), self.y.split(rows), strict=True)
        best = torch.cat([logits(z).topk(k, dim=-1).indices == y[None, :, None] for z, y in batches], dim=1)
        hits = best[..., 0]  # (seeds, N)
        scores = {"top-1": accuracy(hits)}
        if k > 1:
            scores["top-5"] = accuracy(best.any(dim=-1))
        present, sizes = self.y.unique(return_counts=True)
        if sizes.max() > _UNBALANCED * sizes.min():
            scores["macro"] = macro_accuracy(hits, self.y)
        names = [self.class_names[label] for label in present.tolist()]
        per_class = dict(zip(names, _mean_percent(group_accuracies(hits, self.y)), strict=True))
        per_group = {}
        if self.groups is not None and self.group_names is not None and (self.groups >= 0).any():
            shares, pairs = subgroup_accuracies(hits, self.y, self.groups)
            scores["worst group"] = shares.amin(dim=-1)
            names = [f"{self.class_names[label]} / {self.group_names[group]}" for label, group in pairs]
            per_group = dict(zip(names, _mean_percent(shares), strict=True))
        accuracies = {metric: (100 * values).tolist() for metric, values in scores.items()}
        return ProbeResult(training_set, backbone, protocol, accuracies, per_class, per_group)


def _mean_percent(shares: torch.Tensor) -> list[float]:
    """Means over the seeds of shares of shape (seeds, G)."""
    return [round(share, 2) for share in (100 * shares.mean(dim=0)).tolist()]
