"""A table of training sets and backbones: in Markdown, HTML and pandas, as bars, and with its images."""

import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..publishing.comparison_figure import ComparisonRow, Score, save_comparison
from ..publishing.display import html_table
from ..publishing.distilled_set import DistilledSet
from ..publishing.figures import evenly_sampled, first_of_each
from ..publishing.results import ALL_REAL_IMAGES, ProbeResult, better_real_images, markdown_table, percent
from .transfer import TransferMatrix, shown_names

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

logger = logging.getLogger(__name__)

# As many columns of the Markdown table as there are backbones follow this one.
_TITLE = "trained on"


@dataclass
class Comparison:
    """Accuracies of training sets through backbones.

    Args:
        sets (`dict[str, DistilledSet]`): The sets of a few images, by name; of random real images the first draw.
        results (`list[ProbeResult]`): One for each set or reference and backbone.
        failures (`dict[str, str]`): For each backbone that could not be used what it said.
        transfer ([`TransferMatrix`], *optional*): Where two of the sets were distilled through two of the backbones.
    """

    sets: dict[str, DistilledSet]
    results: list[ProbeResult]
    failures: dict[str, str] = field(default_factory=dict)
    transfer: TransferMatrix | None = None

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        rows = len({result.training_set for result in self.results})
        return f"Comparison({rows} training sets, through {', '.join(self.backbones)})"

    def _repr_html_(self) -> str:
        return html_table(self._cells("top-1"), "top-1 in percent")

    @property
    def metrics(self) -> list[str]:
        """The metrics that there are, top-1 first."""
        return list(self.results[0].accuracies)

    @property
    def backbones(self) -> list[str]:
        """Names of those that gave results."""
        return list(dict.fromkeys(result.backbone for result in self.results))

    def table(self, metric: str = "top-1") -> str:
        """A Markdown table in percent: training sets × backbones, mean ± standard deviation over seeds."""
        return markdown_table(self._cells(metric))

    def _cells(self, metric: str) -> list[list[str]]:
        backbones = [*self.backbones, *self.failures]
        cells = {(result.training_set, result.backbone): _cell(result, metric) for result in self.results}
        rows = [[_TITLE, *shown_names(backbones)]]
        for name in self._training_sets:
            known = [cells.get((name, backbone), "") for backbone in self.backbones]
            rows.append([name, *known, *["failed"] * len(self.failures)])
        return rows

    @property
    def _training_sets(self) -> list[str]:
        return list(dict.fromkeys(result.training_set for result in self.results))

    def to_pandas(self, metric: str | None = "top-1") -> "pandas.DataFrame":
        """The numbers as a table of pandas.

        Args:
            metric (`str`, *optional*, defaults to `"top-1"`): Its means in percent, one row per training set and one
                column per backbone, empty (NaN) where a backbone failed. `None`: all there is, one row for each
                training set, backbone and metric, with columns `mean`, `std` and `n_seeds`.

        Raises:
            ValueError: If there is no such metric.
        """
        import pandas  # here, since it is slow to load

        rows = [row for result in self.results for row in result.rows()]
        if metric is None:
            return pandas.DataFrame(rows)
        self._check(metric)
        means = {(row["training_set"], row["backbone"]): row["mean"] for row in rows if row["metric"] == metric}
        backbones = [*self.backbones, *self.failures]
        values = [[means.get((name, backbone)) for backbone in backbones] for name in self._training_sets]
        columns = pandas.Index(shown_names(backbones), name="backbone")
        return pandas.DataFrame(values, pandas.Index(self._training_sets, name=_TITLE), columns, dtype=float)

    def plot(self, metric: str = "top-1", ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """A group of bars for each training set, one for each backbone, with the standard deviation over probes.

        Args:
            metric (`str`, *optional*, defaults to `"top-1"`): What is plotted, in percent.
            ax (`matplotlib.axes.Axes`, *optional*): Where; a new figure where not given.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If there is no such metric.
        """
        self._check(metric)
        rows = [row for result in self.results for row in result.rows() if row["metric"] == metric]
        return plot_bars(rows, f"{metric} in percent", ax)

    def _check(self, metric: str) -> None:
        if metric not in self.metrics:
            raise ValueError(f"There is no metric '{metric}'. Found: {', '.join(self.metrics)}.")

    def leave_out(self, backbone: str, error: Exception) -> None:
        """A backbone that failed: without results, and with what it said."""
        logger.error("%s failed, and its column stays empty: %s", backbone, error)
        self.failures[backbone] = str(error)
        self.results = [result for result in self.results if result.backbone != backbone]

    def warnings(self) -> list[str]:
        """Where a reader of the table should not be too pleased: real images are better."""
        rows = [row for result in self.results for row in result.rows()]
        return [
            f"'{name}' is worse than {kind} on {_short(backbone)}, {mean:.1f} against {best:.1f} %: use those there."
            for name, images in self.sets.items()
            if not images.is_real
            for backbone, (kind, best, mean) in better_real_images(rows, name, images.images_per_class).items()
        ]

    def save_figure(self, path: Path, backbones: Sequence[str]) -> Path:
        """Real images and the distilled above each other, each row with its top-1 on these backbones."""
        class_names = next(iter(self.sets.values())).class_names
        shown = evenly_sampled(len(class_names))
        top1 = {(r.training_set, r.backbone): Score(percent(r.rows()[0]), r.mean, r.std) for r in self.results}
        names = [name for name, images in self.sets.items() if images.is_real] + [
            name for name, images in self.sets.items() if not images.is_real
        ]
        rows = [
            ComparisonRow(
                name,
                first_of_each(self.sets[name].dataset, _shown_labels(self.sets[name], class_names), shown),
                [top1[name, backbone] for backbone in backbones],
                self.sets[name].is_real,
            )
            for name in names
        ]
        limits = [top1.get((ALL_REAL_IMAGES, backbone)) for backbone in backbones]
        return save_comparison(rows, [class_names[i] for i in shown], shown_names(backbones), path, limits)


def plot_bars(rows: Sequence[dict[str, Any]], title: str, ax: "matplotlib.axes.Axes | None") -> "matplotlib.axes.Axes":
    """Bars of rows of results, a group for each training set and a colour for each backbone.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("A plot needs matplotlib, which is not installed: pip install 'hf_lgm[plots]'.") from error
    sets, backbones = (list(dict.fromkeys(row[name] for row in rows)) for name in ("training_set", "backbone"))
    if ax is None:
        _, ax = plt.subplots(figsize=(max(4.0, 0.9 * len(sets)), 4), layout="constrained")
    width = 0.8 / len(backbones)
    for number, (backbone, shown) in enumerate(zip(backbones, shown_names(backbones), strict=True)):
        own = [row for row in rows if row["backbone"] == backbone]
        x = [sets.index(row["training_set"]) + (number - (len(backbones) - 1) / 2) * width for row in own]
        means, spreads = ([row[name] for row in own] for name in ("mean", "std"))
        ax.bar(x, means, width, yerr=spreads, capsize=2, label=shown)
    ax.set_xticks(range(len(sets)), [_wrapped(name) for name in sets], rotation=30, ha="right", fontsize=8)
    ax.set_ylabel(title)
    ax.legend(fontsize=8)
    return ax


def _cell(result: ProbeResult, metric: str) -> str:
    return next((percent(row) for row in result.rows() if row["metric"] == metric), "")


def _shown_labels(images: DistilledSet, class_names: list[str]) -> torch.Tensor:
    """The labels of images that a row of the figure may show, -1 for others: of a distilled set, what was learned."""
    labels = images.labels_as(class_names)
    return labels if images.is_real else labels.masked_fill(images.real_rows, -1)


def _short(name: str) -> str:
    return Path(name).name


def _wrapped(name: str) -> str:
    return textwrap.fill(name, 19)
