"""Plots of what a set shows of the backbones that look at it, each with its numbers and a sentence.

hf-lgm analyze outputs/demo --model demo-vit demo-convnext                # the demo's set
hf-lgm analyze SET --model MODEL_A MODEL_B --dataset PATH_OR_ID
hf-lgm analyze SET SET_OF_B --model MODEL_A MODEL_B --dataset PATH_OR_ID  # transfer against the models' agreement
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..demo import DEMO_MODELS
from ..publishing.files import ANALYSIS_PAGE, DATA_FILE
from ..publishing.plotting import check_plots
from ..settings import ProbeProtocol, Projection, ProtocolName
from ..values import check_at_least
from .arguments import DataArguments, LoadingArguments, ModelArguments
from .parsing import parse_arguments, prepare_torch, run_command, with_name_of_sets
from .terminal import say


@dataclass
class AnalyzeArguments:
    """What is analyzed, and how.

    Args:
        sets (`list[str]`): The set: a folder or Hub id. More sets, each made through one of the models, are for the
            plot of transfer alone. The flag itself may be left out where they stand first.
        projection (`str`, *optional*, defaults to `"pca"`): How features become two dimensions: `pca`, or `umap`.
        protocol (`str`, *optional*, defaults to `"fast"`): How probes are trained. fast: cached views; paper: fresh
            views and the paper's learning rate.
        eval_seeds (`int`, *optional*, defaults to 5): Probes that an accuracy is the mean of.
    """

    sets: list[str] = field(default_factory=list)
    projection: Projection = "pca"
    protocol: ProtocolName = "fast"
    eval_seeds: int = 5

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("Name the set to analyze: hf-lgm analyze SET, a folder of `distill` or a Hub id.")
        check_at_least(self, 1, "eval_seeds")


def main() -> None:
    """Load, analyze, write, say what to look at."""
    types = (ModelArguments, DataArguments, LoadingArguments, AnalyzeArguments)
    model_args, data_args, args, given = parse_arguments(types, __doc__ or "", with_name_of_sets(sys.argv[1:]))
    dataset = data_args.choose(model_args.model)
    check_plots()
    name = Path(given.sets[0]).name
    folder = Path(args.output_dir or f"outputs/{name}-analysis")
    if (folder / DATA_FILE).exists():
        raise ValueError(f"{folder} is a set: give another --output_dir for what is seen of it.")
    prepare_torch()  # up to here nothing heavy is loaded, so that mistakes are answered at once

    from ..analysis.analysis import analyze
    from ..analysis.projection import check_projection
    from ..analysis.report import written_files
    from ..distillation.output_folder import check_is_ours
    from ..publishing.distilled_set import DistilledSet
    from . import inputs

    check_projection(given.projection)
    images, *others = [DistilledSet.from_pretrained(of) for of in given.sets]
    backbones = inputs.load_backbones(model_args, model_args.model or DEMO_MODELS)
    check_is_ours(folder, written_files([backbone.name for backbone in backbones]))
    train_images, eval_images = inputs.load_data(data_args, dataset, backbones, args)
    extractor = inputs.feature_extractor(args)
    analysis = analyze(
        images,
        backbones,
        train_images,
        eval_images,
        name=name,
        others=others,
        projection=given.projection,
        protocol=ProbeProtocol.named(given.protocol, seeds=given.eval_seeds),
        extractor=extractor,
    )
    if extractor.accelerator.is_main_process:
        analysis.save(folder)
        say((folder / ANALYSIS_PAGE).read_text(encoding="utf-8"))
        say(f"Look at: {folder / ANALYSIS_PAGE}, and the plots beside it")


if __name__ == "__main__":
    run_command(main)
