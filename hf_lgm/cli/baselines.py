"""Real images in the form of a distilled set: what it has to beat.

hf-lgm baselines --kind centroid --model PATH_OR_ID --dataset PATH_OR_ID --images_per_class 1
hf-lgm baselines --kind neighbor --neighbors_of SET --model PATH_OR_ID --dataset PATH_OR_ID
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..demo import DEMO_MODELS
from ..settings import BaselineKind, ViewSettings
from ..values import check_at_least
from .arguments import DataArguments, LoadingArguments, ModelArguments
from .parsing import (
    check_output_dir,
    default_output_dir,
    parse_arguments,
    prepare_torch,
    published_command,
    run_command,
)
from .terminal import say

OF_DEMO = ("flip", "crop_scale")


@dataclass
class BaselineArguments:
    """Which real images.

    Args:
        kind (`str`, *optional*, defaults to `"centroid"`): random, centroid, neighbor, kmeans, herding, or matched: by
            the objective itself.
        images_per_class (`int`, *optional*, defaults to 1): Images of each class.
        neighbors_of (`str`, *optional*): Set whose neighbours 'neighbor' means.
        flip (`bool`, *optional*, defaults to `True`): Whether probes see half of the views mirrored.
        crop_scale (`list[float]`, *optional*, defaults to `[0.08, 1.0]`): Areas of the views of probes.
        bounded_crops (`bool`, *optional*, defaults to `True`): Whether these views are kept within the image.
        overwrite (`bool`, *optional*, defaults to `False`): Throw away an earlier set in --output_dir.
    """

    kind: BaselineKind = "centroid"
    images_per_class: int = 1
    neighbors_of: str | None = None
    flip: bool = True
    crop_scale: list[float] = field(default_factory=lambda: list(ViewSettings.crop_scale))
    bounded_crops: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "images_per_class")
        areas: Any = self.crop_scale
        ViewSettings(self.flip, areas)  # refuses crops


def main() -> None:
    """Load, choose, write."""
    types = (ModelArguments, DataArguments, LoadingArguments, BaselineArguments)
    model_args, data_args, args, baseline_args = parse_arguments(types, __doc__ or "", sys.argv[1:], OF_DEMO)
    dataset = data_args.choose(model_args.model)
    models = model_args.model or DEMO_MODELS[:1]
    if len(models) > 1:
        raise ValueError(f"Expected one --model to choose through, found {len(models)}: {', '.join(models)}.")
    prepare_torch()  # up to here nothing heavy is loaded, so that mistakes are answered at once

    from ..distillation.output_folder import remove_earlier_run
    from ..distillation.run_lock import RunLock
    from ..evaluation.baselines import select_baseline
    from ..publishing.distilled_set import DistilledSet
    from ..publishing.provenance import describe_images
    from . import inputs

    kind, per_class, near = baseline_args.kind, baseline_args.images_per_class, None
    if baseline_args.neighbors_of is not None:
        near = DistilledSet.from_pretrained(baseline_args.neighbors_of)
        per_class = near.images_per_class
    source = inputs.source_of(data_args, dataset)
    folder = Path(args.output_dir or default_output_dir(source["name"], kind, models, per_class))
    read = [dataset, *models, *([baseline_args.neighbors_of] if near else [])]
    check_output_dir(str(folder), baseline_args.overwrite, can_resume=False, read=read)
    extractor = inputs.feature_extractor(args)
    backbones = inputs.load_backbones(model_args, models)
    train_images, _ = inputs.load_data(data_args, dataset, backbones, args, per_class)
    views = {name: getattr(baseline_args, name) for name in ("flip", "crop_scale", "bounded_crops")}
    config = {
        "settings": {"images_per_class": per_class, **views},
        "source": {**source, **describe_images(train_images)},
        "command": published_command("hf-lgm baselines", sys.argv[1:]),
        "training_set": kind,
    }
    given = {"seed": args.seed, "neighbors_of": near, "config": config, "extractor": extractor}
    chosen = select_baseline(kind, backbones[0], train_images, per_class, **given)
    if extractor.accelerator.is_main_process:
        with RunLock(folder):
            remove_earlier_run(folder)
            chosen.save_pretrained(folder)
        models_and_data = f"--model {models[0]}" + (f" --dataset {data_args.dataset}" if data_args.dataset else "")
        say(f"Look at: {folder}/preview.png")
        say(f"Next:    hf-lgm evaluate --sets {folder} {models_and_data}")


if __name__ == "__main__":
    run_command(main)
