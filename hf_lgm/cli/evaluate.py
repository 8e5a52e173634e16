"""One table: linear probes trained on small sets of images, through several backbones, beside what real images give.

hf-lgm evaluate --sets outputs/demo --model demo-vit demo-convnext           # the demo's set
hf-lgm evaluate --sets SET_A SET_B --model MODEL_A MODEL_B --dataset PATH_OR_ID
hf-lgm evaluate --sets SET --model MODEL --dataset PATH_OR_ID --protocol paper --baselines random centroid
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo import DEMO_MODELS
from ..publishing.files import COMPARISON_FILE, DETAILS_FILE, RESULTS_FILE, TABLE_FILE, TRANSFER_FIGURE, TRANSFER_FILE
from ..settings import ProbeProtocol, ProtocolName, ViewSettings
from ..values import check_at_least, check_positive
from .arguments import DataArguments, LoadingArguments, ModelArguments
from .parsing import parse_arguments, prepare_torch, run_command, with_name_of_sets
from .terminal import say

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison


@dataclass
class EvaluateArguments:
    """What is compared, and how.

    Args:
        sets (`list[str]`): Distilled or baseline sets: folders or Hub ids.
        baselines (`list[str]`, *optional*, defaults to `["random", "centroid"]`): Real images to show beside, as many
            per class, chosen through the first --model: random, centroid, neighbor, kmeans, herding, matched, or none.
        references (`list[str]`, *optional*): What all real images give, by the rows' names, or none; all where not
            given.
        protocol (`str`, *optional*, defaults to `"fast"`): How probes are trained. fast: cached views; paper: fresh
            views and the paper's learning rate.
        eval_seeds (`int`, *optional*, defaults to 5): Probes that an accuracy is the mean of.
        eval_learning_rate (`float`, *optional*): Another learning rate of the probes than the protocol's.
        flip (`bool`, *optional*): Mirror half of the views; as the first set was made where not given.
        crop_scale (`list[float]`, *optional*): Smallest and largest area of a view; as the first set was made where
            not given.
        bounded_crops (`bool`, *optional*): Whether views are kept within the image; as the first set was made where
            not given.
    """

    sets: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=lambda: ["random", "centroid"])
    references: list[str] | None = None
    protocol: ProtocolName = "fast"
    eval_seeds: int = 5
    eval_learning_rate: float | None = None
    flip: bool | None = None
    crop_scale: list[float] | None = None
    bounded_crops: bool | None = None

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("--sets names what to evaluate: folders of `distill` or `baselines`, or Hub ids.")
        check_at_least(self, 1, "eval_seeds")
        check_positive(self, "eval_learning_rate")
        if self.crop_scale is not None:
            self.views(ViewSettings())  # refuses crops

    @property
    def probe_protocol(self) -> ProbeProtocol:
        """How probes are trained."""
        return ProbeProtocol.named(self.protocol, self.eval_learning_rate, self.eval_seeds)

    def views(self, made_with: ViewSettings) -> ViewSettings:
        """The views that all probes are trained on: those that the first set was made with, unless told otherwise."""
        flip = made_with.flip if self.flip is None else self.flip
        areas: Any = self.crop_scale or made_with.crop_scale
        bounded = made_with.bounded_crops if self.bounded_crops is None else self.bounded_crops
        return dataclasses.replace(made_with, flip=flip, crop_scale=areas, bounded_crops=bounded)


def main() -> None:
    """Load, compare, write, say what to look at."""
    types = (ModelArguments, DataArguments, LoadingArguments, EvaluateArguments)
    model_args, data_args, args, evaluate_args = parse_arguments(types, __doc__ or "", with_name_of_sets(sys.argv[1:]))
    dataset = data_args.choose(model_args.model)
    prepare_torch()  # up to here nothing heavy is loaded, so that mistakes are answered at once

    from ..distillation.output_folder import TABLE_FILES, check_is_ours
    from ..distillation.run_lock import RunLock
    from ..evaluation.comparison import compare
    from ..evaluation.references import REFERENCES
    from ..publishing.files import DATA_FILE
    from . import inputs

    sets = inputs.load_sets(evaluate_args.sets)
    views, protocol = evaluate_args.views(next(iter(sets.values())).views), evaluate_args.probe_protocol
    name = data_args.name_of(dataset)
    folder = Path(args.output_dir or f"outputs/{name}-evaluation")
    if (folder / DATA_FILE).exists():
        raise ValueError(f"{folder} is a set, whose results a table would replace: give another --output_dir.")
    check_is_ours(folder, TABLE_FILES)
    RunLock(folder).check_free()
    backbones, failures = inputs.load_each(model_args, model_args.model or DEMO_MODELS)
    extractor = inputs.feature_extractor(args)
    most = max(images.images_per_class for images in sets.values())
    kept_per_class = max(evaluate_args.eval_seeds, 3 * most)
    train_images, eval_images = inputs.load_data(data_args, dataset, backbones, args, kept_per_class)
    references = list(REFERENCES) if evaluate_args.references is None else evaluate_args.references
    comparison = compare(
        sets,
        backbones,
        train_images,
        eval_images,
        baselines=[kind for kind in evaluate_args.baselines if kind != "none"],
        references=[title for title in references if title != "none"],
        views=views,
        protocol=protocol,
        extractor=extractor,
    )
    comparison.failures |= failures
    if extractor.accelerator.is_main_process:
        probes = f"{evaluate_args.eval_seeds} probes each ({protocol.description})"
        heading = f"{len(eval_images):,} images of {name}, in percent, {probes}"
        with RunLock(folder):
            _write(comparison, folder, heading)
        _report(comparison, folder, heading)
    if comparison.failures:
        sys.exit(f"\nerror: {len(comparison.failures)} of the backbones failed: {', '.join(comparison.failures)}")


def _write(comparison: "Comparison", folder: Path, heading: str) -> None:
    """The table as Markdown and JSON, per class and group, and the figures; over those of an earlier table."""
    from ..evaluation.transfer_plot import save_transfer
    from ..publishing.files import write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DETAILS_FILE, [result.to_dict() for result in comparison.results])  # says that all is ours
    for name in (TRANSFER_FIGURE, TRANSFER_FILE):
        (folder / name).unlink(missing_ok=True)
    if (folder / TABLE_FILE).exists():
        say(f"Replacing the table in {folder}: --output_dir keeps it")
    sections = [f"# {heading}\n"]
    sections += [f"## {metric}\n\n{comparison.table(metric)}\n" for metric in comparison.metrics]
    if comparison.transfer:
        sections.append(f"## transfer\n\n{comparison.transfer.table()}\n")
        if find_spec("matplotlib"):
            save_transfer(comparison.transfer, folder / TRANSFER_FIGURE)
        else:
            say("No plot of transfer: pip install 'hf_lgm[plots]'")
        write_json(folder / TRANSFER_FILE, comparison.transfer.to_dict())
    (folder / TABLE_FILE).write_text("\n".join(sections), encoding="utf-8")
    write_json(folder / RESULTS_FILE, [row for result in comparison.results for row in result.rows()])
    comparison.save_figure(folder / COMPARISON_FILE, comparison.backbones[:2])


def _report(comparison: "Comparison", folder: Path, heading: str) -> None:
    """Print the tables, warnings, and what to look at."""
    for metric in (name for name in comparison.metrics if name != "top-5"):
        say(f"\n{metric.capitalize()} on {heading}:\n\n{comparison.table(metric)}")
    if comparison.transfer:
        say(f"\nTop-1 (share of the probe on all real images; alignment):\n\n{comparison.transfer.table()}")
        say(f"\n{comparison.transfer.claim}")
    for warning in comparison.warnings():
        say(f"\nwarning: {warning}")
    figures = [folder / name for name in (COMPARISON_FILE, TRANSFER_FIGURE) if (folder / name).exists()]
    say(f"\nLook at: {', '.join(map(str, figures))}")
    say(f"Quote:   {folder}/{TABLE_FILE}, {folder}/{RESULTS_FILE}")


if __name__ == "__main__":
    run_command(main)
