"""Rows of real images that stand for their class: random, central, clustered, herded, neighbours."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..data.labelled_images import indices_by_class
from ..progress import progress
from ..randomness import seeded_generator


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
    for of_class in progress(indices_by_class(labels, num_classes), desc="k-means", unit="class"):
        centres = torch.from_numpy(_clusters(z[of_class], images_per_class, 10, seed).cluster_centers_).to(z)
        rows.append(of_class[_distinct_nearest(distances(centres, z[of_class]))])
    return torch.cat(rows)


def herding_rows(z: torch.Tensor, labels: torch.Tensor, num_classes: int, images_per_class: int) -> torch.Tensor:
    """Rows of real images, each the one that brings the mean of those so far nearest to the class mean."""
    rows, means = [], class_means(z, labels, num_classes)
    for label, of_class in enumerate(progress(indices_by_class(labels, num_classes), desc="herding", unit="class")):
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


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Lengths of the differences between rows of (N, D) and (M, D), of shape (N, M); where a row is NaN, NaN.

    Around a mean: of many rows `torch.cdist` takes the difference of squares, which far from zero is rounding.
    """
    centre = b.nanmean(dim=0)
    return torch.cdist(a - centre, b - centre)


def _distinct_nearest(distances: torch.Tensor) -> torch.Tensor:
    """For each row of (n, N) its nearest column that no row before it has taken, of shape (n,)."""
    distances, nearest = distances.clone(), []
    for row in range(len(distances)):
        nearest.append(distances[row].argmin())
        distances[:, nearest[-1]] = torch.inf
    return torch.stack(nearest)


def joint_features(spaces: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features of several backbones, (N, D_1), (N, D_2), … as those of one, (N, D_1 + D_2 + …): all count alike."""
    if len(spaces) == 1:
        return spaces[0]
    return torch.cat([z.float() / z.float().square().sum(dim=1).mean().sqrt() for z in spaces], dim=1)


def class_means(z: torch.Tensor, y: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean feature of each class, of shape (C, D)."""
    sums = z.new_zeros(num_classes, z.shape[1], dtype=torch.float32).index_add_(0, y, z.float())
    return sums / torch.bincount(y, minlength=num_classes)[:, None]


def class_clusters(z: torch.Tensor, y: torch.Tensor, num_classes: int, clusters: int, seed: int) -> torch.Tensor:
    """The cluster of its class that each sample is in, numbered `class * clusters + cluster`, of shape (N,).

    By k-means within each class, so that several images of a class have different things to stand for.

    Args:
        z (`torch.Tensor`): Shape (N, D).
        y (`torch.Tensor`): Shape (N,); each class has at least `clusters` samples.
        num_classes (`int`): C.
        clusters (`int`): Clusters of each class.
        seed (`int`): Of k-means.
    """
    cluster = torch.empty(len(y), dtype=torch.long)
    for label, of_class in enumerate(progress(indices_by_class(y.cpu(), num_classes), desc="clusters", unit="class")):
        found = torch.from_numpy(_clusters(z[of_class].float().cpu(), clusters, 3, seed).labels_).long()
        cluster[of_class] = label * clusters + _without_empty_ones(found, clusters)
    return cluster.to(y.device)


def _without_empty_ones(cluster: torch.Tensor, count: int) -> torch.Tensor:
    """Each empty cluster gets a sample of the largest: of fewer distinct samples than clusters k-means finds fewer."""
    for empty in set(range(count)) - set(cluster.tolist()):
        largest = torch.bincount(cluster, minlength=count).argmax()
        cluster[(cluster == largest).nonzero()[-1, 0]] = empty
    return cluster


def _clusters(z: torch.Tensor, count: int, tries: int, seed: int) -> Any:
    """scikit-learn's k-means of features (N, D) on the CPU, the best of a few tries."""
    from sklearn.cluster import KMeans  # here, since it loads all of scikit-learn
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Of fewer distinct samples than clusters some are empty, which both callers expect.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(count, n_init=tries, random_state=seed).fit(z.numpy())
