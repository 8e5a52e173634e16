"""How fine images are: the power of their spatial frequencies, averaged over all directions."""

from dataclasses import dataclass
from typing import Any

import torch

from ..data.labelled_images import LabelledImages
from ..features.coresets import random_rows

# Real images to compare with, at least as many as there are synthetic ones; more do not move the mean.
_MIN_REAL, _MAX_REAL = 200, 1000


@dataclass(frozen=True)
class Spectrum:
    """Radially averaged power spectra.

    Args:
        frequencies (`torch.Tensor`): Shape (F,), cycles per image, 1 to half of the side.
        synthetic (`torch.Tensor`): Shape (n, F), power of each synthetic image.
        real (`torch.Tensor`): Shape (N, F), likewise of real images, at the same side.
    """

    frequencies: torch.Tensor
    synthetic: torch.Tensor
    real: torch.Tensor

    @property
    def slopes(self) -> tuple[float, float]:
        """Slopes of straight lines through the logarithms of power and frequency, of synthetic and of real images."""
        return _slope(self.frequencies, self.synthetic.mean(dim=0)), _slope(self.frequencies, self.real.mean(dim=0))

    @property
    def fine_ratio(self) -> float:
        """Power of synthetic images over that of real ones, in the upper half of the frequencies."""
        fine = self.frequencies > self.frequencies[-1] / 2
        return float(self.synthetic.mean(dim=0)[fine].sum() / self.real.mean(dim=0)[fine].sum())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        synthetic, real = self.slopes
        return {
            "cycles_per_image": self.frequencies.tolist(),
            "synthetic": [float(f"{value:.6g}") for value in self.synthetic.mean(dim=0).tolist()],
            "real": [float(f"{value:.6g}") for value in self.real.mean(dim=0).tolist()],
            "slope_synthetic": round(synthetic, 4),
            "slope_real": round(real, 4),
            "fine_ratio": round(self.fine_ratio, 4),
            "synthetic_images": len(self.synthetic),
            "real_images": len(self.real),
        }


def compare_spectra(pixels: torch.Tensor, images: LabelledImages) -> Spectrum | None:
    """Synthetic images of shape (n, 3, size, size) against real ones, as many of each class; `None` without pixels.

    Real images are resized to the same side. Of a stream those are taken that are at hand.
    """
    at_hand, size = images.with_images(), pixels.shape[-1]
    if len(at_hand) == 0 or size < 4:
        return None
    wanted = min(max(len(pixels), _MIN_REAL), _MAX_REAL)
    rows = random_rows(at_hand.labels, at_hand.num_classes, -(-wanted // at_hand.num_classes), seed=0)
    real = at_hand.select(rows[:_MAX_REAL]).centre_crops(size, 1.0) / 255
    return Spectrum(torch.arange(1, size // 2 + 1), radial_power(pixels), radial_power(real))


def radial_power(pixels: torch.Tensor) -> torch.Tensor:
    """Power of shape (n, size // 2) at 1, 2, … cycles per image, of images (n, 3, size, size).

    Of the mean over the channels, without its mean, under a Hann window, so that borders do not show as lines; the
    mean over all frequencies that are nearest to so many cycles.
    """
    size = pixels.shape[-1]
    grey = pixels.double().mean(dim=1)
    window = torch.hann_window(size, periodic=False, dtype=torch.float64)
    seen = (grey - grey.mean(dim=(1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(seen).abs().square().flatten(1)
    cycles = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    radius = (cycles[:, None].square() + cycles.square()).sqrt().round().long().flatten()
    sums = power.new_zeros(len(power), int(radius.max()) + 1).index_add_(1, radius, power)
    return (sums / torch.bincount(radius))[:, 1 : size // 2 + 1]


def _slope(frequencies: torch.Tensor, power: torch.Tensor) -> float:
    x, y = frequencies.double().log(), power.clamp(min=1e-30).log()
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())
