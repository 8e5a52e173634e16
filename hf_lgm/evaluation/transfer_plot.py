"""How transfer between backbones looks: a heat map, and transfer against the backbones' agreement."""

import itertools
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ..publishing.plotting import COLOURS, HEAT, MARKERS, new_figure, plot_style, short_label
from .transfer import TransferMatrix, shown_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_transfer(matrix: TransferMatrix, path: Path) -> Path:
    """Write the plot of transfer; the suffix says how."""
    with plot_style():
        plot_transfer(matrix).savefig(path, dpi=120)
    return path


def plot_transfer(matrix: TransferMatrix) -> "Figure":
    """A heat map of shares of the full-data probe, and these shares against alignment, side by side."""
    from matplotlib.lines import Line2D  # here, since it is slow to load

    figure = new_figure(12, 4.6)
    heat, scatter = figure.subplots(1, 2)
    names, share = [short_label(name, 24) for name in shown_names(matrix.backbones)], matrix.share.numpy()
    heat.imshow(100 * share, cmap=HEAT, vmin=0, vmax=100)
    heat.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    heat.set_yticks(range(len(names)), names, fontsize=8)
    heat.set(
        xlabel="evaluated on", ylabel="distilled through", title="Top-1 in percent (share of the full-data probe)"
    )
    heat.spines[:].set_visible(False)
    for row, column in itertools.product(range(len(names)), repeat=2):
        text = f"{matrix.accuracy[row, column]:.1f}\n({share[row, column]:.0%})"
        is_dark = share[row, column] < 0.6
        heat.text(column, row, text, ha="center", va="center", color="white" if is_dark else "black", fontsize=9)
    for row, column in itertools.permutations(range(len(names)), 2):
        point = matrix.alignment[row, column].item(), 100 * share[row, column]
        scatter.scatter(*point, s=45, color=_colour(row), marker=_marker(column))
    scatter.set(xlabel="mutual 10-nearest-neighbour alignment", ylabel="share of the full-data probe in percent")
    scatter.set_title(textwrap.fill(matrix.claim, 62), fontsize=8)
    numbered = list(enumerate(names))
    made = [Line2D([], [], ls="", marker="o", color=_colour(number), label=name) for number, name in numbered]
    seen = [Line2D([], [], ls="", marker=_marker(number), color="grey", label=name) for number, name in numbered]
    headings = [Line2D([], [], ls="", label=heading) for heading in ("distilled through", "evaluated on")]
    keys = [headings[0], *made, headings[1], *seen]
    scatter.legend(handles=keys, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def _colour(number: int) -> str:
    """Of the points of sets that were made through a backbone."""
    return COLOURS[number % len(COLOURS)]


def _marker(number: int) -> str:
    """Of the points on a backbone."""
    return MARKERS[number % len(MARKERS)]
