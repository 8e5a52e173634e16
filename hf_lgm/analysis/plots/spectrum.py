"""Power against frequency, in logarithms."""

from typing import TYPE_CHECKING

import torch

from ...publishing.plotting import REAL, SYNTHETIC, new_figure, short_label
from ..spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_spectrum(found: Spectrum, name: str) -> "Figure":
    """The mean over the images, and where the middle 80 % of them lie."""
    figure = new_figure(5.2, 3.8)
    axes = figure.subplots()
    curves = (
        (found.real, REAL, "-", f"{len(found.real):,} real images", found.slopes[1]),
        (found.synthetic, SYNTHETIC, "--", f"{len(found.synthetic):,} synthetic ones", found.slopes[0]),
    )
    for power, colour, line, label, slope in curves:
        low, high = torch.quantile(power, torch.tensor([0.1, 0.9], dtype=power.dtype), dim=0)
        axes.fill_between(found.frequencies, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            found.frequencies,
            power.mean(dim=0),
            line,
            color=colour,
            label=f"{label}, slope {slope:.2f}",
            linewidth=1.8,
        )
    axes.set(xscale="log", yscale="log", xlabel="cycles per image", ylabel="power")
    cycles = [2**n for n in range(int(found.frequencies[-1]).bit_length())]
    axes.set_xticks(cycles, [str(cycle) for cycle in cycles])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda power, _: f"{power:g}")
    axes.set_title(f"Power spectrum of {short_label(name, 40)}")
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.legend()
    return figure
