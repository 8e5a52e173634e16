"""What looks at the numbers of a run while it goes on."""

import logging
from pathlib import Path

import torch

from .checkpoint_folders import all_checkpoints

logger = logging.getLogger(__name__)

# Steps after which a loss that is still its first one is worth a warning, and what counts as the same.
_STILL_STEPS = 50
_SAME = 1e-6


class LossWatch:
    """Notes what is wrong with the losses and the gradients, on the device, so that no step waits for it.

    Args:
        device (`torch.device`): Where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._bad_step = torch.tensor(-1, device=device)
        self._zero_step = torch.tensor(-1, device=device)
        self._first = torch.tensor(torch.nan, device=device)
        self._has_moved = torch.tensor(False, device=device)
        self._steps = 0
        self._said: set[str] = set()

    def note(self, loss: torch.Tensor, step: int, gradient: torch.Tensor) -> None:
        """Look at one step's loss, a scalar, and at its gradient on the images of this process."""
        is_bad = ~loss.isfinite()
        if gradient.numel():  # a process may have no image
            low, high = gradient.aminmax()  # no number where one is none; takes no memory, as all images do
            is_bad = is_bad | ~(low.isfinite() & high.isfinite())
            is_zero = (low == 0) & (high == 0)
            self._zero_step = torch.where((self._zero_step < 0) & is_zero, step, self._zero_step)
        self._bad_step = torch.where((self._bad_step < 0) & is_bad, step, self._bad_step)
        self._first = torch.where(self._first.isnan(), loss, self._first)
        self._has_moved = self._has_moved | ((loss - self._first).abs() > _SAME * self._first.abs())
        self._steps += 1

    def check(self, output_dir: str | Path) -> None:
        """Stop at what was noted, or warn of it once, whenever something is logged or saved.

        Raises:
            FloatingPointError: If a loss or a gradient was no number; the message names the step and the last good
                checkpoint.
        """
        if (step := int(self._bad_step)) >= 0:
            saved = all_checkpoints(output_dir)
            advice = "Try a smaller learning_rate." if step else _AT_ONCE
            raise FloatingPointError(
                f"The loss is not a finite number any more in step {step}. "
                f"Last good checkpoint: {saved[-1] if saved else 'none'}. {advice}"
            )
        if (step := int(self._zero_step)) >= 0:
            self._warn("The gradient on the images is zero in step %d: they do not change. %s", step, _NOTHING_LEARNED)
        elif self._steps >= _STILL_STEPS and not self._has_moved:
            self._warn("The loss has been the same in all %d steps. %s", self._steps, _NOTHING_LEARNED)

    def _warn(self, message: str, *values: object) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *values)


# Before a learning rate has done anything.
_AT_ONCE = (
    "No step was made before it, so it comes from the features of the model, or from an objective of your own: try "
    "bf16=False, or another model."
)
_NOTHING_LEARNED = (
    "Does the model answer to what it is shown, in the precision that is set, and the objective to the features?"
)
