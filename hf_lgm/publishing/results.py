"""What a classifier on features scores on real images: per seed, per class, per group."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import pandas

# What tables call real images, of which there are as many as synthetic ones.
RANDOM_IMAGES = "random real images"
REAL_IMAGES = {
    "random": RANDOM_IMAGES,
    "centroid": "centroid real images",
    "kmeans": "k-means real images",
    "herding": "herding real images",
    "matched": "matched real images",
}

# Titles of rows that are looked for.
CLASS_MEAN = "nearest class mean"
ALL_REAL_IMAGES = "all real images"


def numbered(name: str, images_per_class: int) -> str:
    """The name of a row of a table whose sets differ in size."""
    return name if images_per_class == 1 else f"{name}, {images_per_class} per class"


def percent(row: dict[str, Any]) -> str:
    """The mean of one row of results, with its standard deviation where there are several probes: `88.2 ± 0.9`."""
    spread = f" ± {row['std']:.1f}" if row["n_seeds"] > 1 else ""
    return f"{row['mean']:.1f}{spread}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned in a terminal; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def top1_rows(rows: Sequence[dict[str, Any]], training_set: str) -> dict[str, dict[str, Any]]:
    """The top-1 of one training set, by backbone."""
    return {row["backbone"]: row for row in rows if (row["training_set"], row["metric"]) == (training_set, "top-1")}


def better_real_images(
    rows: Sequence[dict[str, Any]], training_set: str, images_per_class: int
) -> dict[str, tuple[str, float, float]]:
    """By backbone: the best kind of as many real images, its top-1 and the set's, where it is ahead by its spread."""
    best: dict[str, tuple[float, str]] = {}
    for kind in REAL_IMAGES.values():
        for backbone, row in top1_rows(rows, numbered(kind, images_per_class)).items():
            best[backbone] = max((row["mean"], kind), best.get(backbone, (0.0, "")))
    found = {}
    for backbone, own in top1_rows(rows, training_set).items():
        mean, kind = best.get(backbone, (0.0, ""))
        if own["mean"] + own["std"] < mean:
            found[backbone] = (kind, mean, own["mean"])
    return found


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

    def __str__(self) -> str:
        return f"{percent(self.rows()[0])} %"

    def __repr__(self) -> str:
        return f"ProbeResult('{self.training_set}' through {self.backbone}: {self})"

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

    def to_pandas(self) -> "pandas.DataFrame":
        """The same rows as a table of pandas."""
        import pandas  # here, since it is slow to load

        return pandas.DataFrame(self.rows())

    def named(self, training_set: str, backbone: str) -> "ProbeResult":
        """The same under other names."""
        return replace(self, training_set=training_set, backbone=backbone)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
