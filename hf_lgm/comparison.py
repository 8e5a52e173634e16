"""The table that distilled sets are judged by: beside as many real images, and what all real images give."""

import functools
import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator

from .augmentation import ViewSettings
from .backbone import FrozenBackbone
from .baselines import BaselineKind, with_source_images
from .data import LabelledImages
from .distilled_set import DistilledSet
from .evaluation import REFERENCES, Evaluation
from .figures import ComparisonRow, evenly_sampled, first_of_each, save_comparison
from .loading import check_classes
from .probe import ProbeProtocol
from .provenance import made_through
from .results import RANDOM_IMAGES, ProbeResult, numbered, worse_than_random
from .transfer import TransferMatrix, matrix_of

logger = logging.getLogger(__name__)

# As many columns of the Markdown table as there are backbones follow this one.
_TITLE = "trained on"
_NAMES = {
    "centroid": "centroid real images",
    "kmeans": "k-means real images",
    "herding": "herding real images",
    "matched": "matched real images",
}


@dataclass
class Comparison:
    """Accuracies of training sets through backbones.

    Args:
        sets (`dict[str, DistilledSet]`): The sets of a few images, by name; of random real images the first draw.
        results (`list[ProbeResult]`): One for each set or reference and backbone.
        failures (`dict[str, str]`): For each backbone that could not be used what it said.
        transfer ([`TransferMatrix`], *optional*): Where two of the sets were distilled through two of the backbones.
    """

    sets: dict[str, DistilledSet]
    results: list[ProbeResult]
    failures: dict[str, str] = field(default_factory=dict)
    transfer: TransferMatrix | None = None

    @property
    def metrics(self) -> list[str]:
        """The metrics that there are, top-1 first."""
        return list(self.results[0].accuracies)

    @property
    def backbones(self) -> list[str]:
        """Names of those that gave results."""
        return list(dict.fromkeys(result.backbone for result in self.results))

    def table(self, metric: str = "top-1") -> str:
        """A Markdown table in percent: training sets × backbones, mean ± standard deviation over seeds."""
        backbones = [*self.backbones, *self.failures]
        cells = {(result.training_set, result.backbone): _cell(result, metric) for result in self.results}
        names = list(dict.fromkeys(result.training_set for result in self.results))
        rows = [[_TITLE, *map(_short, backbones)]]
        for name in names:
            known = [cells.get((name, backbone), "") for backbone in self.backbones]
            rows.append([name, *known, *["failed"] * len(self.failures)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)

    def leave_out(self, backbone: str, error: Exception) -> None:
        """A backbone that failed: without results, and with what it said."""
        logger.error("%s failed, and its column stays empty: %s", backbone, error)
        self.failures[backbone] = str(error)
        self.results = [result for result in self.results if result.backbone != backbone]

    def warnings(self) -> list[str]:
        """Where a reader of the table should not be too pleased: transfer below a random real image."""
        rows = [row for result in self.results for row in result.rows()]
        return [
            f"'{name}' is worse than random real images on {_short(backbone)}: do not use it there."
            for name, images in self.sets.items()
            if not images.is_real
            for backbone in worse_than_random(rows, name, images.images_per_class)
        ]

    def save_picture(self, path: Path, backbones: Sequence[str]) -> Path:
        """Real images and the distilled above each other, each row with its top-1 on these backbones."""
        class_names = next(iter(self.sets.values())).class_names
        shown = evenly_sampled(len(class_names))
        top1 = {(r.training_set, r.backbone): _cell(r, "top-1") for r in self.results}
        names = [name for name, images in self.sets.items() if images.is_real] + [
            name for name, images in self.sets.items() if not images.is_real
        ]
        rows = [
            ComparisonRow(
                _wrapped(name),
                first_of_each(self.sets[name].dataset, self.sets[name].labels_as(class_names), shown),
                [top1[name, backbone] for backbone in backbones],
            )
            for name in names
        ]
        columns = (
            [f"top-1 on\n{textwrap.fill(_short(name), 14)}" for name in backbones] if len(backbones) > 1 else ["top-1"]
        )
        return save_comparison(rows, [class_names[i] for i in shown], columns, path)


def compare(
    sets: dict[str, DistilledSet],
    backbones: Sequence[FrozenBackbone],
    train: LabelledImages,
    real: LabelledImages,
    *,
    baselines: Sequence[str] = ("random", "centroid"),
    references: Sequence[str] = REFERENCES,
    views: ViewSettings | None = None,
    protocol: ProbeProtocol | None = None,
    accelerator: Accelerator | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    cache: bool = True,
) -> Comparison:
    """Sets beside as many real images, and beside what all real images give, through several backbones.

    A backbone that fails leaves the others' columns. Of a stream only some images are at hand: random ones are drawn
    among them, where there are enough, and there are no other real ones.

    Args:
        sets (`dict[str, DistilledSet]`): Sets by name.
        backbones (`Sequence[FrozenBackbone]`): The first one chooses the real images.
        train ([`LabelledImages`]): All real training images.
        real ([`LabelledImages`]): What is scored on.
        baselines (`Sequence[str]`, *optional*): Kinds of real images, see [`select_baseline`]; for each number of
            images per class among the sets. Random ones are drawn anew for each seed.
        references (`Sequence[str]`, *optional*): Which of `REFERENCES` to show.
        views ([`ViewSettings`], *optional*): Views that all probes are trained on; defaults to the first set's.
        protocol ([`ProbeProtocol`], *optional*): How probes are trained.
        accelerator (`accelerate.Accelerator`, *optional*): Shares out the encoding of real images.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
        cache (`bool`, *optional*, defaults to `True`): See [`Evaluation`].

    Raises:
        ValueError: If a set has other classes than the images, or nothing could be evaluated.
    """
    sets = {name: with_source_images(images, train) for name, images in sets.items()}
    _check(sets, train, real, baselines, references)
    accelerator, protocol = accelerator or Accelerator(), protocol or ProbeProtocol()
    views = views or next(iter(sets.values())).views
    if any(images.views.without_noise() != views.without_noise() for images in sets.values()):
        logger.warning("The sets were made with different views: all probes are trained on %s", views)
    of_real, worked, comparison = None, [], Comparison(dict(sets), [])
    for backbone in backbones:
        evaluation = Evaluation(backbone, real, train, protocol, accelerator, batch_size, num_workers, cache)
        try:
            if of_real is None:
                of_real = _real_sets(sets, baselines, evaluation, views)
                logger.info("Real images are chosen through %s", backbone.name)
            rows = of_real | {name: [images] * protocol.seeds for name, images in sets.items()}
            comparison.results += [evaluation.probe(name, images, views) for name, images in rows.items()]
            comparison.results += [found for name in references if (found := evaluation.reference(name)) is not None]
            worked.append(evaluation)
            evaluation.release()
        except Exception as error:  # a model's own code may raise anything
            if accelerator.num_processes > 1:  # the others wait for this one
                raise
            comparison.leave_out(backbone.name, error)
    if not worked:
        raise ValueError(f"No backbone could be evaluated: {'; '.join(comparison.failures.values())}")
    comparison.sets = {name: images[0] for name, images in (of_real or {}).items()} | sets
    if "all real images" in references:
        comparison.transfer = _transfer(sets, worked, comparison.results)
    return comparison


def _check(
    sets: dict[str, DistilledSet],
    train: LabelledImages,
    real: LabelledImages,
    baselines: Sequence[str],
    references: Sequence[str],
) -> None:
    """Refuse what can't be compared, before anything is encoded."""
    for name, images in sets.items():
        counts = torch.bincount(images.labels_as(real.class_names, f"'{name}' has"), minlength=real.num_classes)
        if counts.min() != counts.max():
            raise ValueError(
                f"'{name}' has {counts.min()} to {counts.max()} images of a class: expected as many of each."
            )
    for asked, known in ((baselines, get_args(BaselineKind)), (references, REFERENCES)):
        if unknown := sorted(set(asked) - set(known)):
            raise ValueError(f"Expected some of {', '.join(known)}; found {', '.join(unknown)}.")
    if baselines and not train.is_streamed:
        try:
            check_classes(train, max(images.images_per_class for images in sets.values()))
        except ValueError as error:
            raise ValueError(f"{error} --baselines none leaves real images out.") from error


def _real_sets(
    sets: dict[str, DistilledSet], baselines: Sequence[str], evaluation: Evaluation, views: ViewSettings
) -> dict[str, list[DistilledSet]]:
    """Real images by name, one set per seed, for each number of images per class; chosen through one backbone."""
    found = {}
    for per_class in sorted({images.images_per_class for images in sets.values()}):
        settings = {"images_per_class": per_class, "flip": views.flip, "crop_scale": list(views.crop_scale)}
        select = functools.partial(evaluation.baseline, images_per_class=per_class, config={"settings": settings})
        for kind in _possible(baselines, per_class, evaluation.training_images):
            if kind == "random":
                draws = [select(kind, seed=seed) for seed in range(evaluation.protocol.seeds)]
                found[numbered(RANDOM_IMAGES, per_class)] = draws
            elif kind == "neighbor":
                for name, images in sets.items():
                    if not images.is_real and images.images_per_class == per_class:
                        near = select(kind, neighbors_of=images)
                        found[f"neighbours of {name}"] = [near] * evaluation.protocol.seeds
            else:
                found[numbered(_NAMES[kind], per_class)] = [select(kind)] * evaluation.protocol.seeds
    return found


def _possible(baselines: Sequence[str], per_class: int, train: LabelledImages) -> list[str]:
    """Those kinds that have a meaning of their own, and whose pictures are at hand."""
    kinds = list(baselines)
    if per_class == 1:
        kinds = [kind for kind in kinds if kind not in ("kmeans", "herding")]  # these are the centroid
    if train.is_streamed:
        kept = torch.bincount(train.with_pictures().labels, minlength=train.num_classes)
        kinds = [kind for kind in kinds if kind == "random" and kept.min() >= per_class]
        if "random" in baselines and not kinds:
            logger.warning("Of some classes the stream's kept images are too few: no row of random real images")
    return kinds


def _transfer(
    sets: dict[str, DistilledSet], worked: Sequence[Evaluation], results: Sequence[ProbeResult]
) -> TransferMatrix | None:
    """Of the first distilled set of each backbone, with as many images per class as most backbones made.

    `None` where fewer than two backbones made one.
    """
    names = {evaluation.backbone.name for evaluation in worked}
    made: dict[int, dict[str, str]] = {}
    for name, images in sets.items():
        models = made_through(images.config)
        if not images.is_real and len(models) == 1 and models[0] in names:
            made.setdefault(images.images_per_class, {}).setdefault(models[0], name)
    made_by = max(made.values(), key=len, default={})
    chosen = [evaluation for evaluation in worked if evaluation.backbone.name in made_by]
    if len(chosen) < 2:
        if len(worked) > 1 and len(sets) > 1:
            logger.info("No transfer matrix: the sets were not distilled through two of these backbones")
        return None
    top1 = {(result.training_set, result.backbone): result.mean for result in results}
    through = [evaluation.backbone.name for evaluation in chosen]
    return matrix_of(chosen, [[top1[made_by[row], column] for column in through] for row in through])


def _cell(result: ProbeResult, metric: str) -> str:
    found = next((row for row in result.rows() if row["metric"] == metric), None)
    if found is None:
        return ""
    return f"{found['mean']:.1f} ± {found['std']:.1f}" if found["n_seeds"] > 1 else f"{found['mean']:.1f}"


def _short(name: str) -> str:
    return Path(name).name


def _wrapped(name: str) -> str:
    return textwrap.fill(name, 19)
