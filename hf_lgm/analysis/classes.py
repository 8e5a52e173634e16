"""Where a set loses most: the accuracy of each class by a probe on the set, and by one on all real images."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class ClassAccuracy:
    """One class.

    Args:
        name (`str`): The class.
        label (`int`): Its number.
        of_set (`float`): Its accuracy in percent by probes on the set, the mean over them.
        of_full (`float`): Likewise by the probe on all real images.
        taken_for (`str`): What its images are most often taken for by the set's probes, where these are wrong; empty
            where they never are.
        taken_share (`float`): The percentage of its images of which this is so.
    """

    name: str
    label: int
    of_set: float
    of_full: float
    taken_for: str
    taken_share: float

    @property
    def loss(self) -> float:
        """Points that the set loses."""
        return self.of_full - self.of_set

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        numbers = {"set": self.of_set, "all_real_images": self.of_full, "loss": self.loss}
        taken = {"taken_for": self.taken_for or None, "taken_share": round(self.taken_share, 2)}
        return {"class": self.name, **{name: round(value, 2) for name, value in numbers.items()}, **taken}


def confusion_matrix(predictions: torch.Tensor, y: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Shares of the images of each class (row) that each class (column) is predicted of, of shape (C, C).

    The mean over probes; a row of zeros for a class without images.

    Args:
        predictions (`torch.Tensor`): Shape (seeds, N), classes.
        y (`torch.Tensor`): Shape (N,), the right ones.
        num_classes (`int`): C.
    """
    pairs = (y * num_classes + predictions).flatten()
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).double()
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def class_accuracies(of_set: torch.Tensor, of_full: torch.Tensor, class_names: list[str]) -> list[ClassAccuracy]:
    """Every class that has images to evaluate on, those where the set loses most first.

    Args:
        of_set (`torch.Tensor`): Shape (C, C), confusions of probes on the set, see [`confusion_matrix`].
        of_full (`torch.Tensor`): Shape (C, C), likewise of the probe on all real images.
        class_names (`list[str]`): Length C.
    """
    found = []
    for label in of_full.sum(dim=1).nonzero()[:, 0].tolist():
        wrong = of_set[label].clone()
        wrong[label] = 0
        other, is_wrong = int(wrong.argmax()), bool(wrong.max() > 0)
        accuracies = 100 * float(of_set[label, label]), 100 * float(of_full[label, label])
        taken = class_names[other] if is_wrong else "", 100 * float(wrong[other])
        found.append(ClassAccuracy(class_names[label], label, *accuracies, *taken))
    return sorted(found, key=lambda each: (-each.loss, each.label))
