"""Distil a labelled image dataset into a few images per class.

accelerate launch scripts/distill.py                                      # the demo: no network, minutes
accelerate launch scripts/distill.py --model facebook/dinov2-base         # ImageNet-100 through DINOv2
accelerate launch scripts/distill.py --model PATH_OR_ID --dataset PATH_OR_ID --images_per_class 1
"""

import dataclasses
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.arguments import DataArguments, ModelArguments, published_command
from hf_lgm.cli import default_output_dir, parse_arguments, prepare_output_dir, run_script
from hf_lgm.comparison import Comparison, compare
from hf_lgm.demo import DEMO_DATASET, DEMO_MODELS
from hf_lgm.features import extract_features
from hf_lgm.planning import plan

NEXT = "accelerate launch scripts/distill.py --model facebook/dinov2-base --dataset YOUR_FOLDER_OR_ID"
AFTER_THAT = (
    "--eval_models OTHER_MODEL shows what the images are worth there; --images_per_class 10 makes more of them"
)
REFERENCES = ("zero-shot text", "nearest class mean", "all real images")  # scripts/evaluate.py has more
DEMO_CONFIG = Path(__file__).parent.parent / "recipes" / "demo.yaml"


@dataclass
class RunArguments:
    """What this script does beside distilling."""

    eval_models: list[str] = field(
        default_factory=list, metadata={"help": "Other backbones to evaluate the images on; see --model."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier run in --output_dir."})
    plan: bool = field(default=False, metadata={"help": "Say what it will cost, from a few timed passes, and stop."})
    num_gpus: int = field(default=1, metadata={"help": "Devices like this one to plan for."})
    also_init: list[str] = field(
        default_factory=list, metadata={"help": "Distil from these starts too, for the table; see --init."}
    )


def report(comparison: Comparison, args: LGMConfig, images: str, following: str) -> None:
    """Print the table, what to look at and what to type next."""
    for metric in (name for name in comparison.metrics if name != "top-5"):
        print(f"\n{metric.capitalize()} on {images}, in percent, over {args.eval_seeds} probes:\n")
        print(f"{comparison.table(metric)}\n")
    print(*(f"warning: {warning}\n" for warning in comparison.warnings()), sep="", end="")
    folder = args.output_dir
    print(f"Look at: {folder}/comparison.png, {folder}/preview.png, {folder}/timelapse.gif")
    print(f'Use:     datasets.load_dataset("{folder}")')
    print(f"Share:   python scripts/publish.py --folder {folder} --repo_id USER/{Path(folder).name}")
    print(f"Next:    {following}")


def publish(distiller: LGMDistiller, args: LGMConfig) -> None:
    """Push, where that was asked for; every process takes part."""
    if args.push_to_hub:
        address = distiller.push_to_hub(args.hub_dataset_id)
        if distiller.accelerator.is_main_process:
            print(f"Published: {address}")


def choose_runs(args: LGMConfig, run_args: RunArguments) -> dict[str, LGMConfig]:
    """What is to be distilled, by name. It is published at the very end, together with the table."""
    if run_args.also_init and args.resume_from_checkpoint not in (None, "auto"):
        raise ValueError("--also_init makes several runs, which go on with --resume_from_checkpoint auto only.")
    own = dataclasses.replace(args, push_to_hub=False)
    return {"distilled": own} | {
        f"distilled from {init}": dataclasses.replace(
            own, init=init, output_dir=f"{args.output_dir}-from-{Path(init).name}"
        )
        for init in run_args.also_init
    }


def check_inits_are_kept(runs: dict[str, LGMConfig]) -> None:
    """Raise where a run would begin with what another, or itself, writes over."""
    written = {Path(each.output_dir).resolve() for each in runs.values()}
    for run in runs.values():
        if run.begins_with_set and Path(run.init).expanduser().resolve() in written:
            raise ValueError(f"--init: '{run.init}' is also where new images are to go: give another --output_dir.")


def main() -> None:
    """Load, distil, save, compare, say what to look at."""
    types = (ModelArguments, DataArguments, LGMConfig, RunArguments)
    model_args, data_args, args, run_args = parse_arguments(types, __doc__, sys.argv[1:], DEMO_CONFIG)
    dataset = data_args.choose(model_args.model)
    source = data_args.source(dataset)
    models = model_args.model or DEMO_MODELS[:1]
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    if run_args.plan:
        backbones = [backbone.to(args.device) for backbone in model_args.load(models, dtype)]
        print(plan(backbones, args, data_args.measure(dataset, backbones, args), run_args.num_gpus))
        return
    args.output_dir = args.output_dir or default_output_dir(source["name"], "lgm", models, args.images_per_class)
    runs = choose_runs(args, run_args)
    check_inits_are_kept(runs)
    for run in runs.values():
        if data_args.streams(dataset):
            run.check_streaming()
        prepare_output_dir(run.output_dir, run_args.overwrite, run.resume_from_checkpoint)
    backbones = model_args.load(models, dtype, run_args.eval_models)
    through = backbones[: len(models)]
    train, real = data_args.load(dataset, backbones, args, max(args.eval_seeds, 3 * args.images_per_class))
    command = published_command("accelerate launch scripts/distill.py", sys.argv[1:])
    loading = args.per_device_eval_batch_size, args.dataloader_num_workers
    distillers = {}
    for name, run in runs.items():
        provenance = {"source": source, "command": command, "training_set": name}
        distillers[name] = LGMDistiller(through, run, train, real, provenance=provenance)
    if args.push_to_hub:
        distillers["distilled"].open_repository(args.hub_dataset_id)
    for backbone, images in itertools.product(through, (train, real)):  # what can't be read is found here
        backbone.to(distillers["distilled"].accelerator.device)
        extract_features(backbone, images, distillers["distilled"].accelerator, *loading)
    for distiller in distillers.values():
        distiller.train()
        distiller.save_model()
    distiller = distillers["distilled"]
    comparison = compare(
        {name: distiller.distilled_set() for name, distiller in distillers.items()},
        backbones,
        train,
        real,
        references=REFERENCES,
        protocol=args.probe_protocol,
        accelerator=distiller.accelerator,
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
    )
    for each in distillers.values():
        each.save_model(results=[row for result in comparison.results for row in result.rows()])
    if distiller.accelerator.is_main_process:
        comparison.save_picture(Path(args.output_dir) / "comparison.png", comparison.backbones[:2])
        report(comparison, args, f"{len(real):,} images", NEXT if dataset == DEMO_DATASET else AFTER_THAT)
    publish(distiller, args)
    distiller.accelerator.end_training()


if __name__ == "__main__":
    run_script(main)
