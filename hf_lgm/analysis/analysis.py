"""What one set shows through several backbones: all numbers, and the folder of plots that they become."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from ..backbones.backbone import FrozenBackbone, check_names_differ
from ..data.labelled_images import LabelledImages
from ..evaluation.baselines import centre_features, with_source_images
from ..evaluation.comparison import transfer_between
from ..evaluation.evaluator import Evaluator
from ..evaluation.probe import probe_logits
from ..evaluation.references import REFERENCES
from ..evaluation.transfer import TransferMatrix
from ..features.extraction import FeatureExtractor
from ..features.streaming import StreamEncoder
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import made_through
from ..publishing.results import ALL_REAL_IMAGES
from ..settings import ProbeProtocol, Projection, ViewSettings
from .classes import ClassAccuracy, class_accuracies, confusion_matrix
from .groups import GroupAccuracy, group_accuracies, nearest_in_groups
from .projection import ProjectedFeatures, check_projection, project
from .similarity import ClassSimilarity, class_similarity, linear_weights
from .spectrum import Spectrum, compare_spectra

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackboneAnalysis:
    """What one backbone shows of a set.

    Args:
        backbone (`str`): Its name.
        of_set (`float`): Top-1 in percent of probes on the set, the mean over them.
        of_full (`float`): Top-1 in percent of the probe on all real images.
        projection ([`ProjectedFeatures`]): Where the images lie among real ones.
        similarity ([`ClassSimilarity`]): Which classes look alike.
        classes (`list[ClassAccuracy]`): Those where the set loses most first.
        groups (`list[GroupAccuracy]`): Each class in each group; empty where there are none.
    """

    backbone: str
    of_set: float
    of_full: float
    projection: ProjectedFeatures
    similarity: ClassSimilarity
    classes: list[ClassAccuracy]
    groups: list[GroupAccuracy]


@dataclass(frozen=True)
class Analysis:
    """What a set shows of the backbones that look at it.

    Args:
        name (`str`): What the set is called.
        images ([`DistilledSet`]): The set.
        class_names (`list[str]`): The classes, in the order of the real images.
        through (`list[BackboneAnalysis]`): Its numbers, one for each backbone.
        spectrum ([`Spectrum`], *optional*): How fine its images are; `None` where no real image is at hand.
        transfer ([`TransferMatrix`], *optional*): Where sets were made through two of the backbones.
        made_through (`list[str]`): The backbones that the set says it was made through.
    """

    name: str
    images: DistilledSet
    class_names: list[str]
    through: list[BackboneAnalysis]
    spectrum: Spectrum | None
    transfer: TransferMatrix | None
    made_through: list[str]

    def __repr__(self) -> str:
        return f"Analysis('{self.name}' through {', '.join(each.backbone for each in self.through)})"

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        names = self.class_names
        return {
            "set": self.name,
            "made_through": self.made_through,
            "backbones": {
                each.backbone: {
                    "top1_set": round(each.of_set, 2),
                    "top1_all_real_images": round(each.of_full, 2),
                    "projection": each.projection.to_dict(names),
                    "class_similarity": each.similarity.to_dict(names),
                    "classes": [one.to_dict() for one in each.classes],
                    "groups": [one.to_dict() for one in each.groups],
                }
                for each in self.through
            },
            "spectrum": self.spectrum.to_dict() if self.spectrum else None,
            "transfer": self.transfer.to_dict() if self.transfer else None,
        }

    def save(self, folder: str | Path) -> Path:
        """Write `analysis.json`, the plots as PNG and SVG, and `analysis.md`, which shows them; returns the folder.

        With groups, a plot shows real images: it is for looking at here.

        Args:
            folder (`str` or `Path`): Where to; an earlier analysis there is replaced.

        Raises:
            FileExistsError: If files of these names are there that are not of an analysis.
            ImportError: If matplotlib is not installed.
        """
        from .report import save_analysis  # here, since it needs what draws

        return save_analysis(self, Path(folder))


def analyze(
    images: Any,
    backbones: Any,
    train_dataset: Any,
    eval_dataset: Any,
    *,
    name: str = "distilled",
    others: Sequence[Any] = (),
    projection: Projection = "pca",
    views: ViewSettings | None = None,
    protocol: ProbeProtocol | str = "fast",
    extractor: FeatureExtractor | None = None,
    cache: bool = True,
    **loading: Any,
) -> Analysis:
    """What a set shows through one backbone or several, beside real images.

    Args:
        images ([`DistilledSet`], `str`, `Path` or `datasets.Dataset`): The set, in a form that [`DistilledSet.wrap`]
            takes.
        backbones: One or a list, each as [`FrozenBackbone.wrap`] takes it.
        train_dataset ([`LabelledImages`], `datasets.Dataset`, or what [`LabelledImages.wrap`] takes besides): All real
            training images, for the probe that the set is held against.
        eval_dataset (likewise): What is scored on and drawn.
        name (`str`, *optional*, defaults to `"distilled"`): What plots call the set.
        others (`Sequence`, *optional*): More sets in the same forms, each made through one of the backbones, to set
            transfer against the backbones' agreement.
        projection (`str`, *optional*, defaults to `"pca"`): How features become two dimensions: `"pca"` or `"umap"`.
        views ([`ViewSettings`], *optional*): Views that probes are trained on; defaults to those that the set was made
            with.
        protocol ([`ProbeProtocol`] or `str`, *optional*, defaults to `"fast"`): How probes are trained.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        cache (`bool`, *optional*, defaults to `True`): See [`Evaluator`]; for the transfer alone.
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ImportError: If UMAP is asked for and not installed.
        ValueError: If the set has other classes than the real images, or a class has fewer than three of these.
    """
    if projection not in get_args(Projection):
        raise ValueError(f"projection must be one of {', '.join(get_args(Projection))}, found '{projection}'.")
    check_projection(projection)
    extractor = FeatureExtractor.given(extractor, loading)
    protocol = ProbeProtocol.named(protocol) if isinstance(protocol, str) else protocol
    given = backbones if isinstance(backbones, (list, tuple)) else [backbones]
    wrapped = [FrozenBackbone.wrap(each) for each in given]
    check_names_differ([backbone.name for backbone in wrapped])
    distilled, *more = [DistilledSet.wrap(each) for each in (images, *others)]
    encoder = StreamEncoder(wrapped, extractor.accelerator, extractor.batch_size, kept_per_class=10)
    train_images = LabelledImages.wrap(train_dataset, encoder)
    eval_images = LabelledImages.wrap(eval_dataset, encoder).aligned(train_images.class_names)
    _check_counts(train_images)
    distilled.labels_as(train_images.class_names, f"'{name}' has")
    distilled, *more = [with_source_images(each, train_images) for each in (distilled, *more)]
    views = views or distilled.views
    evaluators = [Evaluator(each, eval_images, train_images, protocol, extractor, cache) for each in wrapped]
    through = [_through(evaluator, distilled, name, views, projection) for evaluator in evaluators]
    return Analysis(
        name,
        distilled,
        train_images.class_names,
        through,
        compare_spectra(distilled.pixels(), eval_images if not eval_images.is_streamed else train_images),
        _transfer([distilled, *more], evaluators, views) if len(wrapped) > 1 and more else None,
        made_through(distilled.config),
    )


def _check_counts(train_images: LabelledImages) -> None:
    """Refuse too few real images to choose the strength of the probe on all of them by."""
    wanted = REFERENCES[ALL_REAL_IMAGES].min_per_class
    counts = torch.bincount(train_images.labels, minlength=train_images.num_classes)
    if counts.min() < wanted:
        few = train_images.class_names[int(counts.argmin())]
        raise ValueError(
            f"The analysis holds a set against a probe on all real images, which needs at least {wanted} training "
            f"images of each class; '{few}' has {int(counts.min())}."
        )


def _through(
    evaluator: Evaluator, images: DistilledSet, name: str, views: ViewSettings, projection: Projection
) -> BackboneAnalysis:
    """All that one backbone shows; its training features are let go of afterwards."""
    backbone, train_images = evaluator.backbone, evaluator.training_images
    class_names = train_images.class_names
    logger.info("%s: probes on '%s' and on all real images", backbone.name, name)
    W, b = evaluator.train_probes([images] * evaluator.protocol.seeds, views)
    _, full = evaluator.fit(ALL_REAL_IMAGES)
    z, y = evaluator.scored.z, evaluator.scored.y.cpu()
    ours, of_full = (logits(z).argmax(dim=-1).cpu() for logits in (probe_logits(W, b), full))
    of_set, of_all = (confusion_matrix(predicted, y, len(class_names)) for predicted in (ours, of_full))
    z_set = centre_features(backbone, images, evaluator.extractor.batch_size)
    y_set = images.labels_as(class_names)
    z_train = evaluator.training_features[0].cpu()
    nearest = nearest_in_groups(train_images, z_train, z_set, y_set, backbone.preprocessing.synthetic_size)
    found = BackboneAnalysis(
        backbone.name,
        100 * float((ours == y).double().mean()),
        100 * float((of_full == y).double().mean()),
        project(z, y, z_set, y_set, projection),
        class_similarity(W, linear_weights(full, z.shape[1], z.device)),
        class_accuracies(of_set, of_all, class_names),
        group_accuracies(evaluator.eval_images, ours, of_full, nearest),
    )
    evaluator.release()
    return found


def _transfer(
    sets: Sequence[DistilledSet], evaluators: Sequence[Evaluator], views: ViewSettings
) -> TransferMatrix | None:
    """Each set on each backbone, for those that were made through one of them."""
    named = {f"set {number}": images for number, images in enumerate(sets)}
    results = [
        evaluator.probe(name, [images] * evaluator.protocol.seeds, views)
        for evaluator in evaluators
        for name, images in named.items()
    ]
    return transfer_between(named, evaluators, results)
