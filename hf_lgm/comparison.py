"""The table that a distilled set is judged by: real images of the same number, and what all of them give."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from .backbone import FrozenBackbone
from .baselines import centroid_rows, random_rows, real_image_set
from .data import LabelledImages
from .distilled_set import DistilledSet
from .features import extract_features
from .figures import ComparisonRow, evenly_sampled, first_of_each, save_comparison
from .probe import EvalFeatures, ProbeProtocol, ProbeResult, evaluate_probe, full_data_probe, nearest_class_mean

logger = logging.getLogger(__name__)

# As many columns of the Markdown table as there are backbones follow this one.
_TITLE = "trained on"


@dataclass
class Comparison:
    """Accuracies of training sets through backbones.

    Args:
        sets (`dict[str, DistilledSet]`): The sets of a few images, by name; of random real images the first draw.
        results (`list[ProbeResult]`): One for each set or reference and backbone.
    """

    sets: dict[str, DistilledSet]
    results: list[ProbeResult]

    @property
    def metrics(self) -> list[str]:
        """The metrics that there are, top-1 first."""
        return list(self.results[0].accuracies)

    def table(self, metric: str = "top-1") -> str:
        """A Markdown table in percent: training sets × backbones, mean ± standard deviation over seeds."""
        backbones = list(dict.fromkeys(result.backbone for result in self.results))
        cells = {
            (row["training_set"], row["backbone"]): f"{row['mean']:.1f} ± {row['std']:.1f}"
            for result in self.results
            for row in result.rows()
            if row["metric"] == metric
        }
        names = list(dict.fromkeys(result.training_set for result in self.results))
        rows = [[_TITLE, *map(_short, backbones)]]
        rows += [[name, *(cells.get((name, backbone), "") for backbone in backbones)] for name in names]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """Where a reader of the table should not be too pleased: transfer below a random real image."""
        mean = {(result.training_set, result.backbone): result.mean for result in self.results}
        return [
            f"'{name}' is worse than random real images on {_short(backbone)}: do not use it there."
            for (name, backbone), value in mean.items()
            if name.startswith("distilled") and value < mean.get(("random real images", backbone), 0)
        ]

    def save_picture(self, path: Path, backbone: str) -> Path:
        """Random real images, central ones and the distilled above each other, each row with its top-1."""
        class_names = next(iter(self.sets.values())).class_names
        shown = evenly_sampled(len(class_names))
        top1 = {r.training_set: f"{r.mean:.1f} % ± {r.std:.1f}" for r in self.results if r.backbone == backbone}
        names = sorted(self.sets, key=lambda name: name.startswith("distilled"))
        rows = [
            ComparisonRow(_wrapped(name), first_of_each(self.sets[name].dataset, shown), top1[name]) for name in names
        ]
        return save_comparison(rows, [class_names[i] for i in shown], path)


def compare(
    distilled: dict[str, DistilledSet],
    backbones: Sequence[FrozenBackbone],
    train: LabelledImages,
    evaluation: LabelledImages,
    accelerator: Accelerator,
    protocol: ProbeProtocol,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Comparison:
    """Distilled sets beside as many random and centroid real images, the nearest class mean, and all real images.

    Of a stream only some images are at hand: random ones are drawn among them, where there are enough, and there are
    no centroid ones.

    Args:
        distilled (`dict[str, DistilledSet]`): Sets by name, made through the first backbone.
        backbones (`Sequence[FrozenBackbone]`): The first one chooses the central images.
        train ([`LabelledImages`]): What was distilled.
        evaluation ([`LabelledImages`]): What is scored on.
        accelerator (`accelerate.Accelerator`): Shares out the encoding of real images.
        protocol ([`ProbeProtocol`]): How probes are trained; random images are drawn anew for each seed.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
    """
    first = next(iter(distilled.values()))
    config = {"settings": first.config.get("settings", {})}
    classes, per_class = train.num_classes, len(first.dataset) // train.num_classes
    size, ratio = first.dataset[0]["image"].width, backbones[0].preprocessing.resize_ratio
    sets: dict[str, DistilledSet | list[DistilledSet]] = {}
    seen = train.with_pictures()
    if torch.bincount(seen.labels, minlength=classes).min() >= per_class:
        draws = [random_rows(seen.labels, classes, per_class, seed) for seed in range(protocol.seeds)]
        sets["random real images"] = [real_image_set(seen, rows, size, ratio, config) for rows in draws]
    else:
        logger.warning("Of some classes the stream's kept images are too few: no row of random real images")
    if not train.is_streamed:
        z = extract_features(backbones[0], train, accelerator, batch_size, num_workers)
        rows = centroid_rows(z, train.labels, classes, per_class)
        sets["centroid real images"] = real_image_set(train, rows, size, ratio, config)
    sets |= distilled
    results = []
    for backbone in backbones:
        for name, images in sets.items():
            results.append(
                evaluate_probe(
                    backbone,
                    images,
                    evaluation,
                    name=name,
                    protocol=protocol,
                    accelerator=accelerator,
                    batch_size=batch_size,
                    num_workers=num_workers,
                )
            )
        results += _references(backbone, train, evaluation, accelerator, protocol, batch_size, num_workers)
    shown = {name: images if isinstance(images, DistilledSet) else images[0] for name, images in sets.items()}
    return Comparison(shown, results)


def _references(
    backbone: FrozenBackbone,
    train: LabelledImages,
    evaluation: LabelledImages,
    accelerator: Accelerator,
    protocol: ProbeProtocol,
    batch_size: int,
    num_workers: int,
) -> list[ProbeResult]:
    """What all real images give through one backbone."""
    device = accelerator.device
    z, z_eval = (
        extract_features(backbone, images, accelerator, batch_size, num_workers).to(device)
        for images in (train, evaluation)
    )
    y, real = train.labels.to(device), EvalFeatures.of(evaluation, z_eval)
    return [
        nearest_class_mean(backbone.name, z, y, real, train.num_classes),
        full_data_probe(backbone.name, z, y, real, train.num_classes, protocol),
    ]


def _short(name: str) -> str:
    return Path(name).name


def _wrapped(name: str) -> str:
    return name.replace(" real", "\nreal").replace(" from", "\nfrom")
