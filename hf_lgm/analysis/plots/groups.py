"""Classes and groups as a grid: the set's image, and for each group the nearest real one with its accuracies."""

from typing import TYPE_CHECKING, Any

from ...publishing.distilled_set import DistilledSet
from ...publishing.figures import hatched
from ...publishing.plotting import REAL, SYNTHETIC, new_figure, short_label
from ..groups import GroupAccuracy
from .images import images_of_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES, MAX_GROUPS = 6, 6
_CELL = 1.15  # inches
_NOTE = "Above the bars the real image nearest to the set's"


def shown_groups(found: list[GroupAccuracy]) -> tuple[list[str], list[str]]:
    """The classes and groups that are drawn: those that hold the lowest accuracies of the set."""
    worst = sorted(found, key=lambda one: one.of_set)
    classes = list(dict.fromkeys(one.class_name for one in worst))[:MAX_CLASSES]
    groups = list(dict.fromkeys(one.group for one in worst if one.class_name in classes))[:MAX_GROUPS]
    return classes, sorted(groups)


def plot_groups(found: list[GroupAccuracy], images: DistilledSet, backbone: str) -> "Figure":
    """A row for each class, a column for each group; the worst class first."""
    from matplotlib.patches import Patch  # here, since it is slow to load

    classes, groups = shown_groups(found)
    cells = {(one.class_name, one.group): one for one in found}
    figure = new_figure(1.3 + _CELL * (1 + len(groups)), 1.2 + (_CELL + 0.3) * len(classes))
    grid = figure.subplots(len(classes), 1 + len(groups), squeeze=False)
    for row, name in enumerate(classes):
        first, *others = grid[row]
        first.imshow(images_of_class(images, name)[0], interpolation="lanczos")
        first.set_ylabel(short_label(name, 18), fontsize=9)
        if row == 0:
            first.set_title("the set's", loc="center")
        for axes, group in zip(others, groups, strict=True):
            _draw_cell(axes, cells.get((name, group)))
            if row == 0:
                axes.set_title(short_label(group, 16), loc="center")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.suptitle(f"Accuracy on each group through {short_label(backbone, 30)}", x=0.01, ha="left", fontsize=10)
    bars = [Patch(color=colour, label=label) for colour, label in ((SYNTHETIC, "the set"), (REAL, "all real images"))]
    note: dict[str, Any] = {"title": _NOTE, "title_fontsize": 8, "alignment": "left"}
    figure.legend(handles=bars, loc="outside lower left", ncols=2, fontsize=8, **note)
    return figure


def _draw_cell(axes: "Axes", one: GroupAccuracy | None) -> None:
    """The nearest real image, and under it two bars of accuracy with their numbers."""
    axes.imshow((one and one.image) or hatched((64, 64)), interpolation="lanczos")
    if one is None:
        axes.set_xlabel("no image", fontsize=8)
        return
    for line, (value, colour) in enumerate(((one.of_set, SYNTHETIC), (one.of_full, REAL))):
        below = -0.1 - 0.13 * line
        axes.barh(below, 0.6 * value / 100, 0.09, color=colour, transform=axes.transAxes, clip_on=False)
        look: dict[str, Any] = {
            "transform": axes.transAxes,
            "fontsize": 7.5,
            "va": "center",
            "ha": "right",
            "color": colour,
        }
        axes.text(1.0, below, f"{value:.0f} %", **look)
