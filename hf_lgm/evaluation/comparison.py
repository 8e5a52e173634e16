"""The table that distilled sets are judged by: beside as many real images, and what all real images give."""

import functools
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, get_args

import torch
from tqdm import tqdm

from ..backbones.backbone import FrozenBackbone, check_names_differ
from ..data.labelled_images import LabelledImages
from ..features.extraction import FeatureExtractor
from ..features.streaming import StreamEncoder
from ..progress import progress
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import differences, made_through
from ..publishing.results import ALL_REAL_IMAGES, REAL_IMAGES, ProbeResult, numbered
from ..settings import BaselineKind, ProbeProtocol, ViewSettings
from .baselines import with_source_images
from .evaluator import Evaluator
from .references import REFERENCES
from .table import Comparison
from .transfer import TransferMatrix, matrix_of

logger = logging.getLogger(__name__)


def compare(
    sets: Mapping[str, Any],
    backbones: Any,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    *,
    baselines: Sequence[str] = ("random", "centroid"),
    references: Sequence[str] = tuple(REFERENCES),
    views: ViewSettings | None = None,
    protocol: ProbeProtocol | str = "fast",
    extractor: FeatureExtractor | None = None,
    cache: bool = True,
    **loading: Any,
) -> Comparison:
    """Sets beside as many real images, and beside what all real images give, through several backbones.

    A backbone that fails leaves the others' columns. Of a stream only some images are at hand: random ones are drawn
    among them, where there are enough, and there are no other real ones.

    Args:
        sets (`dict`): Sets by name, each in a form that [`DistilledSet.wrap`] takes: a set, its folder or Hub id, or a
            plain `datasets.Dataset` of a few images.
        backbones: One or a list, each as [`FrozenBackbone.wrap`] takes it: an id or folder, a live model of
            Transformers or timm, or a [`FrozenBackbone`]. The first one chooses the real images.
        train_dataset ([`LabelledImages`] or `datasets.Dataset`, *optional*): All real training images, or what
            [`LabelledImages.wrap`] takes besides. Without them there are no baselines, and no references but
            zero-shot text.
        eval_dataset (likewise): What is scored on.
        baselines (`Sequence[str]`, *optional*): Kinds of real images, see [`select_baseline`]; for each number of
            images per class among the sets. Random ones are drawn anew for each seed.
        references (`Sequence[str]`, *optional*): Which of `REFERENCES` to show.
        views ([`ViewSettings`], *optional*): Views that all probes are trained on; defaults to the first set's.
        protocol ([`ProbeProtocol`] or `str`, *optional*, defaults to `"fast"`): How probes are trained.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        cache (`bool`, *optional*, defaults to `True`): See [`Evaluator`].
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ValueError: If a set has other classes than the images, or nothing could be evaluated.
    """
    extractor = FeatureExtractor.given(extractor, loading)
    protocol = ProbeProtocol.named(protocol) if isinstance(protocol, str) else protocol
    wrapped = _wrapped(backbones)
    sets = _sets_by_name(sets)
    train_images, eval_images = _real_images(sets, wrapped, train_dataset, eval_dataset, protocol, extractor)
    if train_images is None:
        baselines, references = [], [name for name in references if name in REFERENCES and REFERENCES[name].needs_text]
        logger.info("Without training images there are no baselines, and no references that need them")
    else:
        sets = {name: with_source_images(images, train_images) for name, images in sets.items()}
    _check(sets, train_images, eval_images, baselines, references)
    views = views or next(iter(sets.values())).views
    if any(images.views.without_noise() != views.without_noise() for images in sets.values()):
        logger.warning("The sets were made with different views: all probes are trained on %s", views)
    comparison = Comparison(dict(sets), [])
    evaluators = [Evaluator(each, eval_images, train_images, protocol, extractor, cache) for each in wrapped]
    worked = _fill(comparison, evaluators, baselines, references, views)
    if not worked:
        raise ValueError(f"No backbone could be evaluated: {'; '.join(comparison.failures.values())}")
    if ALL_REAL_IMAGES in references:
        comparison.transfer = transfer_between(sets, worked, comparison.results)
    return comparison


def _wrapped(backbones: Any) -> list[FrozenBackbone]:
    """One or several in any form, each with a name of its own."""
    given = backbones if isinstance(backbones, (list, tuple)) else [backbones]
    wrapped = [FrozenBackbone.wrap(each) for each in given]
    check_names_differ([backbone.name for backbone in wrapped])
    return wrapped


def _fill(
    comparison: Comparison,
    evaluators: Sequence[Evaluator],
    baselines: Sequence[str],
    references: Sequence[str],
    views: ViewSettings,
) -> list[Evaluator]:
    """Results of each backbone, and the real images that the first one chooses; those that did not fail come back."""
    accelerator, sets = evaluators[0].extractor.accelerator, comparison.sets
    of_real, worked = None, []
    with progress(desc="evaluating", unit="row", disable=not accelerator.is_main_process) as bar:
        for evaluator in evaluators:
            try:
                if of_real is None:
                    of_real = _real_sets(sets, baselines, evaluator, views) if baselines else {}
                    if of_real:
                        logger.info("Real images are chosen through %s", evaluator.backbone.name)
                rows = of_real | {name: [images] * evaluator.protocol.seeds for name, images in sets.items()}
                bar.total = len(evaluators) * (len(rows) + len(references))
                comparison.results += _column(evaluator, rows, references, views, bar)
                worked.append(evaluator)
                evaluator.release()
            except Exception as error:  # a model's own code may raise anything
                if accelerator.num_processes > 1:  # the others wait for this one
                    raise
                comparison.leave_out(evaluator.backbone.name, error)
    comparison.sets = {name: images[0] for name, images in (of_real or {}).items()} | sets
    return worked


def _column(
    evaluator: Evaluator,
    sets: Mapping[str, Sequence[DistilledSet]],
    references: Sequence[str],
    views: ViewSettings,
    bar: tqdm,
) -> list[ProbeResult]:
    """What one backbone gives, each row said as soon as it is known."""
    probes = (evaluator.probe(name, images, views) for name, images in sets.items())
    found = []
    for result in chain(probes, map(evaluator.reference, references)):
        bar.update()
        if result is not None:  # else a reference without meaning for this backbone
            logger.info("%s: %s %s", result.backbone, result.training_set, result)
            found.append(result)
    return found


def _sets_by_name(sets: Mapping[str, Any]) -> dict[str, DistilledSet]:
    if not isinstance(sets, Mapping) or not sets:
        found = "none" if isinstance(sets, Mapping) else type(sets).__name__
        raise TypeError(f"Expected sets by name, such as {{'distilled': set}}; found {found}.")
    return {name: DistilledSet.wrap(images) for name, images in sets.items()}


def _real_images(
    sets: dict[str, DistilledSet],
    backbones: Sequence[FrozenBackbone],
    train_dataset: Any,
    eval_dataset: Any,
    protocol: ProbeProtocol,
    extractor: FeatureExtractor,
) -> tuple[LabelledImages | None, LabelledImages]:
    """Those to train on, where there are any, and those to score on, which number their classes alike."""
    if eval_dataset is None:
        raise ValueError("compare needs an eval_dataset: the real images to score on.")
    if train_dataset is None and (absent := [name for name, images in sets.items() if not images.has_images]):
        raise ValueError(f"'{absent[0]}' is rows of real images without the images: give its source as train_dataset.")
    kept = max(protocol.seeds, 3 * max(images.images_per_class for images in sets.values()))
    encoder = StreamEncoder(backbones, extractor.accelerator, extractor.batch_size, kept_per_class=kept)
    train_images = None if train_dataset is None else LabelledImages.wrap(train_dataset, encoder)
    class_names = next(iter(sets.values())).class_names if train_images is None else train_images.class_names
    return train_images, LabelledImages.wrap(eval_dataset, encoder, keep_images=False).aligned(class_names)


def _check(
    sets: dict[str, DistilledSet],
    train_images: LabelledImages | None,
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
    if baselines and train_images is not None and not train_images.is_streamed:
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
                found[numbered(REAL_IMAGES[kind], per_class)] = draws
            elif kind == "neighbor":
                for name, images in sets.items():
                    if not images.is_real and images.images_per_class == per_class:
                        near = select(kind, neighbors_of=images)
                        found[f"neighbours of {name}"] = [near] * evaluator.protocol.seeds
            else:
                found[numbered(REAL_IMAGES[kind], per_class)] = [select(kind)] * evaluator.protocol.seeds
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


def transfer_between(
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
