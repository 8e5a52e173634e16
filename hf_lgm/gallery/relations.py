"""What a backbone says of a set's images: the real ones nearest to each, its neighbours, what their probe confuses."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image

from ..backbones.backbone import FrozenBackbone
from ..data.images import to_images
from ..data.labelled_images import LabelledImages
from ..evaluation.baselines import centre_features, with_source_images
from ..evaluation.probe_model import ProbeModel
from ..features.extraction import FeatureExtractor
from ..publishing.distilled_set import DistilledSet

_NEAREST = 6
_SIDE = 96  # of a real image that is shown
_AT_ONCE = 64  # images of the set that are compared with all real ones


@dataclass(frozen=True)
class RealNeighbor:
    """A real image near to one of a set.

    Args:
        row (`int`): Its row in the source.
        label (`int`): Its class, as the set numbers them.
        similarity (`float`): Cosine of the features.
        image (`Image.Image`, *optional*): Itself, where it may be shown.
    """

    row: int
    label: int
    similarity: float
    image: Image.Image | None = None


@dataclass(frozen=True)
class Relations:
    """What one backbone says of one set.

    Args:
        real (`list[list[RealNeighbor]]`): For each image the real ones nearest to it, the nearest first.
        synthetic (`list[list[tuple[int, float]]]`): For each image the rows of others of the set, with their cosine.
        confusions (`torch.Tensor`): Shape (C, C), how many real images of a class, the first index, the probe takes
            for one of another, the second.
    """

    real: list[list[RealNeighbor]]
    synthetic: list[list[tuple[int, float]]]
    confusions: torch.Tensor


def relations_of(
    images: DistilledSet,
    backbone: FrozenBackbone,
    train_images: LabelledImages,
    eval_images: LabelledImages,
    extractor: FeatureExtractor | None = None,
    include_source_images: bool = False,
) -> Relations:
    """See [`Relations`].

    Args:
        images ([`DistilledSet`]): The set; real images of it that are not here are taken from `train_images`.
        backbone ([`FrozenBackbone`]): What is seen through.
        train_images ([`LabelledImages`]): The real images to be near to.
        eval_images ([`LabelledImages`]): Those that the probe of the set is asked about.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        include_source_images (`bool`, *optional*, defaults to `False`): Take the nearest real images themselves.

    Raises:
        ValueError: If the classes differ.
    """
    extractor, names = extractor or FeatureExtractor(), images.class_names
    train_images, eval_images = (each.aligned(names) for each in (train_images, eval_images))
    images = with_source_images(images, train_images)
    z_train, z_eval = (extractor.extract(backbone, each) for each in (train_images, eval_images))
    z = centre_features(backbone, images, extractor.batch_size)
    found = [
        [
            RealNeighbor(
                int(train_images.rows[index]),
                int(train_images.labels[index]),
                similarity,
                _crop(train_images, index) if include_source_images else None,
            )
            for index, similarity in pairs
        ]
        for pairs in _nearest(z, z_train)
    ]
    probe = ProbeModel.train_on(backbone, images)
    with torch.no_grad():
        taken_for = probe(features=z_eval.to(probe.weight)).argmax(dim=1).cpu()
    pairs = eval_images.labels * len(names) + taken_for
    confusions = torch.bincount(pairs, minlength=len(names) ** 2).view(len(names), -1)
    return Relations(found, _nearest(z, z, is_itself=True), confusions)


def _nearest(z: torch.Tensor, others: torch.Tensor, is_itself: bool = False) -> list[list[tuple[int, float]]]:
    """For each row of features (n, D) the most similar of (N, D) others, with their cosine."""
    found, others = [], F.normalize(others.float(), dim=1)
    for rows in torch.arange(len(z)).split(_AT_ONCE):
        similarity = F.normalize(z[rows].float(), dim=1) @ others.T
        if is_itself:
            similarity[torch.arange(len(rows)), rows] = -torch.inf
        best = similarity.topk(min(_NEAREST, len(others) - is_itself), dim=1)
        found += [
            list(zip(indices, values, strict=True))
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    return found


def _crop(images: LabelledImages, index: int) -> Image.Image:
    return to_images(images.centre_crop(index, _SIDE, 1.0)[None] / 255)[0]
