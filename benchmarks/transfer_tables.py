"""What transfer.py measured, as Markdown tables and as a picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.stats import spearmanr

from hf_lgm import DistilledSet
from hf_lgm.evaluation.transfer import rank_correlation
from hf_lgm.publishing.comparison_figure import ComparisonRow, Score, save_comparison
from hf_lgm.publishing.figures import evenly_sampled, first_of_each
from hf_lgm.publishing.files import read_json
from hf_lgm.publishing.results import ALL_REAL_IMAGES, markdown_table

KINDS = ("baseline", "run", "reference")  # in the order of the tables


@dataclass
class Report:
    """All rows of one dataset.

    Args:
        folder (`Path`): Where they are.
        rows (`list[dict]`): As their files say.
        backbones (`list[str]`): Names of the columns.
        labels (`dict[str, str]`): What the backbones are called.
        alignment (`dict`): Of each two backbones.
        families (`dict[str, str]`): Their architectures.
        conditions (`dict`): Images, classes and protocol.
    """

    folder: Path
    rows: list[dict[str, Any]]
    backbones: list[str]
    labels: dict[str, str]
    alignment: dict[str, dict[str, float]]
    families: dict[str, str]
    conditions: dict[str, Any]

    @classmethod
    def read(
        cls, folder: Path, names: Sequence[str], images_per_class: Sequence[int], labels: Sequence[str]
    ) -> "Report":
        """What is there; of sets only those of these names and numbers, in their order, where some are given."""
        known = read_json(folder / "alignment.json", dict)
        backbones = list(known["families"])
        short = {name: Path(name).name for name in backbones}
        for part, _, label in (each.partition("=") for each in labels):
            short |= {name: label for name in backbones if part in name}
        rows = [read_json(path, dict) for path in sorted((folder / "rows").glob("*.json"))]
        rows = [
            row
            for row in rows
            if row["kind"] == "reference"
            or (
                (not names or row["name"] in names)
                and row["images_per_class"] in (images_per_class or [row["images_per_class"]])
            )
        ]
        order = list(names) or sorted({row["name"] for row in rows})

        def place(row: dict[str, Any]) -> tuple:
            through = [backbones.index(name) for name in row["through"]]
            rank = order.index(row["name"]) if row["name"] in order else 0
            return KINDS.index(row["kind"]), rank, len(through), through, row["seed"]

        conditions = read_json(folder / "conditions.json", dict)
        return cls(
            folder, sorted(rows, key=place), backbones, short, known["alignment"], known["families"], conditions
        )

    def text(self) -> str:
        """All tables."""
        parts = [f"# {self.folder.name}\n\n{self._heading}"]
        sizes = sorted({row["images_per_class"] for row in self.rows if row["kind"] != "reference"})
        parts += [f"## {size} per class\n\n{self.table(size)}" for size in sizes or [0]]
        for size in sizes:
            for name in self._names(size):
                if len(self._single(name, size)) > 1:
                    parts.append(
                        f"## {name}, {size} per class: through (rows), on (columns)\n\n{self.matrix(name, size)}"
                    )
            parts += [
                f"## Alignment and transfer, {size} per class\n\n{self.pairs(size)}\n\n{self.correlations(size)}"
            ]
        return "\n\n".join(parts) + "\n"

    def table(self, size: int) -> str:
        """Sets × backbones: mean ± standard deviation, own backbones in bold."""
        table = [["set", "through", *self._columns, "runs", "seconds"]]
        groups: dict[tuple, list[dict]] = {}
        for row in self.rows:
            if row["images_per_class"] in (size, 0):
                groups.setdefault((row["kind"], row["name"], tuple(row["through"])), []).append(row)
        for (kind, name, through), rows in groups.items():
            shown = "" if name == "random" else " + ".join(self.labels[each] for each in through)
            own = through if name != "random" else ()
            cells = [cell([row["top1"][on] for row in rows if on in row["top1"]], on in own) for on in self.backbones]
            seconds = "" if kind == "reference" else f"{mean(row['seconds'] for row in rows):.0f}"
            table.append([name, shown, *cells, "" if kind == "reference" else str(len(rows)), seconds])
        return markdown_table(table)

    def matrix(self, name: str, size: int) -> str:
        """Through × on: top-1, and its share of the probe on all real images."""
        table = [["", *self._columns]]
        for through, on in self._transfer(name, size).items():
            cells = []
            for backbone in self.backbones:
                share = f" ({on[backbone] / self._full[backbone]:.0%})" if {backbone} <= on.keys() & self._full else ""
                cells.append(f"{on[backbone]:.1f}{share}" if backbone in on else "")
            table.append([" + ".join(self.labels[each] for each in through), *cells])
        full = [f"{self._full[each]:.1f}" if each in self._full else "" for each in self.backbones]
        return markdown_table([*table, [f"*{ALL_REAL_IMAGES}*", *full]])

    def pairs(self, size: int) -> str:
        """Ordered pairs of different backbones: alignment, and the transfer of each set."""
        names = self._names(size)
        table = [["through", "on", "alignment", *names]]
        for a, b in permutations(self.backbones, 2):
            found = [self._single(name, size).get(a, {}).get(b) for name in names]
            cells = ["" if value is None else f"{value:.1f}" for value in found]
            if any(cells):
                table.append([self.labels[a], self.labels[b], f"{self.alignment[a][b]:.3f}", *cells])
        return markdown_table(table)

    def correlations(self, size: int) -> str:
        """Spearman's rank correlations of alignment and transfer, one row for each kind of set."""
        table = [["set", "pairs", "rho of top-1", "p", "rho of share", "p", "permutation p of share"]]
        for name in self._names(size):
            transfer = self._single(name, size)
            found = [(a, b) for a, b in permutations(self.backbones, 2) if b in transfer.get(a, {})]
            if len(found) < 3:
                continue
            alike = [self.alignment[a][b] for a, b in found]
            cells = correlated(alike, [transfer[a][b] for a, b in found])
            if all(b in self._full for _, b in found):
                cells += correlated(alike, [transfer[a][b] / self._full[b] for a, b in found])
                cells.append(self._permuted(transfer))
            table.append([name, str(len(found)), *cells, *[""] * (5 - len(cells))])
        if len(table) == 1:
            return "Fewer than three pairs: nothing to correlate."
        why = (
            "p: scipy's, two-sided, as if pairs were independent; pairs that share a backbone are not. Permutation p: "
            "share of the orders of the backbones that give as large a rho (one-sided)."
        )
        return f"{markdown_table(table)}\n\n{why}"

    def picture(self, path: Path) -> Path:
        """One row of ten images for each kind of set and what it was made through: of the first seed."""
        sets = [row for row in self.rows if row["kind"] != "reference"]
        runs = [row for row in sets if row["kind"] == "run"]
        size = min(row["images_per_class"] for row in runs or sets)
        first: dict[tuple, dict] = {}
        for row in sets:
            if row["images_per_class"] == size:
                first.setdefault((row["name"], *row["through"]), row)
        classes = self.conditions["classes"]
        shown, rows = evenly_sampled(len(classes)), []
        for row in first.values():
            images = DistilledSet.from_pretrained(self.folder / "sets" / file_of(row))
            through = "" if row["name"] == "random" else " + ".join(self.labels[name] for name in row["through"])
            is_run = row["kind"] == "run"
            title = row["name"] if is_run else f"{row['name']} real images"
            title += f", {'through' if is_run else 'by'} {through}" if through else ""
            scores = [Score.of(row["top1"].get(on, [])) for on in self.backbones]
            pictures = first_of_each(images.dataset, images.labels_as(classes), shown)
            rows.append(ComparisonRow(title, pictures, scores, images.is_real))
        names = [re.sub(r"^n\d{8}[_ ]", "", classes[number]) for number in shown]  # without WordNet's numbers
        return save_comparison(rows, names, self._columns, path)

    @property
    def _heading(self) -> str:
        protocol = self.conditions["protocol"]
        return (
            f"Top-1 in percent on {self.conditions['eval_images']:,} images, {self.conditions['train_images']:,} were "
            f"distilled; mean of {protocol['seeds']} probes, ± standard deviation over runs or draws, of one run over "
            "its probes. The backbones that a set was made through are in bold."
        )

    @property
    def _columns(self) -> list[str]:
        return [self.labels[name] for name in self.backbones]

    @property
    def _full(self) -> dict[str, float]:
        """The probe on all real images through each backbone."""
        return {on: mean(of) for row in self.rows if row["name"] == ALL_REAL_IMAGES for on, of in row["top1"].items()}

    def _names(self, size: int) -> list[str]:
        """Of the sets, but for random images, which nothing was seen through."""
        rows = [row for row in self.rows if row["images_per_class"] == size and row["kind"] != "reference"]
        return [name for name in dict.fromkeys(row["name"] for row in rows) if name != "random"]

    def _transfer(self, name: str, size: int) -> dict[tuple[str, ...], dict[str, float]]:
        """Mean top-1 over the seeds by what the sets were made through and evaluated on."""
        found: dict[tuple[str, ...], dict[str, list[float]]] = {}
        for row in self.rows:
            if (row["name"], row["images_per_class"]) == (name, size):
                by_backbone = found.setdefault(tuple(row["through"]), {})
                for on, scores in row["top1"].items():
                    by_backbone.setdefault(on, []).append(mean(scores))
        return {through: {on: mean(of) for on, of in by.items()} for through, by in found.items()}

    def _single(self, name: str, size: int) -> dict[str, dict[str, float]]:
        """The same of sets that were made through one backbone."""
        return {key[0]: on for key, on in self._transfer(name, size).items() if len(key) == 1}

    def _permuted(self, transfer: dict[str, dict[str, float]]) -> str:
        """The p of a permutation of backbones, where all pairs of three or more are known."""
        names = [name for name in self.backbones if name in transfer]
        if len(names) < 3 or any(b not in transfer[a] for a in names for b in names):
            return ""
        alike = torch.tensor([[self.alignment[a][b] for b in names] for a in names])
        share = torch.tensor([[transfer[a][b] / self._full[b] for b in names] for a in names])
        found = rank_correlation(alike, share, len({self.families[name] for name in names}))
        return f"{found.p:.3f} ({found.pairs} pairs)"


def cell(runs: Sequence[Sequence[float]], is_own: bool) -> str:
    """Mean of all probes ± standard deviation over the runs, of one run over its probes."""
    if not runs:
        return ""
    means = [mean(scores) for scores in runs]
    spread = means if len(means) > 1 else runs[0]
    found = f"{mean(means):.1f}" + (f" ± {stdev(spread):.1f}" if len(spread) > 1 else "")
    return f"**{found}**" if is_own else found


def correlated(a: Sequence[float], b: Sequence[float]) -> list[str]:
    """Spearman's rho and scipy's p."""
    found = spearmanr(a, b)
    return [f"{found.statistic:.2f}", f"{found.pvalue:.3f}"]


def file_of(row: dict[str, Any]) -> str:
    """The name of a row's file, and of its set's folder."""
    parts = [row["name"].replace(" ", "-")]
    if row["kind"] != "reference":
        parts += ["+".join(row["through"]), f"ipc{row['images_per_class']}", f"seed{row['seed']}"]
    return "_".join(parts).replace("/", "--")
