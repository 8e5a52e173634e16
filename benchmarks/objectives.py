"""Objectives, images per class, learned labels, several backbones and parameterizations in one table.

python benchmarks/objectives.py --model MODEL_A MODEL_B MODEL_C --dataset PATH_OR_ID --autoencoder VAE

Every set is distilled through the first backbone, one of them through the first two, in as many steps and views; the
columns are probes through all. A row that is found in the output folder is not computed again, so that a benchmark
that was stopped goes on, and two of them may share the rows: --rows 'one image:' kmeans.

To choose settings, --held_out true scores on training images that are kept aside; report what was chosen on the test
images, with other --run_seeds, in another --output_dir.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from earlier import FEATURES_ALONE

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, LGMConfig, LGMDistiller, select_baseline
from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.arguments import DataArguments, ModelArguments
from hf_lgm.cli.inputs import feature_extractor, load_backbones, load_data
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.evaluation.evaluator import Evaluator

STEPS, VIEWS = 400, 5  # views of each image in each step
LONGER = {"max_steps": 800, "views_per_step": 10}
SOFT = {"label_learning_rate": 1e-3}


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        part (`str`): Rows of one part are compared with each other.
        name (`str`): What it is called.
        settings (`dict`): Other settings than 400 steps of five views.
        runs (`int`, *optional*, defaults to 1): How many runs, each with a seed of its own; a standard deviation is
            over them, of one run over its probes.
        backbones (`int`, *optional*, defaults to 1): How many it is distilled through.
        baseline (`str`, *optional*): Real images instead, chosen through the first.
    """

    part: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    runs: int = 1
    backbones: int = 1
    baseline: str | None = None


def rows(vae: str | None) -> Iterator[Row]:
    """All of them."""
    objectives: dict[str, dict[str, Any]] = {
        "lgm": {},
        "ridge": {"objective": "ridge"},
    }
    for name, settings in objectives.items():
        yield Row("one image", name, settings, runs=3)
    yield Row("one image", "lgm, probe_std 0 (SFM)", {"probe_std": 0.0}, runs=3)
    for name in ("lgm", "ridge"):
        yield Row("one image, longer", f"{name}, 800 x 10", {**objectives[name], **LONGER})
    for count, part in ((5, "five images"), (10, "ten images")):
        views = 10 // count  # as many of each image in all steps together as with one per class
        settings = {"images_per_class": count, "views_per_step": views, "max_steps": STEPS * VIEWS // views}
        yield Row(part, "lgm", settings)
        yield Row(part, "ridge", {**settings, "objective": "ridge"})
        if count == 5:
            yield Row(part, "lgm, not clustered", {**settings, "cluster_classes": False})
        for kind in ("kmeans", "herding"):
            yield Row(part, f"{kind} real images", {"images_per_class": count}, baseline=kind)
    yield Row("learned labels", "lgm, soft labels", SOFT)
    yield Row("learned labels", "ridge, soft labels", {**objectives["ridge"], **SOFT})
    yield Row("two backbones", "ridge, through the first two", objectives["ridge"], backbones=2)
    yield Row("parameterization", "lgm, pixels", {"parameterization": "pixel"})
    if vae:
        yield Row("parameterization", "lgm, latents", {"parameterization": "latent", "vae": vae})


@dataclass
class TableArguments:
    """What is measured."""

    rows: list[str] = field(default_factory=list, metadata={"help": "Only those with one of these in 'part: name'."})
    autoencoder: str | None = field(default=None, metadata={"help": "Of latents, which are left out without it."})
    step_limit: int = field(default=10_000, metadata={"help": "Stop every run after so many steps."})
    run_seeds: list[int] = field(default_factory=lambda: [42, 1, 2], metadata={"help": "Of the runs of a row."})
    held_out: bool = field(default=False, metadata={"help": "Score on a fifth of the training images, to choose by."})


def run(
    row: Row, seed: int, backbones: list[FrozenBackbone], train: LabelledImages, args: LGMConfig, folder: Path
) -> tuple[DistilledSet, float]:
    """The set of one row and seed, and the seconds that it took."""
    started = time.perf_counter()
    if row.baseline:
        per_class = row.settings["images_per_class"]
        return select_baseline(row.baseline, backbones[0], train, per_class, seed=seed), time.perf_counter() - started
    settings = {**FEATURES_ALONE, "max_steps": STEPS, "views_per_step": VIEWS, **row.settings}
    settings["max_steps"] = min(settings["max_steps"], args.max_steps)  # a limit here
    own = dataclasses.replace(args, output_dir=str(folder), seed=seed, save_strategy="no", **settings)
    distiller = LGMDistiller(backbones[: row.backbones], own, train)
    distiller.train()
    images = distiller.distilled_set()
    images.save_pretrained(folder)
    return images, time.perf_counter() - started


def measure(
    row: Row, evaluators: list[Evaluator], train: LabelledImages, args: LGMConfig, folder: Path, seeds: list[int]
) -> dict:
    """Top-1 of all probes through each backbone, and the seconds of each run."""
    backbones = [evaluator.backbone for evaluator in evaluators]
    found: dict[str, Any] = {"part": row.part, "name": row.name, "settings": row.settings, "seconds": [], "top1": {}}
    for seed in seeds[: row.runs]:
        images, seconds = run(row, seed, backbones, train, args, folder / f"seed-{seed}")
        found["seconds"].append(round(seconds, 1))
        for evaluator in evaluators:
            sets = [images] * evaluator.protocol.seeds
            accuracy = evaluator.probe(row.name, sets, args.views).accuracies["top-1"]
            found["top1"].setdefault(evaluator.backbone.name, []).append(accuracy)
    return found


def table(found: list[dict], backbones: list[str]) -> str:
    """Mean of all probes ± standard deviation over the runs, of one run over its probes."""
    lines = [f"| | {' | '.join(backbones)} | seconds |", "|---|" + "---|" * (len(backbones) + 1)]
    part = None
    for row in found:
        if row["part"] != part:
            part = row["part"]
            lines.append(f"| *{part}* |" + " |" * (len(backbones) + 1))
        cells = []
        for backbone in backbones:
            runs = [mean(accuracies) for accuracies in row["top1"][backbone]]
            spread = runs if len(runs) > 1 else row["top1"][backbone][0]
            cells.append(f"{mean(runs):.1f} ± {stdev(spread) if len(spread) > 1 else 0:.1f}")
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {mean(row['seconds']):.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, print the table of what is there."""
    types = (ModelArguments, DataArguments, LGMArguments, TableArguments)
    model_args, data_args, given, own = parse_arguments(types, __doc__, sys.argv[1:])
    prepare_torch()
    args = LGMConfig(**vars(given))
    args.max_steps = own.step_limit
    backbones = load_backbones(model_args, model_args.model)
    train, eval_images = load_data(data_args, data_args.choose(model_args.model), backbones, args)
    if own.held_out:
        train, eval_images = train.hold_out(0.2, args.seed)
    protocol = args.probe_protocol
    extractor = feature_extractor(args)
    evaluators = [Evaluator(each, eval_images, protocol=protocol, extractor=extractor) for each in backbones]
    folder, found = Path(args.output_dir), []
    for number, row in enumerate(rows(own.autoencoder)):
        path = folder / f"row-{number:02}.json"
        if not path.exists() and (not own.rows or any(each in f"{row.part}: {row.name}" for each in own.rows)):
            folder.mkdir(parents=True, exist_ok=True)
            measured = measure(row, evaluators, train, args, folder / f"row-{number:02}", own.run_seeds)
            path.write_text(json.dumps(measured, indent=1) + "\n")
        if path.exists():
            found.append(json.loads(path.read_text()))
    (folder / "objectives.json").write_text(json.dumps({"torch": torch.__version__, "rows": found}, indent=1) + "\n")
    print(table(found, [backbone.name for backbone in backbones]))


if __name__ == "__main__":
    run_command(main)
