"""Real images in the form of a distilled set: what it has to beat.

python scripts/baselines.py --kind centroid --model PATH_OR_ID --dataset PATH_OR_ID --images_per_class 1
python scripts/baselines.py --kind neighbor --neighbors_of SET --model PATH_OR_ID --dataset PATH_OR_ID
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from hf_lgm import DistilledSet, select_baseline
from hf_lgm.arguments import DataArguments, LoadingArguments, ModelArguments, published_command
from hf_lgm.augmentation import ViewSettings
from hf_lgm.baselines import BaselineKind
from hf_lgm.cli import default_output_dir, parse_arguments, prepare_output_dir, run_script
from hf_lgm.demo import DEMO_MODELS
from hf_lgm.provenance import describe_images


@dataclass
class BaselineArguments:
    """Which real images."""

    kind: BaselineKind = field(
        default="centroid",
        metadata={"help": "random, centroid, neighbor, kmeans, herding, or matched: by the objective itself."},
    )
    images_per_class: int = field(default=1, metadata={"help": "Images of each class."})
    neighbors_of: str | None = field(default=None, metadata={"help": "Set whose neighbours 'neighbor' means."})
    flip: bool = field(default=True, metadata={"help": "Whether probes see half of the views mirrored."})
    crop_scale: list[float] = field(
        default_factory=lambda: list(ViewSettings.crop_scale), metadata={"help": "Areas of the views of probes."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier set in --output_dir."})


def main() -> None:
    """Load, choose, write."""
    types = (ModelArguments, DataArguments, LoadingArguments, BaselineArguments)
    model_args, data_args, args, baseline_args = parse_arguments(types, __doc__, sys.argv[1:])
    kind, per_class, near = baseline_args.kind, baseline_args.images_per_class, None
    ViewSettings(baseline_args.flip, tuple(baseline_args.crop_scale))  # refuses crops
    if baseline_args.neighbors_of is not None:
        near = DistilledSet.from_pretrained(baseline_args.neighbors_of)
        per_class = near.images_per_class
    dataset = data_args.choose(model_args.model)
    source = data_args.source(dataset)
    models = model_args.model or DEMO_MODELS[:1]
    if len(models) > 1:
        raise ValueError(f"Expected one --model to choose through, found {len(models)}: {', '.join(models)}.")
    folder = Path(args.output_dir or default_output_dir(source["name"], kind, models, per_class))
    prepare_output_dir(str(folder), baseline_args.overwrite, can_resume=False)
    accelerator = Accelerator(cpu=args.use_cpu)
    backbones = model_args.load(models)
    train, _ = data_args.load(dataset, backbones, args, per_class)
    views = {"flip": baseline_args.flip, "crop_scale": baseline_args.crop_scale}
    settings = {"images_per_class": per_class, **views}
    command = published_command("python scripts/baselines.py", sys.argv[1:])
    chosen = select_baseline(
        kind,
        backbones[0],
        train,
        per_class,
        seed=args.seed,
        neighbors_of=near,
        config={
            "settings": settings,
            "source": {**source, **describe_images(train)},
            "command": command,
            "training_set": kind,
        },
        accelerator=accelerator,
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
    )
    if accelerator.is_main_process:
        chosen.save_pretrained(folder)
        models_and_data = f"--model {models[0]}" + (f" --dataset {data_args.dataset}" if data_args.dataset else "")
        print(f"Look at: {folder}/preview.png")
        print(f"Next:    python scripts/evaluate.py --sets {folder} {models_and_data}")


if __name__ == "__main__":
    run_script(main)
