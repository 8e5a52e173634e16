"""Seconds and memory of what grows with the number of real images and classes, on made-up features.

python benchmarks/many_images.py --rows 32029 64058 128117             # a tenth of ImageNet-1k at most
python benchmarks/many_images.py --rows 1281167                        # its size; wants a GPU

Of the objective: one step, with as many synthetic images of ten views as there are classes. Statistics that are there
once for all steps are counted on their own, as is the choice of a strength for a classifier, of ten or so.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from speed import Meter, show

from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.distillation.objectives import LabelledFeatures, balanced_weights, feature_gradient, uniform_weights
from hf_lgm.evaluation import classifiers
from hf_lgm.evaluation.matched import matched_rows
from hf_lgm.features.coresets import centroid_rows, herding_rows, kmeans_rows

VIEWS = 10
IMAGES_PER_CLASS = 10  # that k-means and herding choose


@dataclass
class ManyImagesArguments:
    """What is measured.

    Args:
        rows (`list[int]`, *optional*): Numbers of real images.
        eval_rows (`int`, *optional*, defaults to 5000): Images that classifiers answer to.
        classes (`int`, *optional*, defaults to 1000): C.
        dim (`int`, *optional*, defaults to 768): Size of a feature.
        parts (`list[str]`, *optional*): objective, chosen, classifiers.
        steps (`int`, *optional*, defaults to 2): Timed steps of the objective.
        output (`str`, *optional*, defaults to `"many-images.json"`): Where the numbers go.
    """

    rows: list[int] = field(default_factory=lambda: [128_117])
    eval_rows: int = 5000
    classes: int = 1000
    dim: int = 768
    parts: list[str] = field(default_factory=lambda: ["objective", "chosen", "classifiers"])
    steps: int = 2
    output: str = "many-images.json"


def made_up(rows: int, own: ManyImagesArguments, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, D) around a centre for each class, and their classes (N,), sorted as datasets often are."""
    generator = torch.Generator().manual_seed(rows)
    y = torch.arange(rows) * own.classes // rows
    centres = torch.randn(own.classes, own.dim, generator=generator)
    z = torch.randn(rows, own.dim, generator=generator).add_(centres[y])
    return z.to(device), y.to(device)


def objective_rows(
    meter: Meter, z: torch.Tensor, y: torch.Tensor, own: ManyImagesArguments
) -> Iterator[tuple[str, Callable[[], object], int, int]]:
    """What is timed of the objective: its name, the work, how often, and how often before that."""
    real = LabelledFeatures(z, y, balanced_weights(y))
    labels = torch.arange(own.classes, device=z.device).repeat_interleave(VIEWS)
    synthetic = LabelledFeatures(torch.randn(len(labels), own.dim, device=z.device), labels, uniform_weights(labels))
    synthetic = LabelledFeatures(synthetic.z, synthetic.targets(own.classes), synthetic.weight)
    W = 0.01 * torch.randn(own.classes, own.dim, device=z.device)
    yield "statistics, once", lambda: (real.norm, real.precision), 1, 0
    for name in ("lgm", "ridge"):
        yield f"objective {name}, a step", functools.partial(feature_gradient, synthetic, real, W, name), own.steps, 1


def chosen_rows(
    meter: Meter, z: torch.Tensor, y: torch.Tensor, own: ManyImagesArguments
) -> Iterator[tuple[str, Callable[[], object], int, int]]:
    """Likewise of the real images that are chosen."""
    on_cpu, labels = z.cpu(), y.cpu()
    many = f"{IMAGES_PER_CLASS} a class"
    yield "centroid images", lambda: centroid_rows(on_cpu, labels, own.classes, 1), 1, 0
    yield f"herding, {many}", lambda: herding_rows(on_cpu, labels, own.classes, IMAGES_PER_CLASS), 1, 0
    yield f"k-means, {many}", lambda: kmeans_rows(on_cpu, labels, own.classes, IMAGES_PER_CLASS), 1, 0
    first = centroid_rows(on_cpu, labels, own.classes, 1).to(z.device)
    yield "matched, 1 a class", lambda: matched_rows(z, y, own.classes, first), 1, 0


def classifier_rows(
    meter: Meter, z: torch.Tensor, y: torch.Tensor, own: ManyImagesArguments
) -> Iterator[tuple[str, Callable[[], object], int, int]]:
    """Likewise of classifiers, with their answers to `eval_rows` images."""
    queries = torch.randn(own.eval_rows, own.dim, device=z.device)
    data = z, y, own.classes
    yield "nearest class mean", lambda: classifiers.nearest_class_mean(*data)(queries), 1, 0
    yield "20 nearest neighbours", lambda: classifiers.nearest_neighbours(*data)(queries), 1, 0
    for name, fit, strengths in (
        ("ridge regression, chosen", classifiers.ridge_regression, classifiers.RIDGES),
        ("discriminant analysis, chosen", classifiers.discriminant_analysis, classifiers.SHRINKAGES),
    ):
        yield name, lambda fit=fit, of=strengths: classifiers.chosen(fit, of, *data)[0](queries), 1, 0
    ten = classifiers.logistic_regression(*data, max_iter=10)
    yield "probe, 10 steps of L-BFGS", lambda: ten(classifiers.WEIGHT_DECAYS[-1]), 1, 0


PARTS = {"objective": objective_rows, "chosen": chosen_rows, "classifiers": classifier_rows}


def main() -> None:
    """Measure every part at every number of images; print tables, write JSON."""
    (own,) = parse_arguments([ManyImagesArguments], __doc__, sys.argv[1:])
    prepare_torch()
    meter = Meter()
    found: dict[str, Any] = {"device": meter.name, "classes": own.classes, "dim": own.dim, "torch": torch.__version__}
    print(f"{own.classes:,} classes, features of {own.dim} numbers, on {meter.name}")
    rows: dict[str, dict[str, Any]] = {}
    for count in own.rows:
        z, y = made_up(count, own, meter.device)
        for part in own.parts:
            for name, work, repeats, warm_up in PARTS[part](meter, z, y, own):
                base = meter.clear()
                seconds = meter.time(work, repeats, warm_up)
                row = rows.setdefault(name, {"what": name})
                row |= {f"{count:,}": seconds, "peak at the last": meter.peak() - base}
                print(f"{name}, {count:,} images: {seconds:.3g} s", flush=True)
                found["rows"] = list(rows.values())
                Path(own.output).write_text(json.dumps(found, indent=1) + "\n")
    show(list(rows.values()))


if __name__ == "__main__":
    run_command(main)
