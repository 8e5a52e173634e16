"""An analysis as a folder: numbers, plots, and a page that shows the plots with a sentence for each."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..distillation.output_folder import check_is_ours
from ..evaluation.transfer import TransferMatrix, shown_names
from ..evaluation.transfer_plot import plot_transfer
from ..publishing.files import ANALYSIS_FILE, ANALYSIS_PAGE, read_json, write_json
from ..publishing.markdown import escaped
from ..publishing.plotting import FORMATS, check_plots, plot_style, save_figure, short_label
from .analysis import Analysis, BackboneAnalysis
from .plots.classes import MAX_CLASSES, plot_classes
from .plots.groups import plot_groups, shown_groups
from .plots.projection import plot_projection
from .plots.similarity import plot_similarity
from .plots.spectrum import plot_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_BACKBONE, _OF_SET = ("projection", "similarity", "classes", "groups"), ("spectrum", "agreement")


@dataclass(frozen=True)
class Plot:
    """One plot of an analysis.

    Args:
        name (`str`): Of its files, without a suffix.
        figure (`matplotlib.figure.Figure`): What is drawn.
        alt (`str`): What it is, for who can't see it.
        caption (`str`): What is to be seen, with its numbers.
    """

    name: str
    figure: "Figure"
    alt: str
    caption: str


def written_files(backbones: Sequence[str]) -> list[str]:
    """All that an analysis through these backbones may write."""
    names = [f"{kind}-{part}" for part in _file_names(backbones) for kind in _OF_BACKBONE]
    return [ANALYSIS_FILE, ANALYSIS_PAGE, *(f"{name}.{suffix}" for name in [*names, *_OF_SET] for suffix in FORMATS)]


def save_analysis(analysis: Analysis, folder: Path) -> Path:
    """See [`Analysis.save`]."""
    check_plots()
    check_is_ours(folder, written_files([each.backbone for each in analysis.through]))
    folder.mkdir(parents=True, exist_ok=True)
    for name in read_json(folder / ANALYSIS_FILE, dict).get("files", []):
        if Path(name).name == name and name != ANALYSIS_FILE:
            (folder / name).unlink(missing_ok=True)
    with plot_style():
        plots = _plots(analysis)
        named = {plot.name: [f"{plot.name}.{suffix}" for suffix in FORMATS] for plot in plots}
        captions = {plot.name: plot.caption for plot in plots}
        files = [ANALYSIS_PAGE, *(file for of_plot in named.values() for file in of_plot)]
        described = {"artifact": "analysis", **analysis.to_dict(), "captions": captions, "files": files}
        write_json(folder / ANALYSIS_FILE, described)  # first: it says that the rest is ours
        for plot in plots:
            save_figure(plot.figure, folder / plot.name)
    shown = [f"## {plot.alt}\n\n![{plot.alt}]({plot.name}.png)\n\n{plot.caption}\n" for plot in plots]
    page = "\n".join([f"# What {escaped(short_label(analysis.name, 60))} shows\n", *shown])
    (folder / ANALYSIS_PAGE).write_text(page, encoding="utf-8")
    return folder


def _plots(analysis: Analysis) -> list[Plot]:
    """All plots, those of each backbone after each other."""
    names, images, plots = analysis.class_names, analysis.images, []
    shown = shown_names([each.backbone for each in analysis.through])
    for each, backbone, part in zip(analysis.through, shown, _file_names(shown), strict=True):
        through = f"through {escaped(short_label(backbone, 60))}"
        projected = plot_projection(each.projection, images, names, backbone)
        plots.append(Plot(f"projection-{part}", projected, f"Where the images lie, {through}", _of_projection(each)))
        similar = plot_similarity(each.similarity, names, backbone)
        plots.append(
            Plot(f"similarity-{part}", similar, f"Which classes look alike, {through}", _of_similarity(each, names))
        )
        lost = plot_classes(each.classes, images, backbone)
        plots.append(Plot(f"classes-{part}", lost, f"Where the set loses most, {through}", _of_classes(each)))
        if each.groups:
            grouped = plot_groups(each.groups, images, backbone)
            plots.append(Plot(f"groups-{part}", grouped, f"Accuracy on each group, {through}", _of_groups(each)))
    if analysis.spectrum:
        drawn = plot_spectrum(analysis.spectrum, analysis.name)
        plots.append(Plot("spectrum", drawn, "How fine the images are", _of_spectrum(analysis)))
    if analysis.transfer:
        drawn, caption = plot_transfer(analysis.transfer), _of_transfer(analysis.transfer)
        plots.append(Plot("agreement", drawn, "Transfer and the backbones' agreement", caption))
    return plots


def _of_projection(each: BackboneAnalysis) -> str:
    found = each.projection
    own, total = int(found.nearest_is_own.sum()), len(found.nearest_is_own)
    away = float(found.relative_distance.nanmean())
    kept = f" The plane holds {sum(found.explained):.0%} of the variance." if found.explained else ""
    return (
        f"{own:,} of {total:,} synthetic images are nearest to the mean of their own class among real features, and "
        f"lie {away:.2f} times as far from it as real images do.{kept}"
    )


def _of_similarity(each: BackboneAnalysis, class_names: list[str]) -> str:
    found, pairs = each.similarity, each.similarity.most_alike(class_names)
    one, other = (escaped(short_label(name, 40)) for name in pairs[0]["classes"])
    ranks = "there are too few pairs of classes for a rank correlation"
    if not math.isnan(found.rho):
        ranks = f"the two rank the {len(found.pairs[0]):,} pairs of classes with a correlation of {found.rho:.2f}"
    return (
        f"The weights of a probe on all real images are most alike for {one} and {other} (cosine "
        f"{pairs[0]['all_real_images']:.2f}; by the set {pairs[0]['set']:.2f}); {ranks}."
    )


def _of_classes(each: BackboneAnalysis) -> str:
    worst = each.classes[0]
    taken = ""
    if worst.taken_for:
        taken = f"; {worst.taken_share:.0f} % of them are taken for {escaped(short_label(worst.taken_for, 40))}"
    few = f" {MAX_CLASSES} of {len(each.classes):,} classes are drawn." if len(each.classes) > MAX_CLASSES else ""
    return (
        f"Of all images probes on the set get {each.of_set:.1f} % right, and the probe on all real images "
        f"{each.of_full:.1f} %. The set loses most on {escaped(short_label(worst.name, 40))}: {worst.of_set:.1f} "
        f"against {worst.of_full:.1f} %{taken}.{few}"
    )


def _of_groups(each: BackboneAnalysis) -> str:
    worst = min(each.groups, key=lambda one: one.of_set)
    classes, groups = shown_groups(each.groups)
    rows = [
        f"{escaped(short_label(one.class_name))} / {escaped(short_label(one.group))}: {one.row}"
        for one in each.groups
        if one.image is not None and one.class_name in classes and one.group in groups
    ]
    shown = f" Real images that are shown, by their row in the training split: {'; '.join(rows)}." if rows else ""
    return (
        f"The set is weakest on {escaped(short_label(worst.class_name, 40))} in "
        f"{escaped(short_label(worst.group, 40))}: {worst.of_set:.1f} against {worst.of_full:.1f} % by the probe on "
        f"all real images.{shown}"
    )


def _of_spectrum(analysis: Analysis) -> str:
    found = analysis.spectrum
    assert found is not None
    synthetic, real = found.slopes
    return (
        f"On logarithmic axes the power of the synthetic images falls with a slope of {synthetic:.2f}, and that of "
        f"real ones, resized to the same side, with one of {real:.2f}. In the upper half of the frequencies synthetic "
        f"images have {found.fine_ratio:.3g} times the power."
    )


def _of_transfer(matrix: TransferMatrix) -> str:
    others = ~torch.eye(len(matrix.backbones), dtype=torch.bool)
    share, alike = matrix.share[others], matrix.alignment[others]
    return (
        f"On another backbone sets keep {share.min():.0%} to {share.max():.0%} of what all real images give there. "
        f"Two backbones share {alike.min():.0%} to {alike.max():.0%} of an image's ten nearest neighbours. "
        f"{matrix.claim.rstrip('.')}."
    )


def _file_names(backbones: Sequence[str]) -> list[str]:
    """What files call the backbones."""
    parts = [re.sub(r"[^\w.-]+", "-", name) or "backbone" for name in shown_names(backbones)]
    return [part if parts.count(part) == 1 else f"{part}-{number}" for number, part in enumerate(parts)]
