"""Plots of numbers: transfer between backbones as a heat map, and against their alignment."""

import textwrap
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .transfer import TransferMatrix


def save_transfer(matrix: TransferMatrix, path: Path) -> Path:
    """A heat map of shares of the full-data probe, and these shares against alignment, side by side."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")  # no pyplot: nothing global, no display
    heat, scatter = figure.subplots(1, 2)
    names, share = [Path(name).name for name in matrix.backbones], matrix.share.numpy()
    alignment = matrix.alignment.numpy()
    heat.imshow(100 * share, cmap="viridis", vmin=0, vmax=100)
    heat.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    heat.set_yticks(range(len(names)), names, fontsize=8)
    heat.set(xlabel="evaluated on", ylabel="distilled through", title="top-1 (share of full-data probe)")
    for row in range(len(names)):
        for column in range(len(names)):
            text = f"{matrix.accuracy[row, column]:.1f}\n({share[row, column]:.0%})"
            dark = share[row, column] < 0.6
            heat.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
    colours = matplotlib.colormaps["tab10"]
    for row in range(len(names)):
        columns = [column for column in range(len(names)) if column != row]
        x, y = alignment[row, columns], 100 * share[row, columns]
        scatter.scatter(x, y, color=colours(row % 10), label=f"through {names[row]}")
        for column in columns:
            point = (alignment[row, column], 100 * share[row, column])
            scatter.annotate(f" on {names[column]}", point, fontsize=6)
    scatter.set(xlabel="mutual 10-nearest-neighbour alignment", ylabel="share of the full-data probe, %")
    scatter.set_title(textwrap.fill(matrix.claim, 70), fontsize=8)
    scatter.margins(x=0.3, y=0.1)  # room for the points' names
    figure.legend(*scatter.get_legend_handles_labels(), fontsize=8, loc="outside lower right")
    figure.savefig(path, dpi=120)
    return path
