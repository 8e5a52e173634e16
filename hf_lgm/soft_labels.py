"""The labels of the synthetic images: for each a distribution over classes, that may be learned with the images."""

import torch
import torch.nn.functional as F
from torch import nn


class SoftLabels(nn.Module):
    """A slice of the labels of one run, as parameters.

    They are probabilities themselves, not logits, so that they begin as one-hot labels and can become so again;
    [`~SoftLabels.project`] is to follow each step of an optimizer.

    Args:
        labels (`torch.Tensor`): Shape (n,), class indices.
        num_classes (`int`): C.
        are_learned (`bool`): Whether they change.
    """

    def __init__(self, labels: torch.Tensor, num_classes: int, are_learned: bool) -> None:
        super().__init__()
        self.probabilities = nn.Parameter(F.one_hot(labels, num_classes).float(), requires_grad=are_learned)
        self.are_learned = are_learned

    @torch.no_grad()
    def start_from(self, probabilities: torch.Tensor) -> None:
        """Begin at distributions of shape (n, C)."""
        self.probabilities.copy_(probabilities)

    @torch.no_grad()
    def project(self) -> None:
        """Move each row to the nearest distribution (Duchi et al., 2008: what is above one common level)."""
        if not self.are_learned:
            return
        rows = self.probabilities
        descending = rows.sort(dim=1, descending=True).values
        number = torch.arange(1, rows.shape[1] + 1, device=rows.device)
        levels = (descending.cumsum(dim=1) - 1) / number
        # None are above where something is no number; that is said by who watches the loss.
        above = (descending > levels).sum(dim=1, keepdim=True)
        rows.copy_((rows - levels.gather(1, (above - 1).clamp(min=0))).clamp(min=0))
