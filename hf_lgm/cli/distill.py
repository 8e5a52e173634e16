"""Distil a labelled image dataset into a few images per class.

hf-lgm distill                                                   # the demo: no network, a minute
hf-lgm distill --model PATH_OR_ID --dataset PATH_OR_ID           # your backbone, your images
hf-lgm distill --model PATH_OR_ID --config food-101              # one of the recipes
accelerate launch --num_processes 4 -m hf_lgm.cli.distill …      # on four GPUs
"""

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import LGMArguments
from ..demo import DEMO_DATASET, DEMO_MODELS
from ..settings import PresetName
from ..values import check_at_least
from .arguments import DataArguments, ModelArguments, check_side
from .parsing import (
    check_output_dir,
    default_output_dir,
    parse_arguments,
    prepare_torch,
    published_command,
    run_command,
)
from .terminal import keep_log, say

if TYPE_CHECKING:
    from ..backbones.backbone import FrozenBackbone
    from ..config import LGMConfig
    from ..data.labelled_images import LabelledImages
    from ..distillation.planning import Plan
    from ..distiller import LGMDistiller
    from ..evaluation.comparison import Comparison

NEXT = "hf-lgm distill --model facebook/dinov2-base --dataset YOUR_FOLDER_OR_ID"
AFTER_THAT = (
    "--eval_models OTHER_MODEL shows what the images are worth there; --images_per_class 10 makes more of them"
)
REFERENCES = ("zero-shot text", "nearest class mean", "all real images")  # `hf-lgm evaluate` has more
OF_DEMO = ("model", "dataset", "eval_models", "output_dir", "noise_std", "flip", "crop_scale")


@dataclass
class RunArguments:
    """What this command does beside distilling.

    Args:
        preset (`str`, *optional*, defaults to `"default"`): What is chosen where no flag and no file says else:
            `default`, `paper` (the paper's protocol) or `transfer` (for other backbones first).
        eval_models (`list[str]`, *optional*): Other backbones to evaluate the images on; see --model.
        overwrite (`bool`, *optional*, defaults to `False`): Throw away an earlier run in --output_dir.
        plan (`bool`, *optional*, defaults to `False`): Say what it will cost, from a few timed passes, and stop.
        num_gpus (`int`, *optional*, defaults to 1): Devices like this one to plan for.
        also_init (`list[str]`, *optional*): Distil from these starts too, for the table; see --init.
    """

    preset: PresetName = "default"
    eval_models: list[str] = field(default_factory=list)
    overwrite: bool = False
    plan: bool = False
    num_gpus: int = 1
    also_init: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_gpus")
        for name in self.eval_models:
            check_side(name, "--eval_models")


def main() -> None:
    """Load, distil, save, compare, say what to look at."""
    types = (ModelArguments, DataArguments, LGMArguments, RunArguments)
    model_args, data_args, given, run_args = parse_arguments(types, __doc__ or "", sys.argv[1:], OF_DEMO)
    dataset = data_args.choose(model_args.model)
    models = model_args.model or DEMO_MODELS[:1]
    name = data_args.name_of(dataset)
    given.output_dir = given.output_dir or default_output_dir(name, "lgm", models, given.images_per_class)
    chosen = _choose_runs(given, run_args)
    prepare_torch()  # up to here nothing heavy is loaded, so that mistakes are answered at once

    from ..config import LGMConfig
    from ..publishing.files import COMPARISON_FILE
    from . import inputs

    args = LGMConfig(**vars(given))
    source = inputs.source_of(data_args, dataset)
    if run_args.plan:
        say(str(_plan(model_args, data_args, models, dataset, run_args, args)))
        return
    runs = {name: LGMConfig(**vars(run)) for name, run in chosen.items()}
    for run in runs.values():
        if inputs.streams(data_args, dataset):
            run.check_streaming()
        read = [dataset, *models, *run_args.eval_models]
        check_output_dir(run.output_dir, run_args.overwrite, run.resume_from_checkpoint, read=read)
    through, backbones = _load(model_args, models, run_args.eval_models, args)
    kept_per_class = max(args.eval_seeds, 3 * args.images_per_class)
    all_backbones = list(dict.fromkeys([*through, *backbones]))
    train_images, eval_images = inputs.load_data(data_args, dataset, all_backbones, args, kept_per_class)
    command = published_command("hf-lgm distill", sys.argv[1:])
    known = {"source": source, "command": command}
    distillers = _ready(runs, args, through, backbones[: len(models)], train_images, eval_images, known)
    distiller = distillers["distilled"]
    with ExitStack() as held:
        for each in distillers.values():
            held.enter_context(each.holding_output_dir())
        _distil(distillers, run_args.overwrite)
        comparison = _compare(distillers, backbones, train_images, eval_images, args)
        if distiller.accelerator.is_main_process:
            comparison.save_figure(Path(args.output_dir) / COMPARISON_FILE, comparison.backbones[:2])
            _report(comparison, args, f"{len(eval_images):,} images", NEXT if dataset == DEMO_DATASET else AFTER_THAT)
        if args.push_to_hub:  # every process takes part
            address = distiller.push_to_hub(args.hub_dataset_id)
            if distiller.accelerator.is_main_process:
                say(f"Published: {address}")
    distiller.accelerator.end_training()


def _plan(
    model_args: ModelArguments,
    data_args: DataArguments,
    models: Sequence[str],
    dataset: str,
    run_args: RunArguments,
    args: "LGMConfig",
) -> "Plan":
    """What the run and its table will cost; no image is downloaded."""
    from ..distillation.planning import plan
    from ..evaluation.planning import evaluation_seconds
    from . import inputs

    through, scored = (
        [each.to(args.device) for each in of] for of in _load(model_args, models, run_args.eval_models, args)
    )
    size = inputs.measure(data_args, dataset, through, args)
    found = plan(through, args, size, run_args.num_gpus)
    encoded = 0 if args.bf16 else len(through)
    return dataclasses.replace(found, evaluation_seconds=evaluation_seconds(scored, args, size, encoded))


def _load(
    model_args: ModelArguments, models: Sequence[str], eval_models: Sequence[str], args: "LGMConfig"
) -> "tuple[list[FrozenBackbone], list[FrozenBackbone]]":
    """The backbones to distil through, and all that the images are scored by, these first.

    Scored in float32, as evaluate.py does it; loaded again where another precision distils, which casting is not.
    """
    import torch

    from . import inputs

    backbones = inputs.load_backbones(model_args, [*models, *eval_models])
    if args.bf16:
        through = inputs.load_backbones(model_args, models, torch.bfloat16)
        return [backbone.with_layers(args.layers) for backbone in through], backbones
    through = [backbone.with_layers(args.layers) for backbone in backbones[: len(models)]]
    return through, [*through, *backbones[len(models) :]]  # the same ones: nothing is encoded twice


def _choose_runs(given: LGMArguments, run_args: RunArguments) -> dict[str, LGMArguments]:
    """What is to be distilled, by name. It is published at the very end, together with the table.

    Raises:
        ValueError: If one would be written over another, or over what it begins with.
    """
    if run_args.also_init and given.resume_from_checkpoint not in (None, "auto"):
        raise ValueError("--also_init makes several runs, which go on with --resume_from_checkpoint auto only.")
    own = dataclasses.replace(given, push_to_hub=False)
    runs = {"distilled": own}
    for init in run_args.also_init:
        folder = f"{own.output_dir}-from-{Path(init).name}"
        if other := next((run.init for run in runs.values() if run.output_dir == folder), None):
            raise ValueError(
                f"--also_init: what begins with '{other}' and what begins with '{init}' would both be written to "
                f"{folder}: distil one of them by another command, with --init and --output_dir."
            )
        runs[f"distilled from {init}"] = dataclasses.replace(own, init=init, output_dir=folder)
    written = {Path(run.output_dir).expanduser().resolve() for run in runs.values()}
    for run in runs.values():
        if run.begins_with_set and Path(run.init).expanduser().resolve() in written:
            raise ValueError(f"--init: '{run.init}' is also where new images are to go: give another --output_dir.")
    return runs


def _ready(
    runs: "dict[str, LGMConfig]",
    args: "LGMConfig",
    through: "list[FrozenBackbone]",
    scored: "list[FrozenBackbone]",
    train_images: "LabelledImages",
    eval_images: "LabelledImages",
    known: dict[str, Any],
) -> "dict[str, LGMDistiller]":
    """Each run, ready to begin: what would be in the way of any is found here.

    The backbones that are distilled through and those that the images are scored by differ in precision at most.
    """
    from ..distiller import LGMDistiller

    distillers = {}
    for name, run in runs.items():
        provenance = {**known, "training_set": name}
        distillers[name] = LGMDistiller(through, run, train_images, eval_images, provenance=provenance)
    if args.push_to_hub and args.hub_dataset_id:
        distillers["distilled"].open_repository(args.hub_dataset_id)
    extractor = distillers["distilled"].extractor
    # Online, real images are seen as views only, but for those that stay, which are chosen by their features.
    matched = scored if args.real_features == "online" and not args.real_images_per_class else through
    for distilled_through, scored_by in zip(matched, scored, strict=True):  # what can't be read is found here
        extractor.extract(distilled_through, train_images, with_layers=args.real_features == "cached")
        extractor.extract(scored_by, eval_images)
    for distiller in distillers.values():
        distiller.check_checkpoint()
    return distillers


def _distil(distillers: "dict[str, LGMDistiller]", overwrite: bool) -> None:
    """All runs; nothing is removed before all that can be checked has been."""
    for distiller in distillers.values():
        if overwrite:
            distiller.remove_earlier_run()
        keep_log(distiller.args.output_dir)
        distiller.train()
        distiller.save_model()


def _compare(
    distillers: "dict[str, LGMDistiller]",
    backbones: "list[FrozenBackbone]",
    train_images: "LabelledImages",
    eval_images: "LabelledImages",
    args: "LGMConfig",
) -> "Comparison":
    """The table of all runs, which each of them keeps."""
    from ..evaluation.comparison import compare

    comparison = compare(
        {name: distiller.distilled_set() for name, distiller in distillers.items()},
        backbones,
        train_images,
        eval_images,
        references=REFERENCES,
        protocol=args.probe_protocol,
        extractor=distillers["distilled"].extractor,
    )
    for distiller in distillers.values():
        distiller.save_model(results=[row for result in comparison.results for row in result.rows()])
    return comparison


def _report(comparison: "Comparison", args: "LGMConfig", images: str, following: str) -> None:
    """Print the table, what to look at and what to type next."""
    for metric in (name for name in comparison.metrics if name != "top-5"):
        say(f"\n{metric.capitalize()} on {images}, in percent, over {args.eval_seeds} probes:\n")
        say(f"{comparison.table(metric)}\n")
    for warning in comparison.warnings():
        say(f"warning: {warning}")
    folder = args.output_dir
    say(f"Look at: {folder}/comparison.png, {folder}/preview.png, {folder}/timelapse.gif")
    say(f'Use:     datasets.load_dataset("{folder}")')
    say(f"Share:   hf-lgm publish --folder {folder} --repo_id USER/{Path(folder).name}")
    say(f"Next:    {following}")


if __name__ == "__main__":
    run_command(main)
