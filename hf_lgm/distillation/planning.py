"""What a distillation will cost, from the sizes of the data and a few timed passes over random images."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psutil
import torch

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..distributed import owned_range
from .encoding import beside_chunks, encode_views, find_chunk_size
from .objectives import LabelledFeatures, feature_gradient, uniform_weights
from .real_features import drawn_backbones
from .synthetic import SyntheticImages
from .view_sizes import ViewSizes

# Views that are timed; on a CPU a few say enough.
_VIEWS = {"cpu": 20}
_VIEWS_ELSEWHERE = 200

# Images that are drawn to be timed: as many as an autoencoder draws at a time.
_DRAWN = 8

# Synthetic features that the objective is timed with at most; it takes as much longer as there are more.
_ROWS = 1024

# Real features that it is timed with twice: the difference is what they cost.
_FEW_ROWS, _MANY_ROWS = 8, 4096

# Classes that anything is timed with at most; it takes as much longer as there are more.
MOST_CLASSES = 1024


@dataclass(frozen=True)
class DatasetSize:
    """What is known of a dataset without its images.

    Args:
        num_classes (`int`): C.
        num_train (`int`): Images to distil.
        num_eval (`int`): Images to evaluate on.
        download_bytes (`int`, *optional*): What has to be downloaded, where that is known.
    """

    num_classes: int
    num_train: int
    num_eval: int
    download_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """The cost of one distillation; of several processes, what each of them needs.

    Args:
        size ([`DatasetSize`]): The real data.
        num_images (`int`): Synthetic images of all processes.
        chunk_size (`int`): Images encoded at a time.
        num_processes (`int`): Processes that share the work.
        steps (`int`): Optimisation steps.
        step_seconds (`float`): Of each.
        extraction_seconds (`float`): To encode all real images, decoding not counted.
        memory_bytes (`int`): Of weights, features, images and what is kept between passes, at the peak.
        disk_bytes (`int`): Cached features, checkpoints and what is published; downloads not counted.
        evaluation_seconds (`float`, *optional*, defaults to 0): The table at the end, on one process.
        libraries_bytes (`int`, *optional*, defaults to 0): Of the same memory, what Python and its libraries take:
            nothing of a GPU's.
    """

    size: DatasetSize
    num_images: int
    chunk_size: int
    num_processes: int
    steps: int
    step_seconds: float
    extraction_seconds: float
    memory_bytes: int
    disk_bytes: int
    evaluation_seconds: float = 0.0
    libraries_bytes: int = 0

    @property
    def seconds(self) -> float:
        """All steps, encoding the real images, and the table."""
        return self.steps * self.step_seconds + self.extraction_seconds + self.evaluation_seconds

    def __str__(self) -> str:
        where = f" on each of {self.num_processes} processes" if self.num_processes > 1 else ""
        download, libraries = self.size.download_bytes, self.libraries_bytes
        lines = {
            "real images": f"{self.size.num_train:,} to distil, {self.size.num_eval:,} to evaluate on",
            "classes": f"{self.size.num_classes:,}",
            "synthetic images": f"{self.num_images:,}, {self.chunk_size} at a time{where}",
            "encoding the real": f"{_duration(self.extraction_seconds)}, or as long as decoding them takes",
            "steps": f"{self.steps:,} of {self.step_seconds:.2g} s: {_duration(self.steps * self.step_seconds)}",
            "the table": _duration(self.evaluation_seconds),
            "in all": f"{_duration(self.seconds)}: until {_clock(self.seconds)} if begun now",
            "memory": f"{_amount(self.memory_bytes + libraries)}{where}"
            + (f", {_amount(libraries)} of it for Python and its libraries" if libraries else ""),
            "disk": _amount(self.disk_bytes) + (f", and a download of {_amount(download)}" if download else ""),
        }
        return "\n".join(f"{name + ':':19}{text}" for name, text in lines.items())


def plan(
    backbones: FrozenBackbone | Sequence[FrozenBackbone], args: LGMConfig, size: DatasetSize, num_processes: int = 1
) -> Plan:
    """What distilling data of this size through these backbones will cost on this device.

    Args:
        backbones ([`FrozenBackbone`], or several): On the device to plan for.
        args ([`LGMConfig`]): The settings.
        size ([`DatasetSize`]): The real data.
        num_processes (`int`, *optional*, defaults to 1): Processes to share the work, each with such a device.
    """
    backbones = [backbones] if isinstance(backbones, FrozenBackbone) else list(backbones)
    backbones = [backbone.with_layers(args.layers) for backbone in backbones]
    side = max(backbone.preprocessing.synthetic_size for backbone in backbones)
    num_images, num_staying = (size.num_classes * n for n in (args.learned_per_class, args.real_images_per_class))
    owned, staying = (len(owned_range(number, 0, num_processes)) for number in (num_images, num_staying))
    passes = [_Passes.measured(backbone, args, side, owned) for backbone in backbones]
    chunk, drawn = min(each.chunk for each in passes), len(drawn_backbones(len(backbones), args, 0))
    online = owned if args.real_features == "online" else 0  # with as many real images in each step as there are views
    steps = [
        owned * each.both
        + (owned - chunk + staying + online) * each.forward
        + _objective_seconds(backbone, args, size, num_images + num_staying)
        for each, backbone in zip(passes, backbones, strict=True)
    ]
    drawing, autoencoder_bytes = _drawing_cost(args, side, owned, backbones[0].mean.device)
    num_real = size.num_train + size.num_eval
    features = sum(num_real * backbone.dim * backbone.dtype.itemsize for backbone in backbones)
    layers = sum(num_real * sum(each.layer_dims) * each.dtype.itemsize for each in backbones)
    image = torch.empty(3, side, side, device="meta")
    # Of layers each step needs the means alone; the disk keeps them all.
    learned = side * side * (1 if args.channels == 1 else 3)
    checkpoint = num_images * learned * 4 * 4  # 4/3 as many numbers, thrice, of 4 bytes
    kept = args.kept_checkpoints
    weights = sum(parameter.nbytes for backbone in backbones for parameter in backbone.parameters())
    return Plan(
        size,
        num_images,
        chunk,
        num_processes,
        args.max_steps,
        sum(steps) * drawn / len(backbones) + owned * drawing,
        sum(num_real * each.forward / args.views_per_step / num_processes for each in passes),
        weights
        + beside_chunks(owned, image)
        + chunk * max(each.graph_bytes for each in passes)
        + autoencoder_bytes
        + features,
        features + layers + kept * checkpoint + (num_images + num_staying) * image.numel(),
        libraries_bytes=_libraries_bytes(weights) if backbones[0].mean.device.type == "cpu" else 0,
    )


def _libraries_bytes(weights: int) -> int:
    """What this process holds, which has loaded all that a run needs, without so many bytes of weights."""
    return max(0, psutil.Process().memory_info().rss - weights)


@dataclass(frozen=True)
class _Passes:
    """What one image, with all of its views, takes through one backbone.

    Args:
        chunk (`int`): Images that can be encoded at a time.
        forward (`float`): Seconds of the forward pass.
        both (`float`): Seconds of forward and backward, on the mean over all sizes of views.
        graph_bytes (`int`): What is kept between the two.
    """

    chunk: int
    forward: float
    both: float
    graph_bytes: int

    @classmethod
    def measured(cls, backbone: FrozenBackbone, args: LGMConfig, side: int, owned: int) -> "_Passes":
        """From a few random images of that side, of a process that owns so many."""
        device, image = backbone.mean.device, torch.rand(3, side, side).to(backbone.mean)
        sizes = ViewSizes.of(backbone, args.view_sizes, args.seed)

        def run(count: int, with_gradient: bool, size: int = sizes.largest) -> None:
            pixels = image.expand(count, *image.shape).contiguous().requires_grad_(with_gradient)
            with torch.set_grad_enabled(with_gradient):
                z = encode_views(backbone, args, 0, size, pixels, torch.arange(count))
            if with_gradient:
                z.sum().backward()

        encode = functools.partial(encode_views, backbone, args, 0, sizes.largest)
        chunk = args.chunk_size or find_chunk_size(encode, image, owned)
        chunk = min(owned, chunk or args.default_chunk_size)
        views = _VIEWS.get(device.type, _VIEWS_ELSEWHERE)
        timed = max(1, min(chunk, views // args.views_per_step))
        seconds = [seconds_of(functools.partial(run, timed, True, size), device) for size in sizes.sides]
        both = sum(seconds) / len(seconds) / timed
        forward = seconds_of(lambda: run(timed, False, backbone.image_size), device) / timed
        return cls(chunk, forward, both, _graph_bytes(backbone, lambda: run(timed, True)) // timed)


def _objective_seconds(backbone: FrozenBackbone, args: LGMConfig, size: DatasetSize, num_images: int) -> float:
    """The loss with its gradient on the synthetic features, which takes longer the more real ones there are."""
    device, total = backbone.mean.device, num_images * args.views_per_step
    real_rows = total if args.real_features == "online" else size.num_train
    classes = min(size.num_classes, MOST_CLASSES)
    clusters = classes * (num_images // size.num_classes)

    def features(rows: int) -> LabelledFeatures:
        number = torch.arange(rows, device=device)
        cluster = number % clusters if args.has_clusters else None
        z = torch.randn(rows, backbone.dim, device=device)
        return LabelledFeatures(z, number % classes, uniform_weights(number), cluster)

    plain = features(min(total, _ROWS))
    synthetic = replace(plain, y=plain.targets(classes))
    W = torch.randn(clusters if args.has_clusters else classes, backbone.dim, device=device)

    def seconds(real: LabelledFeatures) -> float:
        return seconds_of(lambda: feature_gradient(synthetic, real, W, args.objective), device)

    few = seconds(features(_FEW_ROWS))
    each = max(0.0, seconds(features(_MANY_ROWS)) - few) / (_MANY_ROWS - _FEW_ROWS)
    return (few * max(1.0, total / _ROWS) + each * real_rows) * size.num_classes / classes


def _drawing_cost(args: LGMConfig, side: int, owned: int, device: torch.device) -> tuple[float, int]:
    """Seconds to draw an image, to send its gradient back and to change it; the bytes that an autoencoder takes."""
    ids = range(min(owned, _DRAWN))
    images: Any
    if args.vae is None:
        sides = [side] if args.parameterization == "pixel" else None
        images = SyntheticImages(ids, side, args.seed, sides, 1 if args.channels == 1 else 3)
        images.set_num_levels(len(images.sides))
        images.to(device)
    else:
        from .latents import LatentImages, load_autoencoder  # here, since it loads diffusers

        images = LatentImages(ids, side, args.seed, load_autoencoder(args.vae)).to(device)
    optimizer = torch.optim.Adam(images.levels, lr=0.0)

    def step() -> None:
        images().sum().backward()
        optimizer.step()

    seconds = seconds_of(step, device) / len(ids)
    if args.vae is None:
        return seconds, 0
    kept = _graph_bytes(images.autoencoder, lambda: images.autoencoder.decode(images.levels[0]))
    return seconds, kept + sum(parameter.nbytes for parameter in images.parameters())


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """The shorter of two runs, after one that loads what is loaded once."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _graph_bytes(model: torch.nn.Module, work: Callable[[], object]) -> int:
    """Bytes of all tensors but weights that a forward pass keeps for the backward pass: on every device the same."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        work()
    return sum(kept.values())


def _amount(size: float) -> str:
    """Bytes, in the unit that shows how many."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MB"


def _clock(seconds: float) -> str:
    """The time of day when so many seconds have passed, with the date where it is another."""
    now = datetime.now()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%H:%M on %d %B}"


def _duration(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
