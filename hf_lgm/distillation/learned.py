"""What the steps change: the synthetic images, their labels, and what Adam remembers of both."""

from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from ..config import LGMConfig
from ..distributed import gather_rows
from ..schedule import learning_rate_factor
from .synthetic import SyntheticImages

_MOMENTS = ("exp_avg", "exp_avg_sq")


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


class Learned:
    """One process's m of all n synthetic images, with their labels and the optimizer that changes both.

    Args:
        images ([`SyntheticImages`]): The m images.
        soft_labels ([`SoftLabels`]): Their labels.
        args ([`LGMConfig`]): Says how they are learned.
        owned (`range`): Their numbers among all images.
        total (`int`): n.
        accelerator (`accelerate.Accelerator`): Connects the processes.
    """

    def __init__(
        self,
        images: SyntheticImages,
        soft_labels: SoftLabels,
        args: LGMConfig,
        owned: range,
        total: int,
        accelerator: Accelerator,
    ) -> None:
        self.images, self.soft_labels, self.args = images, soft_labels, args
        self.owned, self.total, self.accelerator = owned, total, accelerator
        self.rows = slice(owned.start, owned.stop)
        self._factor = learning_rate_factor(args.lr_scheduler_type, args.max_steps)
        self.optimizer = self._new_optimizer()

    @property
    def bytes_of_checkpoint(self) -> int:
        """About what a checkpoint takes at the end of the run: each number with two moments."""
        channels = self.images.levels[0].shape[1]
        return 3 * 4 * self.total * channels * sum(side**2 for side in self.images.sides)

    def all_pixels(self) -> torch.Tensor:
        """The images of all processes, of shape (n, 3, size, size) with values in [0, 1]."""
        return gather_rows(self.accelerator, self.images(), self.total)

    def all_labels(self) -> torch.Tensor:
        """Distributions over classes of all images, of shape (n, C), which want a gradient where they are learned."""
        labels = gather_rows(self.accelerator, self.soft_labels.probabilities.detach(), self.total)
        return labels.requires_grad_(self.soft_labels.are_learned)

    def own_views(self, gradient: torch.Tensor) -> torch.Tensor:
        """Of what belongs to all views, those of the n images first, that of the m images, of shape (m, K, …)."""
        views = self.args.views_per_step
        return gradient[: self.total * views].unflatten(0, (self.total, views))[self.rows]

    def step(self, step: int) -> None:
        """Change images and labels by the gradients that they have, at the learning rate of that step."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._factor(step)
        self.optimizer.step()
        self.soft_labels.project()

    def restart_optimizer(self) -> None:
        """Let Adam forget: it is to begin with the parameters that there are now."""
        self.optimizer = self._new_optimizer()

    @torch.no_grad()
    def return_towards(self, start: torch.Tensor, weight: float) -> None:
        """Mix the images with what they began as, of shape (m, 3, size, size); Adam starts afresh."""
        self.images.mix_with(start, weight)
        self.restart_optimizer()

    @property
    def is_coarse(self) -> bool:
        """Whether levels are still to come, and none that is there has more than half of the images' side."""
        count = len(self.images.levels)
        return count < len(self.images.sides) and 2 * self.images.sides[count - 1] <= self.images.size

    def grow_if_due(self, step: int) -> None:
        """Add the pyramid levels that are due before a step; Adam starts afresh (paper, section 3.2)."""
        while len(self.images.levels) < self._levels_due(step):
            self.images.grow()
            self.restart_optimizer()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that the steps change, for a checkpoint, on the CPU; every process must ask for it.

        Each parameter as `level.i` or `soft_labels`, with Adam's moments as `level.i.exp_avg` and
        `level.i.exp_avg_sq`, of all n images; and Adam's `step`.
        """
        own = {}
        for name, parameter in self._parameters().items():
            own[name] = parameter.detach()
            own |= {f"{name}.{moment}": self.optimizer.state[parameter][moment] for moment in _MOMENTS}
        tensors = {name: gather_rows(self.accelerator, rows, self.total).cpu() for name, rows in own.items()}
        return {**tensors, "step": self.optimizer.state[self.images.levels[0]]["step"].cpu()}

    def load_state_dict(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go back to what a checkpoint holds, whatever number of processes wrote it."""
        self.images.set_num_levels(sum(name.startswith("level.") and name[6:].isdigit() for name in tensors))
        self.restart_optimizer()
        for name, parameter in self._parameters().items():
            with torch.no_grad():
                parameter.copy_(tensors[name][self.rows])
            moments = {moment: tensors[f"{name}.{moment}"][self.rows].to(parameter) for moment in _MOMENTS}
            step = tensors["step"].clone()
            step = step.to(parameter.device) if _is_fused(parameter) else step
            self.optimizer.state[parameter] = {"step": step, **moments}

    def _levels_due(self, step: int) -> int:
        """Levels at a step: one more every `growth_steps`, or all of them evenly spread over the start of the run."""
        missing_at_start, every = len(self.images.sides) - 1, self.args.growth_steps
        if every:  # the first after one step more, as in the paper's code
            return 1 + min(missing_at_start, max(0, step - 1) // every)
        span = int(self.args.max_steps * self.args.growth_share)
        return 1 + (missing_at_start if step >= span else step * missing_at_start // span)

    def _parameters(self) -> dict[str, nn.Parameter]:
        levels = {f"level.{number}": level for number, level in enumerate(self.images.levels)}
        return {**levels, "soft_labels": self.soft_labels.probabilities} if self.soft_labels.are_learned else levels

    def _new_optimizer(self) -> torch.optim.Adam:
        args = self.args
        groups: list[dict[str, Any]] = [{"params": list(self.images.levels)}]
        if self.soft_labels.are_learned:
            groups.append({"params": [self.soft_labels.probabilities], "lr": args.label_learning_rate})
        betas, fused = (args.adam_beta1, args.adam_beta2), _is_fused(self.images.levels[0]) or None
        optimizer = torch.optim.Adam(groups, args.learning_rate, betas, args.adam_epsilon, fused=fused)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer


def _is_fused(parameter: torch.Tensor) -> bool:
    """Whether Adam takes one pass over a parameter and keeps its step there; without it, it wants as much again."""
    return parameter.device.type == "cuda"
