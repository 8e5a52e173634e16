"""Real features as a cloud, the synthetic images on top."""

from typing import TYPE_CHECKING, Any

import torch

from ...publishing.distilled_set import DistilledSet
from ...publishing.figures import evenly_sampled
from ...publishing.plotting import COLOURS, MARKERS, new_figure, short_label
from ..projection import ProjectedFeatures
from .images import framed, images_of_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OTHERS = "#BBBBBB"
_MAX_PICTURES = 30  # more of them hide what is below: marks instead
_PICTURE = 22  # points


def plot_projection(found: ProjectedFeatures, images: DistilledSet, class_names: list[str], backbone: str) -> "Figure":
    """Up to ten classes in colours and marks of their own; of more, the others are grey."""
    figure = new_figure(6.8, 4.9)
    axes = figure.subplots()
    shown = evenly_sampled(len(class_names))
    others = ~torch.isin(found.real_labels, torch.tensor(shown))
    axes.scatter(found.real[others, 0], found.real[others, 1], s=4, c=_OTHERS, linewidths=0, rasterized=True)
    as_pictures = len(shown) * images.images_per_class <= _MAX_PICTURES
    for number, label in enumerate(shown):
        look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        points = found.real[found.real_labels == label]
        axes.scatter(points[:, 0], points[:, 1], s=13, alpha=0.45, linewidths=0, rasterized=True, **look)
        own = found.synthetic[found.synthetic_labels == label]
        if as_pictures:
            _draw_pictures(axes, own, images, class_names[label], look["color"])
        size = 0 if as_pictures else 80  # then for the limits of the axes alone
        axes.scatter(own[:, 0], own[:, 1], s=size, edgecolors="white", linewidths=1.2, zorder=3, **look)
        axes.scatter([], [], s=45, label=short_label(class_names[label]), linewidths=0, **look)  # for the legend
    _name_axes(axes, found)
    axes.set_title(f"Synthetic images among real ones (points) through {short_label(backbone, 40)}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="class", alignment="left")
    return figure


def _draw_pictures(axes: "Axes", points: torch.Tensor, images: DistilledSet, class_name: str, colour: str) -> None:
    """The images of one class in frames of its colour, where they lie."""
    from matplotlib.patheffects import withStroke  # here, since it is slow to load

    for at, image in zip(points.tolist(), images_of_class(images, class_name), strict=True):
        axes.add_artist(framed(image, at, _PICTURE, colour))
        look: dict[str, Any] = {"color": colour, "ha": "center", "va": "top", "fontsize": 8, "zorder": 4}
        halo = [withStroke(linewidth=2.5, foreground="white")]
        below: dict[str, Any] = {"xytext": (0, -_PICTURE / 2 - 4), "textcoords": "offset points", "path_effects": halo}
        axes.annotate(short_label(class_name, 14), at, **below, **look)


def _name_axes(axes: "Axes", found: ProjectedFeatures) -> None:
    if found.explained:
        names = [f"principal component {n + 1} ({share:.0%} of variance)" for n, share in enumerate(found.explained)]
    else:
        names = ["UMAP 1", "UMAP 2"]
    axes.set(xlabel=names[0], ylabel=names[1], xticks=[], yticks=[])
