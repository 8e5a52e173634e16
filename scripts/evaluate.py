"""One table: linear probes trained on small sets of images, through several backbones, beside what real images give.

python scripts/evaluate.py --sets outputs/demo --model demo-vit demo-convnext           # the demo's set
python scripts/evaluate.py --sets SET_A SET_B --model MODEL_A MODEL_B --dataset PATH_OR_ID
python scripts/evaluate.py --sets SET --model MODEL --dataset PATH_OR_ID --protocol paper --baselines random centroid
"""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from accelerate import Accelerator

from hf_lgm import DistilledSet
from hf_lgm.arguments import DataArguments, LoadingArguments, ModelArguments
from hf_lgm.augmentation import ViewSettings
from hf_lgm.baselines import BaselineKind
from hf_lgm.cli import parse_arguments, run_script
from hf_lgm.comparison import Comparison, compare
from hf_lgm.demo import DEMO_MODELS
from hf_lgm.evaluation import REFERENCES
from hf_lgm.plots import save_transfer
from hf_lgm.probe import ProbeProtocol, ProtocolName
from hf_lgm.set_files import DATA_FILE


@dataclass
class EvaluateArguments:
    """What is compared, and how."""

    sets: list[str] = field(default_factory=list, metadata={"help": "Distilled or baseline sets: folders or Hub ids."})
    baselines: list[str] = field(
        default_factory=lambda: ["random", "centroid"],
        metadata={
            "help": f"Real images to show beside, as many per class, chosen through the first --model: "
            f"{', '.join(get_args(BaselineKind))}, or none."
        },
    )
    references: list[str] = field(
        default_factory=lambda: list(REFERENCES),
        metadata={"help": "What all real images give, by the rows' names, or none."},
    )
    protocol: ProtocolName = field(
        default="fast", metadata={"help": "'fast': cached views; 'paper': fresh views and the paper's learning rate."}
    )
    eval_seeds: int = field(default=5, metadata={"help": "Probes that an accuracy is the mean of."})
    eval_learning_rate: float | None = field(
        default=None, metadata={"help": "Another learning rate of the probes than the protocol's."}
    )
    flip: bool | None = field(default=None, metadata={"help": "Mirror half of the views; as the first set was made."})
    crop_scale: list[float] | None = field(
        default=None, metadata={"help": "Smallest and largest area of a view; as the first set was made."}
    )

    def load_sets(self) -> dict[str, DistilledSet]:
        """The sets by the last part of their name."""
        if not self.sets:
            raise ValueError("--sets names what to evaluate: folders of distill.py or baselines.py, or Hub ids.")
        names = [Path(name).name for name in self.sets]
        if len(set(names)) < len(names):
            names = self.sets
        return {name: DistilledSet.from_pretrained(of) for name, of in zip(names, self.sets, strict=True)}

    def views(self, first: DistilledSet) -> ViewSettings:
        """The views that all probes are trained on."""
        flip = first.views.flip if self.flip is None else self.flip
        crop_scale = self.crop_scale or first.views.crop_scale
        return dataclasses.replace(first.views, flip=flip, crop_scale=tuple(crop_scale))


def write(comparison: Comparison, folder: Path, heading: str) -> None:
    """The table as Markdown and JSON, per class and group, and the pictures; over those of an earlier table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("transfer.png", "transfer.json"):
        (folder / name).unlink(missing_ok=True)
    if (folder / "table.md").exists():
        print(f"Replacing the table in {folder}: --output_dir keeps it")
    sections = [f"# {heading}\n"]
    sections += [f"## {metric}\n\n{comparison.table(metric)}\n" for metric in comparison.metrics]
    if comparison.transfer:
        sections.append(f"## transfer\n\n{comparison.transfer.table()}\n")
        save_transfer(comparison.transfer, folder / "transfer.png")
        (folder / "transfer.json").write_text(json.dumps(comparison.transfer.to_dict(), indent=2) + "\n")
    (folder / "table.md").write_text("\n".join(sections), encoding="utf-8")
    rows = [row for result in comparison.results for row in result.rows()]
    (folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    details = [result.to_dict() for result in comparison.results]
    (folder / "details.json").write_text(json.dumps(details, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    comparison.save_picture(folder / "comparison.png", comparison.backbones[:2])


def main() -> None:
    """Load, compare, write, say what to look at."""
    types = (ModelArguments, DataArguments, LoadingArguments, EvaluateArguments)
    model_args, data_args, args, evaluate_args = parse_arguments(types, __doc__, sys.argv[1:])
    sets = evaluate_args.load_sets()
    views = evaluate_args.views(next(iter(sets.values())))
    protocol = ProbeProtocol.named(evaluate_args.protocol, evaluate_args.eval_learning_rate, evaluate_args.eval_seeds)
    dataset = data_args.choose(model_args.model)
    folder = Path(args.output_dir or f"outputs/{data_args.source(dataset)['name']}-evaluation")
    if (folder / DATA_FILE).exists():
        raise ValueError(f"{folder} is a set, whose results a table would replace: give another --output_dir.")
    backbones, failures = model_args.load_each(model_args.model or DEMO_MODELS)
    accelerator = Accelerator(cpu=args.use_cpu)
    most = max(images.images_per_class for images in sets.values())
    train, real = data_args.load(dataset, backbones, args, max(evaluate_args.eval_seeds, 3 * most))
    comparison = compare(
        sets,
        backbones,
        train,
        real,
        baselines=[kind for kind in evaluate_args.baselines if kind != "none"],
        references=[name for name in evaluate_args.references if name != "none"],
        views=views,
        protocol=protocol,
        accelerator=accelerator,
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
    )
    comparison.failures |= failures
    if accelerator.is_main_process:
        probes = f"{evaluate_args.eval_seeds} probes each ({protocol.description})"
        heading = f"{len(real):,} images of {data_args.source(dataset)['name']}, in percent, {probes}"
        write(comparison, folder, heading)
        for metric in (name for name in comparison.metrics if name != "top-5"):
            print(f"\n{metric.capitalize()} on {heading}:\n\n{comparison.table(metric)}")
        if comparison.transfer:
            print(f"\nTop-1 (share of the probe on all real images; alignment):\n\n{comparison.transfer.table()}")
            print(f"\n{comparison.transfer.claim}")
        print(*(f"\nwarning: {warning}" for warning in comparison.warnings()), sep="")
        print(f"\nLook at: {folder}/comparison.png{f', {folder}/transfer.png' if comparison.transfer else ''}")
        print(f"Quote:   {folder}/table.md, {folder}/results.json")
    if comparison.failures:
        sys.exit(f"\nerror: {len(comparison.failures)} of the backbones failed: {', '.join(comparison.failures)}")


if __name__ == "__main__":
    run_script(main)
