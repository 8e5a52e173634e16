"""Sets distilled through each of several backbones and through some together, on all of them, beside real images.

python benchmarks/transfer.py --model MODEL_A MODEL_B MODEL_C@96 --dataset PATH_OR_ID --output_dir out \
    --recipes lgm ridge --through 1 2 3 1+2 --run_seeds 0 1 2
python benchmarks/transfer.py --output_dir out --tables                      # what is there so far
python benchmarks/transfer.py --output_dir out --picture picture.png

Every row is a file, written as soon as it is known: what is there is not computed again, and a set that is there is
only evaluated on the backbones that it lacks. Several of these commands may share an output folder, one after the
other or at once, as long as they ask for different rows. References and real images come first.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

from earlier import FEATURES_ALONE
from transfer_tables import Report, file_of

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, LGMConfig, LGMDistiller
from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.arguments import DataArguments, LoadingArguments, ModelArguments
from hf_lgm.cli.inputs import feature_extractor, load_backbones, load_data
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.evaluation.evaluator import Evaluator
from hf_lgm.evaluation.transfer import mutual_knn_alignment
from hf_lgm.publishing.files import read_json, write_json
from hf_lgm.settings import PRESETS, ProbeProtocol, ProtocolName, ViewSettings
from hf_lgm.values import converted, types_of

# Settings of `LGMConfig`; what is not named is at its default. Views are of each image: with more images per class a
# step costs as many times more.
RECIPES: dict[str, dict[str, Any]] = {
    **PRESETS,
    "lgm": FEATURES_ALONE,
    "ridge": {**FEATURES_ALONE, "objective": "ridge"},
}
BY_CLASS = ("centroid", "kmeans", "herding")  # one and the same with one image per class
GIVEN = ("seed", "images_per_class", "output_dir", "save_strategy", "flip")  # not by --settings


@dataclass
class TransferArguments:
    """What is measured, and what is shown of it.

    Args:
        recipes (`list[str]`, *optional*): Of `RECIPES` in this file; lgm and ridge where not given. With --tables and
            --picture: rows of these names, all where not given.
        settings (`list[str]`, *optional*): key=value, over those of each recipe; of a list the values with commas.
        name (`str`, *optional*): What is appended to a recipe's name; needed by --settings.
        through (`list[str]`, *optional*): What sets are made through: numbers of --model or parts of their names, some
            together as 1+2; each alone where not given. No set where none is said.
        images_per_class (`list[int]`, *optional*): 1 where not given; with --tables all.
        run_seeds (`list[int]`, *optional*): Of the runs of a recipe.
        baselines (`list[str]`, *optional*): Kinds of real images, chosen through each backbone, or none.
        draws (`int`, *optional*, defaults to 3): Of random images.
        references (`list[str]`, *optional*): What all real images give, or none.
        protocol (`str`, *optional*, defaults to `"fast"`): How probes are trained.
        eval_seeds (`int`, *optional*, defaults to 3): Probes of each set and backbone.
        eval_learning_rate (`float`, *optional*): Another learning rate of the probes than the protocol's.
        flip (`bool`, *optional*, defaults to `True`): Mirror half of the views, in runs and probes.
        tables (`bool`, *optional*, defaults to `False`): Only print what is in the output folder.
        picture (`str`, *optional*): Only draw what is in the output folder into this file.
        labels (`list[str]`, *optional*): PART=LABEL: what tables and picture call the backbone with PART in its name.
    """

    recipes: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    name: str | None = None
    through: list[str] = field(default_factory=list)
    images_per_class: list[int] = field(default_factory=list)
    run_seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    baselines: list[str] = field(default_factory=lambda: ["random", "centroid", "kmeans", "herding", "matched"])
    draws: int = 3
    references: list[str] = field(
        default_factory=lambda: ["nearest class mean", "discriminant analysis", "all real images"]
    )
    protocol: ProtocolName = "fast"
    eval_seeds: int = 3
    eval_learning_rate: float | None = None
    flip: bool = True
    tables: bool = False
    picture: str | None = None
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.tables or self.picture:
            return
        if unknown := sorted(set(self.recipes) - set(RECIPES)):
            raise ValueError(f"--recipes takes {', '.join(RECIPES)}; found {', '.join(unknown)}.")
        if bool(self.settings) != bool(self.name):
            raise ValueError("--settings and --name belong together: a variant needs a name of its own.")
        self.changed()  # refuses settings that there are not

    def changed(self) -> dict[str, Any]:
        """The settings over those of each recipe."""
        known, found = types_of(LGMArguments), {}
        for setting in self.settings:
            key, equals, value = setting.partition("=")
            if not equals or key not in known or key in GIVEN:
                raise ValueError(f"--settings takes key=value of LGMConfig, without {', '.join(GIVEN)}: '{setting}'.")
            found[key] = converted(value.split(",") if "," in value else value, known[key], key)
        return found


@dataclass(frozen=True)
class Row:
    """One row of the tables, of one seed.

    Args:
        kind (`str`): reference, baseline or run.
        name (`str`): Of the reference, the kind of real images or the recipe.
        through (`list[str]`): Names of backbones.
        images_per_class (`int`): 0 for references.
        seed (`int`): Of the run or the draw.
        settings (`dict`): Of the run.
    """

    kind: str
    name: str
    through: list[str] = field(default_factory=list)
    images_per_class: int = 0
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Its name among the files."""
        return file_of(asdict(self))


def cheap_rows(own: TransferArguments, names: Sequence[str]) -> Iterator[Row]:
    """References and real images. Random ones are the same through all backbones, so they are drawn once."""
    yield from (Row("reference", name) for name in own.references if name != "none")
    for per_class, kind in product(own.images_per_class or [1], own.baselines):
        if kind == "none" or (per_class == 1 and kind in BY_CLASS[1:] and BY_CLASS[0] in own.baselines):
            continue
        if kind == "random":
            yield from (Row("baseline", kind, [names[0]], per_class, seed) for seed in range(own.draws))
        else:
            yield from (Row("baseline", kind, [name], per_class) for name in names)


def runs(own: TransferArguments, names: Sequence[str]) -> Iterator[Row]:
    """The distilled sets, in the order of the flags."""
    asked = [] if own.through == ["none"] else own.through or [str(number + 1) for number in range(len(names))]
    through = [[named(part, names) for part in each.split("+")] for each in asked]
    per_class, recipes = own.images_per_class or [1], own.recipes or ["lgm", "ridge"]
    for recipe, models, count, seed in product(recipes, through, per_class, own.run_seeds):
        name = f"{recipe}-{own.name}" if own.name else recipe
        yield Row("run", name, models, count, seed, {**RECIPES[recipe], **own.changed()})


def named(asked: str, names: Sequence[str]) -> str:
    """The backbone that is meant by its number, its name or a part of it."""
    asked = asked.strip()
    if asked.isdecimal() and 0 < int(asked) <= len(names):
        return names[int(asked) - 1]
    found = [asked] if asked in names else [name for name in names if asked and asked in name]
    if len(found) != 1:
        raise ValueError(f"--through takes numbers of --model or parts of {', '.join(names)}; found '{asked}'.")
    return found[0]


@dataclass
class Bench:
    """All that rows are measured with.

    Args:
        evaluators (`dict[str, Evaluator]`): By the backbones' names.
        train (`LabelledImages`): What is distilled.
        loading (`LoadingArguments`): How images are read.
        views (`ViewSettings`): Of all probes, however a set was made.
        folder (`Path`): Of the dataset.
    """

    evaluators: dict[str, Evaluator]
    train: LabelledImages
    loading: LoadingArguments
    views: ViewSettings
    folder: Path

    def measure(self, row: Row) -> None:
        """What is missing of one row: its set, and what that scores on each backbone."""
        path = self.folder / "rows" / f"{row.file}.json"
        found = read_json(path, dict)
        if found and found["settings"] != row.settings:
            raise ValueError(f"{path} has other settings, {found['settings']}: give another --name.")
        missing = [name for name in self.evaluators if name not in found.get("top1", {})]
        if not missing:
            return
        images, folder = None, self.folder / "sets" / row.file
        if row.kind != "reference" and found:
            images = DistilledSet.from_pretrained(folder)
        elif row.kind != "reference":
            images, seconds = self.make(row, folder)
            found = {**asdict(row), "seconds": seconds, "top1": {}}
            write_json(path, found)  # now, so that it is not made twice
        found = found or {**asdict(row), "top1": {}}
        for name in missing:
            scores = self.scores(row, self.evaluators[name], images)
            if scores:
                found["top1"][name] = scores
            write_json(path, found)
        shown = ", ".join(f"{name} {sum(of) / len(of):.1f}" for name, of in found["top1"].items())
        print(f"{row.file} ({found.get('seconds', 0):.0f} s): {shown}", flush=True)

    def scores(self, row: Row, evaluator: Evaluator, images: DistilledSet | None) -> list[float]:
        """Top-1 of each probe."""
        if images is None:
            result = evaluator.reference(row.name)
            return [] if result is None else result.accuracies["top-1"]
        return evaluator.probe(row.name, [images] * evaluator.protocol.seeds, self.views).accuracies["top-1"]

    def make(self, row: Row, folder: Path) -> tuple[DistilledSet, float]:
        """A new set, saved, and the seconds that it took."""
        started = time.perf_counter()
        if row.kind == "baseline":
            images = self.evaluators[row.through[0]].baseline(row.name, row.images_per_class, seed=row.seed)
        else:
            images = self.distil(row, folder)
        seconds = round(time.perf_counter() - started, 1)
        images.save_pretrained(folder)
        return images, seconds

    def distil(self, row: Row, folder: Path) -> DistilledSet:
        """A run."""
        args = LGMConfig(
            output_dir=str(folder),
            seed=row.seed,
            images_per_class=row.images_per_class,
            flip=self.views.flip,
            use_cpu=self.loading.use_cpu,
            per_device_eval_batch_size=self.loading.per_device_eval_batch_size,
            dataloader_num_workers=self.loading.dataloader_num_workers,
            **{"save_strategy": "no", "disable_tqdm": not sys.stderr.isatty(), **row.settings},
        )
        distiller = LGMDistiller([self.evaluators[name].backbone for name in row.through], args, self.train)
        distiller.train()
        return distiller.distilled_set()

    def align(self) -> None:
        """How alike each two backbones see the images that are evaluated on, beside what was known."""
        path = self.folder / "alignment.json"
        found = read_json(path, dict) or {"families": {}, "alignment": {}}
        for a, b in combinations_with_replacement(self.evaluators, 2):
            if b not in found["alignment"].get(a, {}):
                z_a, z_b = (self.evaluators[name].scored.z for name in (a, b))
                value = 1.0 if a == b else round(mutual_knn_alignment(z_a, z_b), 4)
                found["alignment"].setdefault(a, {})[b] = value
                found["alignment"].setdefault(b, {})[a] = value
        found["families"] |= {name: type(each.backbone.model).__name__ for name, each in self.evaluators.items()}
        write_json(path, found)

    def check(self, eval_images: LabelledImages, protocol: ProbeProtocol) -> None:
        """Refuse rows that were measured on other data or otherwise.

        Raises:
            ValueError: If there are such.
        """
        path = self.folder / "conditions.json"
        here = {
            "train": self.train.fingerprint,
            "train_images": len(self.train),
            "eval": eval_images.fingerprint,
            "eval_images": len(eval_images),
            "classes": self.train.class_names,
            "protocol": asdict(protocol),
            "flip": self.views.flip,
        }
        found = read_json(path, dict) or here
        if differing := [name for name, value in here.items() if found.get(name) != value]:
            raise ValueError(f"{self.folder} was measured with other {', '.join(differing)}: another --output_dir.")
        write_json(path, here)


def load(
    model_args: ModelArguments, data_args: DataArguments, loading: LoadingArguments, own: TransferArguments
) -> Bench:
    """Backbones, data and a folder for the rows."""
    dataset = data_args.choose(model_args.model)
    backbones: list[FrozenBackbone] = load_backbones(model_args, model_args.model)
    train, eval_images = load_data(data_args, dataset, backbones, loading)
    protocol = ProbeProtocol.named(own.protocol, own.eval_learning_rate, own.eval_seeds)
    extractor = feature_extractor(loading)
    evaluators = {each.name: Evaluator(each, eval_images, train, protocol, extractor) for each in backbones}
    folder = Path(loading.output_dir) / data_args.name_of(dataset)
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    bench = Bench(evaluators, train, loading, ViewSettings(flip=own.flip), folder)
    bench.check(eval_images, protocol)
    return bench


def main() -> None:
    """Measure what is missing, or show what is there."""
    types = (ModelArguments, DataArguments, LoadingArguments, TransferArguments)
    model_args, data_args, loading, own = parse_arguments(types, __doc__, sys.argv[1:])
    if not loading.output_dir:
        raise ValueError("--output_dir is where the rows are kept: give one.")
    if not (own.tables or own.picture):
        prepare_torch()
        bench = load(model_args, data_args, loading, own)
        names = list(bench.evaluators)
        wanted = [*cheap_rows(own, names), *runs(own, names)]  # before anything is measured: it may refuse
        bench.align()
        for row in wanted:
            bench.measure(row)
    folder = Path(loading.output_dir)
    only = data_args.name_of(data_args.dataset) if data_args.dataset else None
    for path in sorted(folder.glob(f"{only or '*'}/rows")):
        asked = own.recipes if own.tables or own.picture else []
        report = Report.read(path.parent, asked, own.images_per_class, own.labels)
        if own.picture:
            print(report.picture(Path(own.picture)))
        else:
            print(report.text())


if __name__ == "__main__":
    run_command(main)
