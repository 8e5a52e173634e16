"""Real images in the form of a distilled set: what it has to beat, from a random draw to the best real choice."""

from dataclasses import replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from sklearn.cluster import KMeans

from .backbone import FrozenBackbone
from .classifiers import class_means
from .data import LabelledImages, indices_by_class
from .distilled_set import DistilledSet
from .features import extract_features
from .loading import check_classes
from .matched import matched_rows
from .preprocessing import DEFAULT_RESIZE_RATIO, Preprocessing, square, to_tensor
from .randomness import seeded_generator
from .versions import library_versions

BaselineKind = Literal["random", "centroid", "neighbor", "kmeans", "herding", "matched"]


def select_baseline(
    kind: str,
    backbone: FrozenBackbone | str,
    train_dataset: Dataset | LabelledImages,
    images_per_class: int = 1,
    *,
    seed: int = 0,
    neighbors_of: DistilledSet | str | None = None,
    config: dict[str, Any] | None = None,
    accelerator: Accelerator | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> DistilledSet:
    """Real images, chosen by their features, with their row in the source as `source_index`.

    Args:
        kind (`str`): `"random"`: drawn by the seed. `"centroid"`: nearest to their class mean (paper, section 4).
            `"neighbor"`: most similar to the images of a distilled set (paper, section 4), by cosine. `"kmeans"`:
            nearest to the centres of k-means clusters of the class. `"herding"`: one after the other, so that their
            mean stays nearest to the class mean (arXiv 1205.2046, as in iCaRL). `"matched"`: the best by the objective
            of the distillation that exchanging one image at a time reaches, see [`matched_rows`]. With one image per
            class `"kmeans"` and `"herding"` are `"centroid"`.
        backbone ([`FrozenBackbone`] or `str`): What they are chosen through.
        train_dataset (`datasets.Dataset` or [`LabelledImages`]): What they are chosen from.
        images_per_class (`int`, *optional*, defaults to 1): How many of each class; neighbours are as the set.
        seed (`int`, *optional*, defaults to 0): Of the draw, the clusters and the random probes.
        neighbors_of ([`DistilledSet`] or `str`, *optional*): The set whose neighbours are meant.
        config (`dict`, *optional*): What the card says besides; its `settings` hold the views to train a probe on.
        accelerator (`accelerate.Accelerator`, *optional*): Shares out the encoding of the real images.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.

    Raises:
        ValueError: If there is no such kind, a class has too few images, or the pictures of a stream are gone.
    """
    near = DistilledSet.from_pretrained(neighbors_of) if isinstance(neighbors_of, str) else neighbors_of
    images_per_class = near.images_per_class if near else images_per_class
    if images_per_class < 1:
        raise ValueError(f"images_per_class must be at least 1, found {images_per_class}.")
    if kind not in get_args(BaselineKind):
        raise ValueError(f"The kind must be one of {', '.join(get_args(BaselineKind))}, found '{kind}'.")
    if (kind == "neighbor") != (neighbors_of is not None):
        raise ValueError("--kind neighbor and --neighbors_of SET belong together: whose neighbours are meant.")
    images = train_dataset if isinstance(train_dataset, LabelledImages) else LabelledImages.from_dataset(train_dataset)
    if images.is_streamed and kind != "random":
        raise ValueError(f"'{kind}' needs all real images again, and a stream is read once: leave --streaming out.")
    images = images.with_pictures()
    check_classes(images, images_per_class)
    accelerator = accelerator or Accelerator()
    backbone = FrozenBackbone.wrap(backbone).to(accelerator.device)
    if kind == "random":
        rows = random_rows(images.labels, images.num_classes, images_per_class, seed)
    else:
        z = extract_features(backbone, images, accelerator, batch_size, num_workers).float()
        if near is not None:
            labels = near.labels_as(images.class_names)
            rows = neighbor_rows(z, images.labels, _centre_features(backbone, near, batch_size), labels)
        else:
            rows = _chosen_rows(kind, z, images, images_per_class, seed, accelerator.device)
    size, ratio = backbone.preprocessing.synthetic_size, backbone.preprocessing.resize_ratio
    described = {"kind": kind, "images_per_class": images_per_class, "seed": seed}
    made = {"baseline": described, "backbone": backbone.describe(), "versions": library_versions()}
    return real_image_set(images, rows, size, ratio, {**(config or {}), **made})


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


def random_rows(labels: torch.Tensor, num_classes: int, images_per_class: int, seed: int) -> torch.Tensor:
    """Rows of random real images, of shape (C * images_per_class,), sorted by class."""
    rows = []
    for label, of_class in enumerate(indices_by_class(labels, num_classes)):
        order = torch.randperm(len(of_class), generator=seeded_generator(seed, "random images", label))
        rows.append(of_class[order[:images_per_class]])
    return torch.cat(rows)


def centroid_rows(z: torch.Tensor, labels: torch.Tensor, num_classes: int, images_per_class: int) -> torch.Tensor:
    """Rows of the real images whose features (N, D) are nearest to their class mean: by class, nearest first."""
    distance = (z.float() - class_means(z, labels, num_classes)[labels]).norm(dim=1)
    rows = []
    for of_class in indices_by_class(labels, num_classes):
        rows.append(of_class[distance[of_class].sort(stable=True).indices[:images_per_class]])
    return torch.cat(rows)


def kmeans_rows(
    z: torch.Tensor, labels: torch.Tensor, num_classes: int, images_per_class: int, seed: int = 0
) -> torch.Tensor:
    """Rows of the real images nearest to the centres of the clusters of their class, sorted by class."""
    rows = []
    for of_class in indices_by_class(labels, num_classes):
        clusters = KMeans(images_per_class, n_init=10, random_state=seed).fit(z[of_class].numpy())
        centres = torch.from_numpy(clusters.cluster_centers_).to(z)
        rows.append(of_class[_distinct_nearest(torch.cdist(centres, z[of_class]))])
    return torch.cat(rows)


def herding_rows(z: torch.Tensor, labels: torch.Tensor, num_classes: int, images_per_class: int) -> torch.Tensor:
    """Rows of real images, each the one that brings the mean of those so far nearest to the class mean."""
    rows, means = [], class_means(z, labels, num_classes)
    for label, of_class in enumerate(indices_by_class(labels, num_classes)):
        candidates, chosen = z[of_class], torch.zeros(len(of_class), dtype=torch.bool)
        for number in range(1, images_per_class + 1):
            mean = (candidates[chosen].sum(dim=0) + candidates) / number
            distance = (mean - means[label]).norm(dim=1).masked_fill(chosen, torch.inf)
            rows.append(of_class[distance.argmin()])
            chosen[distance.argmin()] = True
    return torch.stack(rows)


def neighbor_rows(
    z: torch.Tensor, labels: torch.Tensor, z_set: torch.Tensor, set_labels: torch.Tensor
) -> torch.Tensor:
    """Rows of the real images of the same class most similar to those of a set, by cosine; no image stands twice.

    Args:
        z (`torch.Tensor`): Shape (N, D), real features.
        labels (`torch.Tensor`): Shape (N,).
        z_set (`torch.Tensor`): Shape (n, D), features of the set's images.
        set_labels (`torch.Tensor`): Shape (n,).
    """
    rows = torch.empty_like(set_labels)
    for label in set_labels.unique():
        of_class = (labels == label).nonzero()[:, 0]
        similarity = F.normalize(z_set[set_labels == label], dim=1) @ F.normalize(z[of_class], dim=1).T
        rows[set_labels == label] = of_class[_distinct_nearest(-similarity)]
    return rows


def real_image_set(
    images: LabelledImages, rows: torch.Tensor, size: int, resize_ratio: float, config: dict | None = None
) -> DistilledSet:
    """Real images in the form of a distilled set: squares of `size` pixels, with their row in the source split."""
    chosen = images.select(rows)
    pixels = torch.stack([to_tensor(square(chosen.image(i), size, resize_ratio)) for i in range(len(chosen))])
    return DistilledSet.from_pixels(
        pixels / 255, chosen.labels.tolist(), images.class_names, config, chosen.rows.tolist()
    )


def with_source_images(rows: DistilledSet, train: LabelledImages) -> DistilledSet:
    """Real images again, of a set that was published without them.

    Args:
        rows ([`DistilledSet`]): The set; one that has its images is returned as it is.
        train ([`LabelledImages`]): The train split of its source.

    Raises:
        ValueError: If these are not the images that were chosen.
    """
    if rows.has_images:
        return rows
    where = f"the train split of {rows.config.get('source', {}).get('dataset', 'its source')}"
    if train.is_streamed:
        raise ValueError(f"This set is rows of {where}, whose images a stream does not keep: leave --streaming out.")
    wanted = torch.tensor(rows.dataset["source_index"][:])
    if int(wanted.max()) >= len(train.source):
        raise ValueError(f"This set has row {int(wanted.max())} of {where}; --dataset has {len(train.source)} rows.")
    chosen = replace(train, rows=wanted, labels=rows.labels, class_names=rows.class_names, groups=None)
    made = rows.config.get("backbone", {})
    side, ratio = made.get("image_size", 224), made.get("resize_ratio", DEFAULT_RESIZE_RATIO)
    size = Preprocessing(side).synthetic_size
    rebuilt = real_image_set(chosen, torch.arange(len(wanted)), size, ratio, rows.config)
    if rebuilt.fingerprint != rows.config.get("images_sha256", rebuilt.fingerprint):
        raise ValueError(f"This set is rows of {where}, and --dataset has other images there: give the same revision.")
    return rebuilt


def _distinct_nearest(distances: torch.Tensor) -> torch.Tensor:
    """For each row of (n, N) its nearest column that no row before it has taken, of shape (n,)."""
    distances, nearest = distances.clone(), []
    for row in range(len(distances)):
        nearest.append(distances[row].argmin())
        distances[:, nearest[-1]] = torch.inf
    return torch.stack(nearest)


def _centre_features(backbone: FrozenBackbone, images: DistilledSet, batch_size: int) -> torch.Tensor:
    """Features of shape (n, D) of the centre views of a set's images."""
    size, ratio = backbone.image_size, backbone.preprocessing.resize_ratio
    squares = torch.stack([to_tensor(square(image, size, ratio)) for image in images.dataset["image"][:]])
    return torch.cat([backbone.encode(batch).float().cpu() for batch in squares.split(batch_size)])
