"""Accuracy against seconds: the paper's algorithm as its authors run it, with our learning rate and growth, and ours.

python benchmarks/accuracy.py --model MODEL_A --eval_models MODEL_B --dataset PATH_OR_ID

The runs follow each other in one process. Seconds count all that a run does but evaluation: ours starts with an empty
cache, so that encoding the real images is in it; the reference finds them decoded and resized, in memory.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CACHE = tempfile.TemporaryDirectory(prefix="hf_lgm-benchmark-")
os.environ["HF_ASSETS_CACHE"] = _CACHE.name  # read once, when huggingface_hub is imported

import torch  # noqa: E402
from earlier import FEATURES_ALONE  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from reference import Reference  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, LGMConfig, LGMDistiller  # noqa: E402
from hf_lgm.arguments import LGMArguments  # noqa: E402
from hf_lgm.cli.arguments import DataArguments, ModelArguments  # noqa: E402
from hf_lgm.cli.inputs import feature_extractor, load_backbones, load_data  # noqa: E402
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command  # noqa: E402
from hf_lgm.evaluation.evaluator import Evaluator  # noqa: E402

# Learning rate, steps, and steps between two levels where they are not spread over the start as ours are; whether the
# features of real images are computed once.
REFERENCES = {
    "reference": (2e-3, 5001, 200, False),
    "reference, our lr and growth": (2e-2, 900, None, False),
    "reference, our lr, growth and cached features": (2e-2, 900, None, True),
}
SNAPSHOTS = [25, 50, 100, 150, 200, 250, 300, 400, 500, 600, 750, 900, *range(1000, 5001, 500)]


@dataclass
class AccuracyArguments:
    """What is measured."""

    eval_models: list[str] = field(default_factory=list, metadata={"help": "Backbones for transfer."})
    runs: list[str] = field(
        default_factory=lambda: ["ours", *REFERENCES], metadata={"help": "Which runs, in this order."}
    )
    step_limit: int = field(default=10_000, metadata={"help": "Stop every run after so many steps."})


class Clock:
    """Seconds of a run without those in which it is paused; a curve of accuracies on the way."""

    def __init__(self, measure: Callable[[torch.Tensor], dict[str, float]], seen: Callable[[dict], None]) -> None:
        self.measure, self.seen = measure, seen
        self.started, self.paused = time.perf_counter(), 0.0

    def snapshot(self, step: int, pixels: Callable[[], torch.Tensor]) -> None:
        """Evaluate after some of the steps."""
        if step not in SNAPSHOTS:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        stopped = time.perf_counter()
        seconds = stopped - self.started - self.paused
        with torch.no_grad():
            images = pixels()
        self.seen({"step": step, "seconds": round(seconds, 1), **self.measure(images)})
        self.paused += time.perf_counter() - stopped


class Snapshots(TrainerCallback):
    """Tells a clock of our steps."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each of them."""
        self.clock.snapshot(state.global_step, kwargs["model"])


def run_ours(backbone: FrozenBackbone, train: LabelledImages, args: LGMConfig, clock: Clock) -> None:
    """Our algorithm, at its defaults unless flags say otherwise."""
    LGMDistiller(backbone, args, train, callbacks=[Snapshots(clock)]).train()


def run_reference(
    name: str, backbone: FrozenBackbone, train: LabelledImages, args: LGMConfig, clock: Clock, step_limit: int
) -> None:
    """The paper's, on images that are decoded already."""
    rate, steps, growth_steps, is_cached = REFERENCES[name]
    device, side = backbone.mean.device, backbone.preprocessing.synthetic_size
    real = train.centre_crops(side, 1.0).to(device)
    levels = side.bit_length()
    clock.started = time.perf_counter()
    cached = feature_extractor(args).extract(backbone, train).to(device) if is_cached else None
    reference = Reference(
        backbone,
        real,
        train.labels.to(device),
        backbone.image_size,
        args.images_per_class,
        args.views_per_step,
        rate,
        growth_steps or 0.32 * LGMConfig.max_steps / levels,
        args.seed,
        cached,
    )
    backbone.model.requires_grad_(True)
    for step in range(1, min(steps, step_limit) + 1):
        reference.step()
        clock.snapshot(step, reference.images)
    backbone.model.requires_grad_(False)


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """Accuracy through each backbone against seconds, on a logarithmic axis."""
    backbones = [name for name in next(iter(curves.values()))[0] if name not in ("step", "seconds")]
    figure = Figure(figsize=(5 * len(backbones), 4), layout="constrained")
    for axes, backbone in zip(figure.subplots(1, len(backbones), squeeze=False)[0], backbones, strict=True):
        for name, curve in curves.items():
            axes.plot([point["seconds"] for point in curve], [point[backbone] for point in curve], "o-", label=name)
        axes.set(xscale="log", xlabel="seconds", ylabel="top-1, %")
        axes.set_title(backbone if backbone == backbones[0] else f"transfer to {backbone}", fontsize=9)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run all; keep what is found after every evaluation."""
    types = (ModelArguments, DataArguments, LGMArguments, AccuracyArguments)
    model_args, data_args, given, own = parse_arguments(types, __doc__, sys.argv[1:])
    prepare_torch()
    args = LGMConfig(**{**vars(given), **FEATURES_ALONE})
    backbones = load_backbones(model_args, [*model_args.model[:1], *own.eval_models])
    train, eval_images = load_data(data_args, data_args.choose(model_args.model), backbones, args)
    labels = torch.arange(train.num_classes).repeat_interleave(args.images_per_class).tolist()
    extractor, protocol = feature_extractor(args), args.probe_protocol
    evaluators = [Evaluator(each, eval_images, protocol=protocol, extractor=extractor) for each in backbones]

    def measure(pixels: torch.Tensor) -> dict[str, float]:
        images = DistilledSet.from_pixels(pixels, labels, train.class_names)
        return {e.backbone.name: round(e.probe("images", [images], args.views).mean, 2) for e in evaluators}

    path, curves = Path(args.output_dir) / "accuracy.json", {}
    path.parent.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and not args.use_cpu else f"{threads} thread(s)"
    for name in own.runs:
        curve = curves.setdefault(name, [])

        def seen(point: dict, name: str = name, curve: list = curve) -> None:
            curve.append(point)
            print(name, json.dumps(point), flush=True)
            path.write_text(json.dumps({"device": device, "curves": curves}, indent=1) + "\n")
            draw({name: curve for name, curve in curves.items() if curve}, path.with_suffix(".png"))

        clock = Clock(measure, seen)
        if name == "ours":
            args.max_steps = min(args.max_steps, own.step_limit)
            run_ours(backbones[0], train, args, clock)
        else:
            run_reference(name, backbones[0], train, args, clock, own.step_limit)


if __name__ == "__main__":
    run_command(main)
