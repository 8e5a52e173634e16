"""Accuracies of the classes as bars, the set's images beside them."""

from typing import TYPE_CHECKING, Any

from ...publishing.distilled_set import DistilledSet
from ...publishing.plotting import REAL, SYNTHETIC, new_figure, short_label
from ..classes import ClassAccuracy
from .images import framed, images_of_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES, MAX_IMAGES = 20, 4
_ROW = 0.42  # inches
_SIDE = 26  # points, of an image


def plot_classes(found: list[ClassAccuracy], images: DistilledSet, backbone: str) -> "Figure":
    """Up to twenty classes, those where the set loses most first."""
    shown = found[:MAX_CLASSES]
    rows, columns = range(len(shown)), min(MAX_IMAGES, images.images_per_class)
    figure = new_figure(6.4 + columns * _ROW, 1.3 + len(shown) * _ROW)
    axes = figure.subplots()
    axes.barh([row - 0.19 for row in rows], [one.of_full for one in shown], 0.36, color=REAL, label="all real images")
    axes.barh([row + 0.19 for row in rows], [one.of_set for one in shown], 0.36, color=SYNTHETIC, label="the set")
    for row, one in zip(rows, shown, strict=True):
        _draw_images(axes, row, images, one.name)
        if one.taken_for:
            text = f"{one.taken_share:.0f} % taken for {short_label(one.taken_for, 18)}"
            axes.text(101, row + 0.19, text, va="center", fontsize=7.5, color="#444444")
    axes.set(xlim=(0, 100), ylim=(len(shown) - 0.5, -0.5), xlabel="accuracy in percent")
    axes.set_yticks(rows, [short_label(one.name) for one in shown])
    axes.tick_params(axis="y", length=0, pad=columns * _SIDE + 10)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    few = f"{len(shown)} of {len(found)} classes: w" if len(shown) < len(found) else "W"
    title = f"{few}here the set loses most through {short_label(backbone, 40)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _draw_images(axes: "Axes", row: int, images: DistilledSet, class_name: str) -> None:
    """The set's images of one class, between its name and its bars."""
    for column, image in enumerate(images_of_class(images, class_name)[:MAX_IMAGES]):
        left = -(column + 0.5) * _SIDE - 4
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "boxcoords": "offset points"}
        axes.add_artist(framed(image, (0, row), _SIDE - 2, xybox=(left, 0), **place))
