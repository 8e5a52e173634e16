"""Two matrices of cosines side by side, and their pairs of classes against each other."""

import math
from typing import TYPE_CHECKING, Any

import torch

from ...publishing.plotting import COLOURS, HEAT, new_figure, short_label
from ..similarity import ClassSimilarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED, _MAX_PAIRS = 40, 20_000


def plot_similarity(found: ClassSimilarity, class_names: list[str], backbone: str) -> "Figure":
    """Classes stand in an order that brings those together that look alike to the probe on all real images."""
    import matplotlib  # here, since it is slow to load

    order = _order(found.of_full)
    ours, full = found.pairs
    low, high = float(torch.cat([ours, full]).min()), float(torch.cat([ours, full]).max())
    figure = new_figure(11.5, 3.9)
    *maps, scatter = figure.subplots(1, 3, width_ratios=[1, 1, 0.95])
    colours = matplotlib.colormaps[HEAT].with_extremes(bad="white")
    titles = ("Probe on all real images", "Probes on the set")
    for number, (axes, cosines, title) in enumerate(zip(maps, (found.of_full, found.of_set), titles, strict=True)):
        shown = cosines.clone().fill_diagonal_(math.nan)[order][:, order]
        drawn = axes.imshow(shown.numpy(), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.set(title=title, xticks=[], yticks=[])
        if len(order) <= _NAMED:
            names = [short_label(class_names[label], 16) for label in order]
            size = max(5, min(9, 190 / len(order)))
            axes.set_xticks(range(len(order)), names, rotation=90, fontsize=size)
            if number == 0:
                axes.set_yticks(range(len(order)), names, fontsize=size)
            axes.tick_params(length=0)
    figure.colorbar(drawn, ax=maps, label="cosine of weights", shrink=0.8)
    drawn_pairs = slice(None, None, max(1, len(ours) // _MAX_PAIRS))
    look: dict[str, Any] = {"alpha": min(0.6, max(0.05, 600 / len(ours))), "color": COLOURS[0], "linewidths": 0}
    scatter.scatter(full[drawn_pairs], ours[drawn_pairs], s=14, rasterized=True, **look)
    scatter.set(xlabel="cosine, all real images", ylabel="cosine, the set")
    rho = "not defined" if math.isnan(found.rho) else f"{found.rho:.2f}"
    scatter.set_title(f"Pairs of classes, rank correlation {rho}")
    figure.suptitle(f"Which classes look alike through {short_label(backbone, 40)}", x=0.01, ha="left", fontsize=11)
    return figure


def _order(cosines: torch.Tensor) -> list[int]:
    """Classes as the leaves of a tree of averages."""
    from scipy.cluster.hierarchy import leaves_list, linkage  # here, since it is slow to load
    from scipy.spatial.distance import squareform

    if len(cosines) < 3:
        return list(range(len(cosines)))
    apart = (1 - cosines).clamp(min=0).fill_diagonal_(0)
    tree = linkage(
        squareform(((apart + apart.T) / 2).numpy(), checks=False), "average", optimal_ordering=len(cosines) <= 300
    )
    return leaves_list(tree).tolist()
