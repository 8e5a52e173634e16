"""What `--plan` says a run will cost, beside what it then costs: seconds and memory.

python benchmarks/plan.py                              # on a CPU: a MobileNet and a small ViT with random weights
python benchmarks/plan.py --architecture vit-b14 mobilenet --classes 50 --per_class 20

Each case is planned and run in a process of its own, on noise. Memory is the peak: on a GPU what the allocator
held, on a CPU the whole process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from earlier import FEATURES_ALONE
from speed import Meter, StepTimer, make_backbone, random_dataset, show

from hf_lgm import LabelledImages, LGMConfig, LGMDistiller, compare
from hf_lgm.cli.distill import REFERENCES
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.distillation.planning import DatasetSize, plan
from hf_lgm.evaluation.planning import evaluation_seconds

WHAT, RATIO = "what", "planned / found"

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "lgm on the features alone": {**FEATURES_ALONE, "objective": "lgm"},
    "five images per class": {"images_per_class": 5, "views_per_step": 2},
    "chunks of two images": {"chunk_size": 2},
    "two backbones": {},
    "latents": {"parameterization": "latent", "growth_share": 0.0},
    "real images in every step": {**FEATURES_ALONE, "objective": "lgm", "real_features": "online"},
}


@dataclass
class PlanArguments:
    """What is planned.

    Args:
        architecture (`list[str]`, *optional*): Those of `speed.py`; the second one only where two are asked for.
        cases (`list[str]`, *optional*): Of `CASES` in this file; all where not given.
        classes (`int`, *optional*, defaults to 10): C.
        per_class (`int`, *optional*, defaults to 50): Real images of each class; as many again are evaluated on.
        steps (`int`, *optional*, defaults to 40): Of each run.
        one (`str`, *optional*): Run this case alone, and print it as JSON.
        output (`str`, *optional*, defaults to `"plan.json"`): Where the numbers go.
    """

    architecture: list[str] = field(default_factory=lambda: ["mobilenet", "vit-small"])
    cases: list[str] = field(default_factory=lambda: list(CASES))
    classes: int = 10
    per_class: int = 50
    steps: int = 40
    one: str | None = None
    output: str = "plan.json"


def measured(name: str, own: PlanArguments) -> list[dict[str, Any]]:
    """Rows of one case: planned, found, and their ratio."""
    meter = Meter()
    backbones = [make_backbone(each, meter.dtype, meter.device) for each in own.architecture]
    backbones = backbones if name == "two backbones" else backbones[:1]
    dataset = random_dataset(own.classes, own.per_class, backbones[0].image_size)
    images, others = (
        LabelledImages.from_dataset(each) for each in (dataset, dataset.select(range(len(dataset))[::-1]))
    )
    size = DatasetSize(own.classes, len(images), len(others))
    with tempfile.TemporaryDirectory() as folder:
        settings = {**CASES[name], **({"vae": _autoencoder(folder)} if name == "latents" else {})}
        args = LGMConfig(
            f"{folder}/run", max_steps=own.steps, save_strategy="no", logging_steps=1000, disable_tqdm=True,
            bf16=meter.device.type == "cuda", **settings,
        )  # fmt: skip
        planned = plan(backbones, args, size)
        planned = replace(planned, evaluation_seconds=evaluation_seconds(backbones, args, size, len(backbones)))
        meter.clear()
        timer, started = StepTimer(meter), time.perf_counter()
        distiller = LGMDistiller(backbones, args, images, others, callbacks=[timer])
        distiller.train()
        peak = meter.peak()
        sets, how = (
            {"distilled": distiller.distilled_set()},
            {"references": REFERENCES, "protocol": args.probe_protocol},
        )
        compare(sets, backbones, images, others, extractor=distiller.extractor, **how)
        seconds = time.perf_counter() - started
    found = {
        "steps, s": (planned.steps * planned.step_seconds, sum(timer.seconds)),
        "in all, s": (planned.seconds, seconds),
        "memory, GB": ((planned.memory_bytes + planned.libraries_bytes) / 2**30, peak / 2**30),
    }
    return [
        {"case": name, WHAT: what, "planned": said, "found": was, RATIO: said / was}
        for what, (said, was) in found.items()
    ]


def _autoencoder(folder: str) -> str:
    """A small one with random weights."""
    from diffusers import AutoencoderTiny  # here, since it is slow to load

    AutoencoderTiny().save_pretrained(f"{folder}/vae")
    return f"{folder}/vae"


def main() -> None:
    """Each case in a process of its own; print a table, write JSON."""
    (own,) = parse_arguments([PlanArguments], __doc__, sys.argv[1:])
    prepare_torch()
    if own.one:
        print(json.dumps(measured(own.one, own)))
        return
    rows: list[dict[str, Any]] = []
    for name in own.cases:
        with tempfile.TemporaryDirectory() as cache:  # nothing is known of earlier runs
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
            done = subprocess.run(
                command, env={**os.environ, "HF_ASSETS_CACHE": cache}, capture_output=True, text=True
            )
        if done.returncode:
            sys.exit(done.stderr)
        rows += json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {', '.join(f'{row[RATIO]:.2f} of {row[WHAT]}' for row in rows[-3:])}", flush=True)
        Path(own.output).write_text(json.dumps({"device": Meter().name, "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    run_command(main)
