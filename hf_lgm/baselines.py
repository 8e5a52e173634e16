"""Real images chosen without optimisation: what a distilled set has to beat."""

import torch

from .data import LabelledImages, indices_by_class
from .distilled_set import DistilledSet
from .preprocessing import square, to_tensor
from .probe import class_means
from .randomness import seeded_generator


def random_rows(labels: torch.Tensor, num_classes: int, images_per_class: int, seed: int) -> torch.Tensor:
    """Rows of random real images, of shape (C * images_per_class,), sorted by class.

    Raises:
        ValueError: If a class has fewer images.
    """
    rows = []
    for label, of_class in enumerate(_rows_by_class(labels, num_classes, images_per_class)):
        order = torch.randperm(len(of_class), generator=seeded_generator(seed, "random images", label))
        rows.append(of_class[order[:images_per_class]])
    return torch.cat(rows)


def centroid_rows(z: torch.Tensor, labels: torch.Tensor, num_classes: int, images_per_class: int) -> torch.Tensor:
    """Rows of the real images whose features (N, D) are nearest to their class mean, nearest first, sorted by class.

    Raises:
        ValueError: If a class has fewer images.
    """
    distance = (z.float() - class_means(z, labels, num_classes)[labels]).norm(dim=1)
    rows = []
    for of_class in _rows_by_class(labels, num_classes, images_per_class):
        rows.append(of_class[distance[of_class].sort(stable=True).indices[:images_per_class]])
    return torch.cat(rows)


def real_image_set(
    images: LabelledImages, rows: torch.Tensor, size: int, resize_ratio: float, config: dict | None = None
) -> DistilledSet:
    """Real images in the form of a distilled set: squares of `size` pixels, with their row in the source split."""
    chosen = images.select(rows)
    pixels = torch.stack([to_tensor(square(chosen.image(i), size, resize_ratio)) for i in range(len(chosen))])
    return DistilledSet.from_pixels(
        pixels / 255, chosen.labels.tolist(), images.class_names, config, chosen.rows.tolist()
    )


def _rows_by_class(labels: torch.Tensor, num_classes: int, images_per_class: int) -> list[torch.Tensor]:
    by_class = indices_by_class(labels, num_classes)
    fewest = min(range(num_classes), key=lambda label: len(by_class[label]))
    if len(by_class[fewest]) < images_per_class:
        raise ValueError(
            f"Class {fewest} has {len(by_class[fewest])} images, fewer than images_per_class={images_per_class}."
        )
    return by_class
