"""A shortcut planted in photographs, and whether one image per class passes on what a class has by accident.

python benchmarks/spurious_photos.py --model MODEL_A MODEL_B --dataset PATH_OR_ID --group_column_name domain

Any dataset whose images have a class and a domain, such as PACS. Each class is given one domain, in turn; of its
images in the planted subset of the train split a share is from that domain, the rest from the others. The unplanted
subset is of the same size, with as many of each domain. The test split is used whole; its groups are pairs of class
and domain. Every set is made and scored through the same backbone.

A row that is found in the output folder is not computed again, unless it was made with other settings or data. For
another draw and another run give another --seed, and another --output_dir.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_lgm import DistilledSet, LabelledImages, LGMConfig, LGMDistiller, select_baseline
from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.arguments import DataArguments, ModelArguments
from hf_lgm.cli.inputs import feature_extractor, load_backbones, load_data
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.evaluation.evaluator import Evaluator
from hf_lgm.publishing.comparison_figure import ComparisonRow, Score, save_comparison
from hf_lgm.publishing.figures import evenly_sampled, first_of_each
from hf_lgm.publishing.results import ALL_REAL_IMAGES, ProbeResult, markdown_table
from hf_lgm.randomness import seeded_generator

PROBE, CENTROID, DISTILLED = "probe on all images", "centroid images", "distilled images"
SUBSETS = PLANTED, UNPLANTED = "planted", "unplanted"
METRICS = ("top-1", "worst group")


@dataclass
class PlantingArguments:
    """What is planted."""

    correlation: float = field(default=0.95, metadata={"help": "Share of a class's images that are from its domain."})

    def __post_init__(self) -> None:
        if not 0 < self.correlation <= 1:
            raise ValueError(f"--correlation is a share above 0, and 1 at most, found {self.correlation:g}.")


def domain_of(label: int, num_domains: int) -> int:
    """The domain that a class is given."""
    return label % num_domains


def spread(total: int, room: Sequence[int]) -> list[int]:
    """How many of each, so that they are `total`, no more than there is room for, and as even as that allows."""
    counts = [0] * len(room)
    for _ in range(total):
        counts[min((count, number) for number, count in enumerate(counts) if count < room[number])[1]] += 1
    return counts


def class_size(room: Sequence[Sequence[int]], correlation: float) -> int:
    """The most images that every class can have, by how many there are of each class and domain; 0 for none."""

    def fits(size: int) -> bool:
        own = round(correlation * size)
        domains = [domain_of(label, len(of_class)) for label, of_class in enumerate(room)]
        return all(
            1 <= own <= of_class[domain] and size - own <= sum(of_class) - of_class[domain]
            for domain, of_class in zip(domains, room, strict=True)
        )

    return next((size for size in range(min(map(sum, room)), 0, -1) if fits(size)), 0)


def planted_counts(room: Sequence[Sequence[int]], size: int, correlation: float) -> list[list[int]]:
    """How many images of each class and domain, where a class is mostly of its own domain."""
    found = []
    for label, of_class in enumerate(room):
        domain, own = domain_of(label, len(of_class)), round(correlation * size)
        counts = spread(size - own, [0 if number == domain else count for number, count in enumerate(of_class)])
        counts[domain] = own
        found.append(counts)
    return found


def subsets(train: LabelledImages, correlation: float, seed: int) -> dict[str, LabelledImages]:
    """The planted and the unplanted part of the train split, of equal size.

    Raises:
        ValueError: If a class has too few images of its domain, or of the others.
    """
    if train.groups is None or train.group_names is None:
        raise ValueError("--group_column_name: name the column of the domains.")
    domains = [train.groups == domain for domain in range(len(train.group_names))]
    classes = [train.labels == label for label in range(train.num_classes)]
    pairs = [[(of_class & of_domain).nonzero()[:, 0] for of_domain in domains] for of_class in classes]
    room = [list(map(len, of_class)) for of_class in pairs]
    size = class_size(room, correlation)
    if not size:
        needed = {train.class_names[row]: train.group_names[domain_of(row, len(of))] for row, of in enumerate(room)}
        raise ValueError(f"A class has no image of its domain, or of another one: {needed}. Choose --classes.")
    wanted = {
        PLANTED: planted_counts(room, size, correlation),
        UNPLANTED: [spread(size, of_class) for of_class in room],
    }
    return {name: train.select(drawn(pairs, counts, seed)) for name, counts in wanted.items()}


def drawn(pairs: list[list[torch.Tensor]], counts: list[list[int]], seed: int) -> torch.Tensor:
    """So many rows of each class and domain, ascending."""
    rows = []
    for label, of_class in enumerate(pairs):
        for domain, of_pair in enumerate(of_class):
            order = torch.randperm(len(of_pair), generator=seeded_generator(seed, "planted", label, domain))
            rows.append(of_pair[order[: counts[label][domain]]])
    return torch.cat(rows).sort().values


def distil(evaluator: Evaluator, args: LGMConfig, folder: Path) -> DistilledSet:
    """One image per class of the evaluator's training images, which stays in the folder."""
    own = dataclasses.replace(args, output_dir=str(folder), images_per_class=1, save_strategy="no")
    distiller = LGMDistiller(evaluator.backbone, own, evaluator.training_images)
    distiller.train()
    images = distiller.distilled_set()
    images.save_pretrained(folder)
    return images


def score(kind: str, evaluator: Evaluator, args: LGMConfig, folder: Path) -> ProbeResult:
    """What one kind of training set scores.

    Raises:
        ValueError: If there are too few images for a probe on all of them.
    """
    if kind == PROBE:
        result = evaluator.reference(ALL_REAL_IMAGES)
        if result is None:
            raise ValueError("A probe on all images needs three of each class: choose other --classes.")
        return result
    images = evaluator.baseline("centroid", 1) if kind == CENTROID else distil(evaluator, args, folder)
    return evaluator.probe(kind, [images] * evaluator.protocol.seeds, args.views)


def measure(kind: str, subset: str, evaluator: Evaluator, args: LGMConfig, folder: Path) -> dict[str, Any]:
    """One row: found in the folder, or else computed and left there."""
    name = evaluator.backbone.name.replace("/", "-")
    path = folder / f"{name}-{subset}-{kind.replace(' ', '-')}.json"
    made_with = {
        "backbone": evaluator.backbone.fingerprint,
        "train": evaluator.training_images.fingerprint,
        "test": evaluator.eval_images.fingerprint,
        "protocol": evaluator.protocol.description,
        "seeds": evaluator.protocol.seeds,
        "settings": args.own_settings(),
    }
    if path.exists() and (found := json.loads(path.read_text()))["made_with"] == made_with:
        return found
    started = time.perf_counter()
    result = score(kind, evaluator, args, folder / f"{name}-{subset}")
    row = {
        "backbone": evaluator.backbone.name,
        "kind": kind,
        "subset": subset,
        "accuracies": result.accuracies,
        "per_group": result.per_group,
        "seconds": round(time.perf_counter() - started, 1),
        "made_with": made_with,
    }
    path.write_text(json.dumps(row, indent=1) + "\n")
    return row


def shown(row: dict[str, Any], metric: str) -> str:
    """Mean ± standard deviation over the probes."""
    values = torch.tensor(row["accuracies"][metric], dtype=torch.float64)
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracy on all test images and of the worst group, through each backbone."""
    cells: dict[str, list[str]] = {}
    for row in rows:
        score = ", ".join(shown(row, metric) for metric in METRICS)
        cells.setdefault(f"{row['kind']}, {row['subset']}", []).append(score)
    backbones = dict.fromkeys(row["backbone"] for row in rows)
    head = ["trained on", *(f"{backbone}: all, worst group" for backbone in backbones)]
    return markdown_table([head, *([name, *scores] for name, scores in cells.items())])


def save_picture(
    rows: list[dict[str, Any]], evaluators: dict[tuple[str, str], Evaluator], folder: Path, path: Path
) -> None:
    """For each backbone and subset the distilled images, and below them the nearest real ones of that subset."""
    figures, classes, names = [], list[int](), list[str]()
    for (backbone, subset), evaluator in evaluators.items():
        images = DistilledSet.from_pretrained(folder / f"{backbone.replace('/', '-')}-{subset}")
        near = select_baseline(
            "neighbor",
            evaluator.backbone,
            evaluator.training_images,
            neighbors_of=images,
            extractor=evaluator.extractor,
        )
        names, classes = images.class_names, evenly_sampled(len(images.class_names))
        (row,) = (
            row for row in rows if (row["backbone"], row["subset"], row["kind"]) == (backbone, subset, DISTILLED)
        )
        title = f"distilled through {backbone}, of {subset} data"
        scores = [Score.of(row["accuracies"][metric]) for metric in METRICS]
        figures.append(ComparisonRow(title, first_of_each(images.dataset, images.labels, classes), scores))
        real = first_of_each(near.dataset, near.labels, classes)
        figures.append(ComparisonRow("the nearest real images of these", real, [None, None], is_real=True))
    save_comparison(figures, [names[label] for label in classes], METRICS, path)


def main() -> None:
    """Measure what is missing, write the rows and the picture, print the table."""
    types = (ModelArguments, DataArguments, LGMArguments, PlantingArguments)
    model_args, data_args, given, planting = parse_arguments(types, __doc__, sys.argv[1:])
    dataset = data_args.choose(model_args.model)
    prepare_torch()
    args = LGMConfig(**vars(given))
    folder = Path(args.output_dir or "outputs/spurious-photos")
    backbones = load_backbones(model_args, model_args.model)
    train, test = load_data(data_args, dataset, backbones, args)
    parts = subsets(train, planting.correlation, args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"protocol": args.probe_protocol, "extractor": feature_extractor(args)}
    evaluators = {
        (backbone.name, name): Evaluator(backbone, test, part, **shared)
        for backbone in backbones
        for name, part in parts.items()
    }
    rows = [
        measure(kind, subset, evaluator, args, folder)
        for kind in (PROBE, CENTROID, DISTILLED)
        for (_, subset), evaluator in evaluators.items()
    ]
    domains = train.group_names or []
    about = {
        "torch": torch.__version__,
        "correlation": planting.correlation,
        "train images": {name: len(part) for name, part in parts.items()},
        "test images": len(test),
        "domains": {name: domains[domain_of(row, len(domains))] for row, name in enumerate(train.class_names)},
    }
    (folder / "spurious_photos.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    save_picture(rows, evaluators, folder, folder / "spurious_photos.png")
    print(table(rows))


if __name__ == "__main__":
    run_command(main)
