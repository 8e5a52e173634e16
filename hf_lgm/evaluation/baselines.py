"""Real images in the form of a distilled set: what it has to beat, from a random draw to the best real choice."""

from dataclasses import replace
from typing import Any, get_args

import torch

from ..backbones.backbone import FrozenBackbone
from ..backbones.preprocessing import DEFAULT_RESIZE_RATIO, Preprocessing
from ..data.images import centre_crop, to_images, to_tensor
from ..data.labelled_images import LabelledImages
from ..features.coresets import (
    centroid_rows,
    herding_rows,
    kmeans_rows,
    neighbor_rows,
    random_rows,
)
from ..features.extraction import FeatureExtractor
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import library_versions
from ..settings import BaselineKind
from .matched import matched_rows


def select_baseline(
    kind: str,
    backbone: Any,
    train_dataset: Any,
    images_per_class: int = 1,
    *,
    seed: int = 0,
    neighbors_of: Any = None,
    config: dict[str, Any] | None = None,
    extractor: FeatureExtractor | None = None,
    **loading: Any,
) -> DistilledSet:
    """Real images, chosen by their features, with their row in the source as `source_index`.

    Args:
        kind (`str`): `"random"`: drawn by the seed. `"centroid"`: nearest to their class mean (paper, section 4).
            `"neighbor"`: most similar to the images of a distilled set (paper, section 4), by cosine. `"kmeans"`:
            nearest to the centres of k-means clusters of the class. `"herding"`: one after the other, so that their
            mean stays nearest to the class mean (arXiv 1205.2046, as in iCaRL). `"matched"`: the best by the objective
            of the distillation that exchanging one image at a time reaches, see [`matched_rows`]. With one image per
            class `"kmeans"` and `"herding"` are `"centroid"`.
        backbone ([`FrozenBackbone`], `str` or `torch.nn.Module`): What they are chosen through; also a live model.
        train_dataset (`datasets.Dataset` or [`LabelledImages`]): What they are chosen from; also what
            [`LabelledImages.wrap`] takes besides.
        images_per_class (`int`, *optional*, defaults to 1): How many of each class; neighbours are as the set.
        seed (`int`, *optional*, defaults to 0): Of the draw, the clusters and the random probes.
        neighbors_of ([`DistilledSet`], `str` or `datasets.Dataset`, *optional*): The set whose neighbours are meant.
        config (`dict`, *optional*): What the card says besides; its `settings` hold the views to train a probe on.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ValueError: If there is no such kind, a class has too few images, or the images of a stream are gone.
    """
    near = None if neighbors_of is None else DistilledSet.wrap(neighbors_of)
    images_per_class = near.images_per_class if near else images_per_class
    if images_per_class < 1:
        raise ValueError(f"images_per_class must be at least 1, found {images_per_class}.")
    if kind not in get_args(BaselineKind):
        raise ValueError(f"The kind must be one of {', '.join(get_args(BaselineKind))}, found '{kind}'.")
    if (kind == "neighbor") != (neighbors_of is not None):
        raise ValueError("kind='neighbor' and neighbors_of belong together: whose neighbours are meant.")
    images = LabelledImages.wrap(train_dataset)
    if images.is_streamed and kind != "random":
        raise ValueError(f"'{kind}' needs all real images again, and a stream is read once: do not stream it.")
    images = images.with_images()
    images.check_classes(images_per_class)
    near = with_source_images(near, images) if near else None
    extractor, backbone = FeatureExtractor.given(extractor, loading), FrozenBackbone.wrap(backbone)
    if kind == "random":
        rows = random_rows(images.labels, images.num_classes, images_per_class, seed)
    else:
        z = extractor.extract(backbone, images).float()
        if near is not None:
            labels = near.labels_as(images.class_names)
            rows = neighbor_rows(z, images.labels, centre_features(backbone, near, extractor.batch_size), labels)
        else:
            rows = _chosen_rows(kind, z, images, images_per_class, seed, extractor.accelerator.device)
    described = {"kind": kind, "images_per_class": images_per_class, "seed": seed, "resize_ratio": 1.0}
    made = {"baseline": described, "backbone": backbone.describe(), "versions": library_versions()}
    return real_image_set(images, rows, backbone.preprocessing.synthetic_size, config={**(config or {}), **made})


def _chosen_rows(
    kind: str, z: torch.Tensor, images: LabelledImages, images_per_class: int, seed: int, device: torch.device
) -> torch.Tensor:
    """Rows that are chosen by the real features alone."""
    y, num_classes = images.labels, images.num_classes
    if kind == "kmeans":
        return kmeans_rows(z, y, num_classes, images_per_class, seed)
    if kind == "herding":
        return herding_rows(z, y, num_classes, images_per_class)
    rows = centroid_rows(z, y, num_classes, images_per_class)
    if kind == "matched":
        return matched_rows(z.to(device), y.to(device), num_classes, rows.to(device), seed=seed).cpu()
    return rows


def real_image_set(
    images: LabelledImages, rows: torch.Tensor, size: int, resize_ratio: float = 1.0, config: dict | None = None
) -> DistilledSet:
    """Real images in the form of a distilled set: their central squares, with their rows in the source.

    The whole square, as in the paper: what a backbone's own resize would cut off, a distilled image has too.

    Args:
        images ([`LabelledImages`]): Where they are taken from.
        rows (`torch.Tensor`): Shape (n,), which ones.
        size (`int`): Side in pixels.
        resize_ratio (`float`, *optional*, defaults to 1.0): More keeps less of the square, as earlier sets did.
        config (`dict`, *optional*): What the card says.
    """
    chosen = images.select(rows)
    pixels, labels = chosen.centre_crops(size, resize_ratio) / 255, chosen.labels.tolist()
    return DistilledSet.from_pixels(pixels, labels, images.class_names, config, chosen.rows.tolist())


def with_source_images(rows: DistilledSet, train_images: LabelledImages) -> DistilledSet:
    """Real images again, of a set that was published without them.

    Args:
        rows ([`DistilledSet`]): The set, whose learned images stay; one that has its images is returned as it is.
        train_images ([`LabelledImages`]): The train split of its source.

    Raises:
        ValueError: If these are not the images that were chosen.
    """
    if rows.has_images:
        return rows
    where = f"the train split of {rows.config.get('source', {}).get('dataset', 'its source')}"
    if train_images.is_streamed:
        raise ValueError(f"This set is rows of {where}, whose images a stream does not keep: do not stream it.")
    missing = rows.missing_rows
    wanted = torch.tensor(rows.dataset.select(missing.tolist())["source_index"][:])
    total = len(train_images.source)
    if int(wanted.max()) >= total:
        raise ValueError(f"This set has row {int(wanted.max())} of {where}; the data has {total} rows.")
    chosen = replace(train_images, rows=wanted, labels=rows.labels[missing], groups=None)
    found = iter(to_images(chosen.centre_crops(*_geometry(rows)) / 255))
    here = rows.dataset["image"][:] if "image" in rows.dataset.features else [None] * len(rows.dataset)
    rebuilt = rows.with_images([next(found) if image is None else image for image in here])
    if rebuilt.fingerprint != rows.config.get("images_sha256", rebuilt.fingerprint):
        raise ValueError(f"This set is rows of {where}, and the data has other images there: give the same revision.")
    return rebuilt


def _geometry(rows: DistilledSet) -> tuple[int, float]:
    """Side and resize ratio of a set's real images."""
    if not rows.is_real:  # whole squares, as large as the learned ones
        return rows.dataset[int((~rows.real_rows).nonzero()[0, 0])]["image"].width, 1.0
    made = rows.config.get("backbone", {})
    cut_as_their_backbone = made.get("resize_ratio", DEFAULT_RESIZE_RATIO)  # sets of earlier versions
    ratio = rows.config.get("baseline", {}).get("resize_ratio", cut_as_their_backbone)
    return Preprocessing(made.get("image_size") or 224).synthetic_size, ratio


def centre_features(backbone: FrozenBackbone, images: DistilledSet, batch_size: int) -> torch.Tensor:
    """Features of shape (n, D) of the centre crops of a set's images."""
    geometry = backbone.preprocessing.geometry
    crops = torch.stack([to_tensor(centre_crop(image, *geometry)) for image in images.dataset["image"][:]])
    return torch.cat([backbone.encode(batch).float().cpu() for batch in crops.split(batch_size)])
