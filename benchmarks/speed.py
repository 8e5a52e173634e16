"""Seconds and memory: the reference, ours, and the limit that the backbone's own forward and backward pass sets.

python benchmarks/speed.py --parts step                                   # a ViT-B/14 at 224 with random weights
python benchmarks/speed.py --parts step scale extraction --architecture mobilenet

All rows of a part are measured one after the other on the same work. Seconds are medians; memory is the peak above
what was taken before: the allocator's on a GPU, resident memory on a CPU.
"""

import ctypes
import gc
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, get_args

import datasets
import numpy as np
import torch
from earlier import FEATURES_ALONE
from PIL import Image
from reference import Reference
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, TrainerCallback

from hf_lgm import FrozenBackbone, LabelledImages, LGMConfig, LGMDistiller, Preprocessing
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.data.augmentation import random_views
from hf_lgm.data.decoding import read_image
from hf_lgm.data.images import centre_crop, decoded_side, fast_centre_crop, to_tensor
from hf_lgm.distillation.objectives import LabelledFeatures, feature_gradient, uniform_weights
from hf_lgm.distillation.synthetic import SyntheticImages
from hf_lgm.features.extraction import FeatureExtractor
from hf_lgm.settings import Decode

# Configurations of well-known models, whose weights are random here: time and memory do not depend on them.
ARCHITECTURES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit-b14": ("dinov2", 224, {"image_size": 224, "patch_size": 14}),
    "vit-s14": ("dinov2", 224, {"image_size": 224, "patch_size": 14, "hidden_size": 384, "num_attention_heads": 6}),
    "vit-small": ("dinov2", 64, {"image_size": 64, "patch_size": 8, "hidden_size": 192, "num_attention_heads": 3}),
    "mobilenet": ("mobilenet_v1", 96, {"depth_multiplier": 0.25}),
}


@dataclass
class SpeedArguments:
    """What is measured."""

    parts: list[str] = field(default_factory=lambda: ["step"], metadata={"help": "step, chunks, scale, extraction."})
    architecture: str = field(default="vit-b14", metadata={"help": f"One of {', '.join(ARCHITECTURES)}."})
    output: str = field(default="speed.json", metadata={"help": "Where the numbers go."})
    classes: int = field(default=10, metadata={"help": "Classes of the step."})
    chunked_classes: int = field(default=200, metadata={"help": "Classes of the part 'chunks'."})
    steps: int = field(default=5, metadata={"help": "Timed steps of each row."})
    scales: list[str] = field(
        default_factory=lambda: ["10x1x1", "10x3x1", "10x10x1", "100x10x1", "1000x10x1", "10x10x10"],
        metadata={"help": "Classes x views x images per class."},
    )
    reference_scales: list[str] = field(
        default_factory=lambda: ["10x10x1"], metadata={"help": "At which of them the reference runs too."}
    )
    images: int = field(default=2048, metadata={"help": "Images that features are extracted of."})
    photo_sides: list[int] = field(default_factory=lambda: [256, 400], metadata={"help": "Shortest sides of these."})
    compare_compiled: bool = field(default=False, metadata={"help": "Try the limit and ours compiled too."})


class Meter:
    """Seconds and peak memory of what is done in between."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def name(self) -> str:
        """What the machine is called in tables."""
        is_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name() if is_gpu else f"{torch.get_num_threads()} CPU thread(s)"

    def wait(self) -> None:
        """Until the device has done all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def clear(self) -> int:
        """Give back what is not needed; bytes taken now."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory starts anew
        return self._status("VmRSS")

    def peak(self) -> int:
        """Most bytes taken since."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else self._status("VmHWM")

    def time(self, work: Callable[[], Any], repeats: int, warm_up: int = 2) -> float:
        """Median of the seconds that it takes."""
        seconds = []
        for number in range(warm_up + repeats):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            if number >= warm_up:
                seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def make_backbone(architecture: str, dtype: torch.dtype, device: torch.device) -> FrozenBackbone:
    """A model of that architecture with random weights."""
    kind, side, options = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **options))
    return FrozenBackbone(model.to(dtype), Preprocessing(side), name=architecture).to(device)


def random_dataset(classes: int, per_class: int, side: int) -> datasets.Dataset:
    """Noise, labelled; no two images are the same, so that nothing is spared by knowing one already."""
    noise = np.random.default_rng(0).integers(0, 255, (classes * per_class, side, side, 3), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=classes)})
    rows = {"image": [Image.fromarray(image) for image in noise], "label": [*range(classes)] * per_class}
    return datasets.Dataset.from_dict(rows, features=features)


class StepTimer(TrainerCallback):
    """Seconds of each step of a distiller, and memory after the first ones."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.seconds = meter, []
        self.base = self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All that goes before is not part of a step."""
        self.base = self.meter.clear()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.meter.wait()
        self.started = time.perf_counter()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop: previews and logs are not part of it."""
        self.meter.wait()
        self.seconds.append(time.perf_counter() - self.started)


def measure_ours(
    meter: Meter, backbone: FrozenBackbone, classes: int, views: int, per_class: int, steps: int, chunk: int | None
) -> dict[str, Any]:
    """Steps with all levels of the pyramid, as LGMDistiller does them."""
    with tempfile.TemporaryDirectory() as folder:
        args = LGMConfig(
            folder,
            images_per_class=per_class,
            views_per_step=views,
            max_steps=steps + 2,
            growth_share=0.0,
            **FEATURES_ALONE,
            chunk_size=chunk,
            bf16=backbone.dtype == torch.bfloat16,
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
        )
        timer = StepTimer(meter)
        distiller = LGMDistiller(backbone, args, random_dataset(classes, max(2, per_class), 32), callbacks=[timer])
        distiller.train()
        size = distiller.images.size
    pixels = classes * per_class * 3 * size**2 * 4
    # Of the pixels and, 4/3 as many over all levels, of the parameters: values (there before), gradients, two moments.
    fixed = int(pixels * (1 + 3 * 4 / 3))
    return {
        "seconds": statistics.median(timer.seconds[2:]),
        "peak": meter.peak() - timer.base,
        "fixed": fixed,
        "chunk": distiller.chunk_size,
    }


def measure_reference(
    meter: Meter, backbone: FrozenBackbone, classes: int, views: int, per_class: int, steps: int
) -> dict[str, Any]:
    """Steps of the paper's algorithm with all levels."""
    side = backbone.preprocessing.synthetic_size
    count = max(classes * per_class * views, classes)
    real = torch.randint(0, 255, (min(count, 512), 3, side, side), dtype=torch.uint8, device=meter.device)
    real = real.repeat(-(-count // len(real)), 1, 1, 1)[:count]
    labels = torch.arange(count, device=meter.device) % classes
    base = meter.clear()
    backbone.model.requires_grad_(True)
    try:
        reference = Reference(backbone, real, labels, backbone.image_size, per_class, views)
        while len(reference.levels) < len(reference.sides):
            reference._grow()
        seconds = meter.time(reference.step, steps)
        return {"seconds": seconds, "peak": meter.peak() - base}
    except torch.OutOfMemoryError:
        return {"seconds": float("nan"), "peak": float("nan"), "note": "does not fit"}
    finally:
        backbone.model.requires_grad_(False)
        for parameter in backbone.model.parameters():
            parameter.grad = None


def measure_limit(
    meter: Meter, backbone: FrozenBackbone, views: int, steps: int, batches: list[int], compiled: bool
) -> dict[str, Any]:
    """The best that the bare forward and backward pass of so many views does, over batch sizes, eager and compiled."""
    found: dict[str, float] = {}
    for kind in ["eager", "compiled"] if compiled else ["eager"]:
        if kind == "compiled":  # at the best batch size: each takes a minute
            backbone.model.forward = torch.compile(backbone.model.forward, dynamic=False)  # type: ignore[method-assign]
            batches = [int(min(found, key=found.__getitem__).split()[-1])]
        for batch in sorted({min(batch, views) for batch in batches}):
            pixels = torch.rand(batch, 3, backbone.image_size, backbone.image_size, device=meter.device)
            inputs = ((pixels - backbone.mean) / backbone.std).to(backbone.dtype)
            inputs = inputs.contiguous(memory_format=backbone._memory_format).requires_grad_()

            def work(inputs: torch.Tensor = inputs) -> None:
                output = backbone.model(inputs)
                torch.autograd.grad(output.pooler_output.flatten(1).sum(), inputs)

            try:
                found[f"{kind}, batch {batch}"] = meter.time(work, steps) * views / batch
            except torch.OutOfMemoryError:
                pass
    best = min(found, key=found.__getitem__)
    return {"seconds": found[best], "best": best, "all": found}


def flops_per_view(backbone: FrozenBackbone, device: torch.device) -> float:
    """Of the forward and the backward pass to the pixels."""
    pixels = torch.rand(2, 3, backbone.image_size, backbone.image_size, device=device).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        backbone(pixels).sum().backward()
    return counter.get_total_flops() / 2


def measure_parts(meter: Meter, backbone: FrozenBackbone, classes: int, views: int, steps: int) -> dict[str, float]:
    """What a step of ours consists of, each with its backward pass."""
    images = SyntheticImages(range(classes), backbone.preprocessing.synthetic_size, 0)
    images.set_num_levels(len(images.sides))
    images.to(meter.device)
    settings, side = LGMConfig("unused").views, backbone.image_size
    ids = list(range(classes))
    pixels = images().detach().requires_grad_()
    crops = random_views(pixels, ids, views, side, settings, 0, 0).detach().requires_grad_()
    z = backbone(crops).detach()
    y = torch.arange(classes, device=meter.device).repeat_interleave(views)
    synthetic = LabelledFeatures(z, y, uniform_weights(y))
    W = 0.01 * torch.randn(classes, z.shape[1], device=meter.device)
    optimizer = torch.optim.Adam(images.parameters(), fused=meter.device.type == "cuda" or None)

    def decode() -> None:
        images().sum().backward()

    def view() -> None:
        made = random_views(pixels, ids, views, side, settings, 0, 0)
        torch.autograd.grad(made, pixels, torch.ones_like(made))

    def encode() -> None:
        torch.autograd.grad(backbone(crops).sum(), crops)

    work = {
        "decoding": decode,
        "views": view,
        "backbone": encode,
        "objective": lambda: feature_gradient(synthetic, synthetic, W),
        "optimizer": optimizer.step,
    }
    return {name: meter.time(part, steps) for name, part in work.items()}


def photographs(side: int, count: int = 8) -> list[bytes]:
    """JPEG files of 4:3 with that shortest side, of noise at all scales, which compresses as photographs do."""
    rng, files = np.random.default_rng(0), []
    width, height = side * 4 // 3, side
    for _ in range(count):
        pixels = np.full((height, width, 3), 128.0)
        for scale in (2, 4, 8, 16, 32, 64):
            noise = rng.normal(0, 4 * scale**0.5, (-(-height // scale), -(-width // scale), 3)).clip(-127, 127)
            small = Image.fromarray((noise + 128).astype(np.uint8))
            pixels += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=float) - 128
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def measure_extraction(
    meter: Meter, backbone: FrozenBackbone, count: int, side: int, decode: str, batch: int = 64
) -> dict[str, Any]:
    """Milliseconds of one core per image to decode and to resize; images per second from JPEG files to features."""
    files = photographs(side)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=2)})
    rows = {
        "image": [{"bytes": files[i % len(files)], "path": None} for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    images = LabelledImages.from_dataset(datasets.Dataset.from_dict(rows, features=features), decode=decode)
    size, ratio, _ = geometry = backbone.preprocessing.geometry
    needed = decoded_side(size, ratio) if decode == "fast" else None
    crop = fast_centre_crop if decode == "fast" else lambda *of: to_tensor(centre_crop(*of))
    image = read_image(files[0], needed=needed)
    crops = torch.stack([images.centre_crop(row % count, *geometry) for row in range(batch)]).to(meter.device)
    pixels = (crops.float() / 255).to(backbone.dtype).contiguous(memory_format=backbone._memory_format)
    with torch.no_grad():
        bare = batch / meter.time(lambda: backbone.model(pixels), 10)
    milliseconds = {
        "decode": 1e3 * meter.time(lambda: read_image(files[0], needed=needed), 50),
        "resize": 1e3 * meter.time(lambda: crop(image, *geometry), 50),
        "all of it": 1e3 * meter.time(lambda: images.centre_crop(0, *geometry), 50),
    }
    with tempfile.TemporaryDirectory() as folder:
        FeatureExtractor(batch_size=batch, cache_dir=folder).extract(backbone, images.select(torch.arange(64)))
        started = time.perf_counter()
        FeatureExtractor(batch_size=batch, num_workers=-1, cache_dir=folder).extract(backbone, images)
        ours = count / (time.perf_counter() - started)
    of = f"JPEGs of {side} pixels ({statistics.mean(map(len, files)) / 1000:.0f} kB), {decode}"
    return {"what": of, **milliseconds, "images/s": ours, "bare forward": bare, "share": ours / bare}


def part_step(meter: Meter, backbone: FrozenBackbone, own: SpeedArguments, views: int) -> list[dict[str, Any]]:
    """The reference, ours in one chunk and in several, the limit; the parts of ours."""
    count = own.classes * views
    batches = [16, 32, 64, 100, 128, 256, count]
    parts = measure_parts(meter, backbone, own.classes, views, own.steps)
    rows = [
        {"what": "ours, one chunk", **measure_ours(meter, backbone, own.classes, views, 1, own.steps, own.classes)},
        {
            "what": "ours, ten chunks",
            **measure_ours(meter, backbone, own.classes, views, 1, own.steps, max(1, own.classes // 10)),
        },
        {"what": "reference", **measure_reference(meter, backbone, own.classes, views, 1, own.steps)},
        {"what": "limit", **measure_limit(meter, backbone, count, own.steps, batches, own.compare_compiled)},
        *({"what": f"  {name}", "seconds": seconds} for name, seconds in parts.items()),
    ]
    if own.compare_compiled:
        compiled = measure_ours(meter, backbone, own.classes, views, 1, own.steps, own.classes)
        rows.insert(2, {"what": "ours, one chunk, compiled", **compiled})
    limit = next(row["seconds"] for row in rows if row["what"] == "limit")
    flops = count * flops_per_view(backbone, meter.device)
    for row in rows:
        row["times the limit"] = row["seconds"] / limit
        if not row["what"].startswith(" "):
            row["TFLOP/s"] = flops / row["seconds"] / 1e12
    return rows


def part_chunks(meter: Meter, backbone: FrozenBackbone, own: SpeedArguments, views: int) -> list[dict[str, Any]]:
    """More images than fit, in chunks that are found by themselves, beside the limit for as many views."""
    ours = measure_ours(meter, backbone, own.chunked_classes, views, 1, own.steps, None)
    limit = measure_limit(meter, backbone, own.chunked_classes * views, own.steps, [64, 100, 128, 256], False)
    rows = [{"what": f"ours, {own.chunked_classes} classes", **ours}, {"what": "limit", **limit}]
    return [{**row, "times the limit": row["seconds"] / limit["seconds"]} for row in rows]


def part_scale(meter: Meter, backbone: FrozenBackbone, own: SpeedArguments) -> list[dict[str, Any]]:
    """Ours with chunks of ten images, and the reference, over classes, views and images per class."""
    rows = []
    for scale in own.scales:
        classes, views, per_class = map(int, scale.split("x"))
        sizes = {"classes": classes, "views": views, "images per class": per_class}
        rows.append({"what": "ours", **sizes, **measure_ours(meter, backbone, *sizes.values(), own.steps, 10)})
        if scale in own.reference_scales:
            reference = measure_reference(meter, backbone, *sizes.values(), own.steps)
            rows.append({"what": "reference", **sizes, **reference})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("all", "fixed")))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        cells = []
        for name in columns:
            value = row.get(name, "")
            if name.startswith("peak") and value != "":
                value = f"{value / 2**30:.2f} GB"
            cells.append(f"{value:.4g}" if isinstance(value, float) else str(value))
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure the parts; print tables, write JSON."""
    (own,) = parse_arguments([SpeedArguments], __doc__, sys.argv[1:])
    prepare_torch()
    meter = Meter()
    dtype = meter.dtype
    backbone = make_backbone(own.architecture, dtype, meter.device)
    found: dict[str, Any] = {"device": meter.name, "architecture": own.architecture, "dtype": str(dtype)}
    print(f"{own.architecture} in {dtype} on {meter.name}, torch {torch.__version__}")
    measures = {
        "step": lambda: part_step(meter, backbone, own, 10),
        "chunks": lambda: part_chunks(meter, backbone, own, 10),
        "scale": lambda: part_scale(meter, backbone, own),
        "extraction": lambda: [
            measure_extraction(meter, backbone, own.images, side, decode)
            for side, decode in product(own.photo_sides, get_args(Decode))
        ],
    }
    for part in own.parts:
        found[part] = measures[part]()
        show(found[part])
        Path(own.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
