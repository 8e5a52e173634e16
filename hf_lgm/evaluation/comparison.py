"""The table that distilled sets are judged by: beside as many real images, and what all real images give."""

import functools
import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from ..backbones.backbone import FrozenBackbone, check_names_differ
from ..data.labelled_images import LabelledImages
from ..features.extraction import FeatureExtractor
from ..publishing.distilled_set import DistilledSet
from ..publishing.figures import ComparisonRow, evenly_sampled, first_of_each, save_comparison
from ..publishing.provenance import differences, made_through
from ..publishing.results import (
    ALL_REAL_IMAGES,
    RANDOM_IMAGES,
    ProbeResult,
    markdown_table,
    numbered,
    percent,
    worse_than_random,
)
from ..settings import BaselineKind, ProbeProtocol, ViewSettings
from .baselines import with_source_images
from .evaluator import Evaluator
from .references import REFERENCES
from .transfer import TransferMatrix, matrix_of, shown_names

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
        rows = [[_TITLE, *shown_names(backbones)]]
        for name in names:
            known = [cells.get((name, backbone), "") for backbone in self.backbones]
            rows.append([name, *known, *["failed"] * len(self.failures)])
        return markdown_table(rows)

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

    def save_figure(self, path: Path, backbones: Sequence[str]) -> Path:
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
                first_of_each(self.sets[name].dataset, _shown_labels(self.sets[name], class_names), shown),
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
    train_images: LabelledImages,
    eval_images: LabelledImages,
    *,
    baselines: Sequence[str] = ("random", "centroid"),
    references: Sequence[str] = tuple(REFERENCES),
    views: ViewSettings | None = None,
    protocol: ProbeProtocol | None = None,
    extractor: FeatureExtractor | None = None,
    cache: bool = True,
    **loading: Any,
) -> Comparison:
    """Sets beside as many real images, and beside what all real images give, through several backbones.

    A backbone that fails leaves the others' columns. Of a stream only some images are at hand: random ones are drawn
    among them, where there are enough, and there are no other real ones.

    Args:
        sets (`dict[str, DistilledSet]`): Sets by name.
        backbones (`Sequence[FrozenBackbone]`): The first one chooses the real images.
        train_images ([`LabelledImages`]): All real training images.
        eval_images ([`LabelledImages`]): What is scored on.
        baselines (`Sequence[str]`, *optional*): Kinds of real images, see [`select_baseline`]; for each number of
            images per class among the sets. Random ones are drawn anew for each seed.
        references (`Sequence[str]`, *optional*): Which of `REFERENCES` to show.
        views ([`ViewSettings`], *optional*): Views that all probes are trained on; defaults to the first set's.
        protocol ([`ProbeProtocol`], *optional*): How probes are trained.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        cache (`bool`, *optional*, defaults to `True`): See [`Evaluator`].
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ValueError: If a set has other classes than the images, or nothing could be evaluated.
    """
    check_names_differ([backbone.name for backbone in backbones])
    sets = {name: with_source_images(images, train_images) for name, images in sets.items()}
    _check(sets, train_images, eval_images, baselines, references)
    extractor, protocol = FeatureExtractor.given(extractor, loading), protocol or ProbeProtocol()
    views = views or next(iter(sets.values())).views
    if any(images.views.without_noise() != views.without_noise() for images in sets.values()):
        logger.warning("The sets were made with different views: all probes are trained on %s", views)
    of_real, worked, comparison = None, [], Comparison(dict(sets), [])
    for backbone in backbones:
        evaluator = Evaluator(backbone, eval_images, train_images, protocol, extractor, cache)
        try:
            if of_real is None:
                of_real = _real_sets(sets, baselines, evaluator, views)
                logger.info("Real images are chosen through %s", backbone.name)
            rows = of_real | {name: [images] * protocol.seeds for name, images in sets.items()}
            comparison.results += [evaluator.probe(name, images, views) for name, images in rows.items()]
            comparison.results += [found for name in references if (found := evaluator.reference(name)) is not None]
            worked.append(evaluator)
            evaluator.release()
        except Exception as error:  # a model's own code may raise anything
            if extractor.accelerator.num_processes > 1:  # the others wait for this one
                raise
            comparison.leave_out(backbone.name, error)
    if not worked:
        raise ValueError(f"No backbone could be evaluated: {'; '.join(comparison.failures.values())}")
    comparison.sets = {name: images[0] for name, images in (of_real or {}).items()} | sets
    if ALL_REAL_IMAGES in references:
        comparison.transfer = _transfer(sets, worked, comparison.results)
    return comparison


def _check(
    sets: dict[str, DistilledSet],
    train_images: LabelledImages,
    eval_images: LabelledImages,
    baselines: Sequence[str],
    references: Sequence[str],
) -> None:
    """Refuse what can't be compared, before anything is encoded."""
    for name, images in sets.items():
        counts = torch.bincount(
            images.labels_as(eval_images.class_names, f"'{name}' has"), minlength=eval_images.num_classes
        )
        if counts.min() != counts.max():
            raise ValueError(
                f"'{name}' has {counts.min()} to {counts.max()} images of a class: expected as many of each."
            )
    for asked, known in ((baselines, get_args(BaselineKind)), (references, tuple(REFERENCES))):
        if unknown := sorted(set(asked) - set(known)):
            raise ValueError(f"Expected some of {', '.join(known)}; found {', '.join(unknown)}.")
    if baselines and not train_images.is_streamed:
        try:
            train_images.check_classes(max(images.images_per_class for images in sets.values()))
        except ValueError as error:
            raise ValueError(f"{error} baselines=[] leaves them out (in a command: none).") from error


def _real_sets(
    sets: dict[str, DistilledSet], baselines: Sequence[str], evaluator: Evaluator, views: ViewSettings
) -> dict[str, list[DistilledSet]]:
    """Real images by name, one set per seed, for each number of images per class; chosen through one backbone."""
    found = {}
    for per_class in sorted({images.images_per_class for images in sets.values()}):
        settings = {"images_per_class": per_class, "flip": views.flip, "crop_scale": list(views.crop_scale)}
        settings |= {"bounded_crops": views.bounded_crops}
        select = functools.partial(evaluator.baseline, images_per_class=per_class, config={"settings": settings})
        for kind in _possible(baselines, per_class, evaluator.training_images):
            if kind == "random":
                draws = [select(kind, seed=seed) for seed in range(evaluator.protocol.seeds)]
                found[numbered(RANDOM_IMAGES, per_class)] = draws
            elif kind == "neighbor":
                for name, images in sets.items():
                    if not images.is_real and images.images_per_class == per_class:
                        near = select(kind, neighbors_of=images)
                        found[f"neighbours of {name}"] = [near] * evaluator.protocol.seeds
            else:
                found[numbered(_NAMES[kind], per_class)] = [select(kind)] * evaluator.protocol.seeds
    return found


def _possible(baselines: Sequence[str], per_class: int, train: LabelledImages) -> list[str]:
    """Those kinds that have a meaning of their own, and whose images are at hand."""
    kinds = list(baselines)
    if per_class == 1:
        kinds = [kind for kind in kinds if kind not in ("kmeans", "herding")]  # these are the centroid
    if train.is_streamed:
        kept = torch.bincount(train.with_images().labels, minlength=train.num_classes)
        kinds = [kind for kind in kinds if kind == "random" and kept.min() >= per_class]
        if "random" in baselines and not kinds:
            logger.warning("Of some classes the stream's kept images are too few: no row of random real images")
    return kinds


def _transfer(
    sets: dict[str, DistilledSet], worked: Sequence[Evaluator], results: Sequence[ProbeResult]
) -> TransferMatrix | None:
    """Of the first distilled set of each backbone, with as many images per class as most backbones made.

    `None` where fewer than two backbones made one.
    """
    backbones = {evaluator.backbone.name: evaluator.backbone for evaluator in worked}
    made: dict[int, dict[str, str]] = {}
    for name, images in sets.items():
        models = made_through(images.config)
        if images.is_real or len(models) != 1 or models[0] not in backbones:
            continue
        if others := differences(images.config, backbones[models[0]]):
            logger.warning("'%s' is left out of the transfer matrix: it was made with %s", name, "; ".join(others))
        else:
            made.setdefault(images.images_per_class, {}).setdefault(models[0], name)
    made_by = max(made.values(), key=len, default={})
    chosen = [evaluator for evaluator in worked if evaluator.backbone.name in made_by]
    if len(chosen) < 2:
        if len(worked) > 1 and len(sets) > 1:
            logger.info("No transfer matrix: the sets were not distilled through two of these backbones")
        return None
    top1 = {(result.training_set, result.backbone): result.mean for result in results}
    through = [evaluator.backbone.name for evaluator in chosen]
    return matrix_of(chosen, [[top1[made_by[row], column] for column in through] for row in through])


def _cell(result: ProbeResult, metric: str) -> str:
    return next((percent(row) for row in result.rows() if row["metric"] == metric), "")


def _shown_labels(images: DistilledSet, class_names: list[str]) -> torch.Tensor:
    """The labels of images that a row of the figure may show, -1 for others: of a distilled set, what was learned."""
    labels = images.labels_as(class_names)
    return labels if images.is_real else labels.masked_fill(images.real_rows, -1)


def _short(name: str) -> str:
    return Path(name).name


def _wrapped(name: str) -> str:
    return textwrap.fill(name, 19)
