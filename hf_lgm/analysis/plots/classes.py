"""Accuracies of the classes as bars, the set's images beside them."""

from typing import TYPE_CHECKING

from ...publishing.distilled_set import DistilledSet
from ...publishing.plotting import REAL, SYNTHETIC, new_figure, short_label
from ..classes import ClassAccuracy
from .images import images_of_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES, MAX_IMAGES = 20, 4
_ROW = 0.42  # inches


def plot_classes(found: list[ClassAccuracy], images: DistilledSet, backbone: str) -> "Figure":
    """Up to twenty classes, those where the set loses most first."""
    shown = found[:MAX_CLASSES]
    columns = min(MAX_IMAGES, images.images_per_class)
    figure = new_figure(6.2 + columns * _ROW, 1.3 + len(shown) * _ROW)
    pictures, bars = figure.subplots(1, 2, sharey=True, width_ratios=[columns * _ROW, 4.6])
    rows = range(len(shown))
    bars.barh([row - 0.19 for row in rows], [one.of_full for one in shown], 0.36, color=REAL, label="all real images")
    bars.barh([row + 0.19 for row in rows], [one.of_set for one in shown], 0.36, color=SYNTHETIC, label="the set")
    for row, one in zip(rows, shown, strict=True):
        if one.taken_for:
            text = f"{one.taken_share:.0f} % taken for {short_label(one.taken_for, 18)}"
            bars.text(101, row + 0.19, text, va="center", fontsize=7.5, color="#444444")
    bars.set(xlim=(0, 100), xlabel="accuracy in percent")
    bars.tick_params(axis="y", left=False, labelleft=False)
    bars.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    bars.set_axisbelow(True)
    bars.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    _draw_images(pictures, shown, images, columns)
    few = f"{len(shown)} of {len(found)} classes: w" if len(shown) < len(found) else "W"
    figure.suptitle(
        f"{few}here the set loses most through {short_label(backbone, 40)}", x=0.01, ha="left", fontsize=10
    )
    return figure


def _draw_images(axes: "Axes", shown: list[ClassAccuracy], images: DistilledSet, columns: int) -> None:
    """The set's images of each class, in the row of its bars."""
    for row, one in enumerate(shown):
        for column, image in enumerate(images_of_class(images, one.name)[:columns]):
            axes.imshow(image, extent=(column + 0.04, column + 0.96, row + 0.46, row - 0.46), interpolation="lanczos")
    axes.set(xlim=(0, columns), xticks=[], aspect="equal", anchor="E")
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [short_label(one.name) for one in shown])
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
