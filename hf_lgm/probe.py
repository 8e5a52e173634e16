"""Linear probes: trained on a set of images, scored on real ones, over seeds."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset, IterableDataset

from .augmentation import ViewSettings, random_views
from .backbone import FrozenBackbone
from .data import LabelledImages
from .distilled_set import DistilledSet
from .features import extract_features
from .loading import align_classes
from .randomness import seeded_generator
from .scores import accuracy, subgroups, worst_group_accuracy
from .streaming import StreamEncoder

# Numbers that are scored at a time, for each seed.
_MAX_LOGITS = 2**24
# Images that one step of a probe sees at most; from a larger training set they are drawn at random in each step.
_MAX_ROWS = 8192


@dataclass(frozen=True)
class ProbeProtocol:
    """How a probe is trained: Adam with a cosine schedule, on one view of each image per step, made and encoded once.

    The paper makes fresh views for 1,000 epochs, at a learning rate of 1e-3 * batch / 256. For ten images that is
    3.9e-5 and has not converged by then. Showing a probe all of its views in every step costs it 1 to 3 points.

    Args:
        steps (`int`, *optional*, defaults to 1000): Updates.
        learning_rate (`float`, *optional*, defaults to 1e-3): At the start.
        views (`int`, *optional*, defaults to 50): Random views of each image, flip and crop only, used in turn.
        seeds (`int`, *optional*, defaults to 5): Probes, each with its own start and views.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    views: int = 50
    seeds: int = 5

    @property
    def description(self) -> str:
        """The protocol in a few words, for tables and files."""
        return f"probe: {self.steps} Adam steps, lr {self.learning_rate:g}, cosine, {self.views} cached views"


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies of one training set through one backbone, in percent.

    Args:
        training_set (`str`): What was trained on.
        backbone (`str`): What it was seen through.
        protocol (`str`): How the accuracy was found.
        accuracies (`dict[str, list[float]]`): For each metric (`top-1`, `top-5` with more than five classes, `worst
            group` where there are groups) one value per seed.
    """

    training_set: str
    backbone: str
    protocol: str
    accuracies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean top-1 over the seeds."""
        return self.rows()[0]["mean"]

    @property
    def std(self) -> float:
        """Standard deviation of top-1 over the seeds; 0 for one."""
        return self.rows()[0]["std"]

    def rows(self) -> list[dict[str, Any]]:
        """One row per metric, as `results.json` holds them."""
        rows = []
        for metric, values in self.accuracies.items():
            tensor = torch.tensor(values, dtype=torch.float64)
            std = tensor.std().item() if len(values) > 1 else 0.0
            described = {name: getattr(self, name) for name in ("training_set", "backbone", "protocol")}
            numbers = {"mean": round(tensor.mean().item(), 2), "std": round(std, 2), "n_seeds": len(values)}
            rows.append({**described, "metric": metric, **numbers})
        return rows


@dataclass(frozen=True)
class EvalFeatures:
    """What probes are scored on.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        subgroups (`torch.Tensor`, *optional*): Shape (N,), numbers of their class and group; -1 for none.
    """

    z: torch.Tensor
    y: torch.Tensor
    subgroups: torch.Tensor | None = None

    @classmethod
    def of(cls, images: LabelledImages, z: torch.Tensor) -> "EvalFeatures":
        """Of images and their features, on the features' device."""
        numbers = None if images.groups is None else subgroups(images.labels, images.groups).to(z.device)
        return cls(z.float(), images.labels.to(z.device), numbers)

    def scores(self, logits: Callable[[torch.Tensor], torch.Tensor], num_classes: int) -> dict[str, list[float]]:
        """Accuracies in percent, one per seed: top-1, top-5 with more than five classes, and of the worst subgroup.

        Args:
            logits (`Callable`): Logits of shape (seeds, M, C) of features of shape (M, D).
            num_classes (`int`): C.
        """
        k = 5 if num_classes > 5 else 1
        rows = max(1, _MAX_LOGITS // num_classes)  # at a time
        batches = zip(self.z.split(rows), self.y.split(rows), strict=True)
        best = torch.cat([logits(z).topk(k, dim=-1).indices == y[None, :, None] for z, y in batches], dim=1)
        first = best[..., 0]  # (seeds, N)
        accuracies = {"top-1": accuracy(first)}
        if k > 1:
            accuracies["top-5"] = accuracy(best.any(dim=-1))
        if self.subgroups is not None:
            is_known = self.subgroups >= 0
            accuracies["worst group"] = worst_group_accuracy(first[:, is_known], self.subgroups[is_known])
        return {name: (100 * values).tolist() for name, values in accuracies.items()}


def evaluate_probe(
    backbone: FrozenBackbone | str,
    train_set: DistilledSet | Sequence[DistilledSet],
    eval_dataset: LabelledImages | Dataset | IterableDataset,
    *,
    name: str = "distilled",
    protocol: ProbeProtocol | None = None,
    views: ViewSettings | None = None,
    accelerator: Accelerator | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> ProbeResult:
    """Accuracy of linear probes that are trained on a small set of images.

    Args:
        backbone ([`FrozenBackbone`] or `str`): What the probe sees through.
        train_set ([`DistilledSet`], or one for each seed): What it is trained on.
        eval_dataset ([`LabelledImages`], `datasets.Dataset` or `datasets.IterableDataset`): Real images to score on,
            with the same classes.
        name (`str`, *optional*, defaults to `"distilled"`): What tables call the set.
        protocol ([`ProbeProtocol`], *optional*): How it is trained.
        views ([`ViewSettings`], *optional*): Views to train on; defaults to those that the set was made with.
        accelerator (`accelerate.Accelerator`, *optional*): Shares out the encoding of the real images.
        batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.

    Raises:
        ValueError: If the classes of the two differ.
    """
    protocol = protocol or ProbeProtocol()
    accelerator = accelerator or Accelerator()
    sets = [train_set] * protocol.seeds if isinstance(train_set, DistilledSet) else list(train_set)
    if isinstance(backbone, str):
        backbone = FrozenBackbone.from_pretrained(backbone)
    backbone.to(accelerator.device)
    encoder = StreamEncoder([backbone], accelerator, batch_size, pictures_per_class=0)
    real = align_classes(LabelledImages.wrap(eval_dataset, encoder), sets[0].class_names)
    views = (views or sets[0].views).without_noise()
    z = torch.stack(
        [_view_features(backbone, s, protocol.views, views, seed, batch_size) for seed, s in enumerate(sets)]
    )
    y = sets[0].labels.to(z.device)
    z_eval = extract_features(backbone, real, accelerator, batch_size, num_workers).to(z)
    scores = probe_accuracies(z, y, EvalFeatures.of(real, z_eval), real.num_classes, protocol)
    low, high = views.crop_scale
    protocol_and_views = f"{protocol.description}, crops of {low:g} to {high:g}{', flips' if views.flip else ''}"
    return ProbeResult(name, backbone.name, protocol_and_views, scores)


def full_data_probe(
    backbone_name: str,
    z: torch.Tensor,
    y: torch.Tensor,
    evaluation: EvalFeatures,
    num_classes: int,
    protocol: ProbeProtocol,
) -> ProbeResult:
    """The ceiling: the same probe trained on the centre views of all real images, features of shape (N, D)."""
    z_seeds = z.float()[:, None].expand(protocol.seeds, -1, 1, -1)
    scores = probe_accuracies(z_seeds, y, evaluation, num_classes, protocol)
    description = dataclasses.replace(protocol, views=1).description.replace("1 cached views", "centre views")
    return ProbeResult("all real images", backbone_name, description, scores)


def nearest_class_mean(
    backbone_name: str, z: torch.Tensor, y: torch.Tensor, evaluation: EvalFeatures, num_classes: int
) -> ProbeResult:
    """Accuracy of the class whose mean real feature is nearest: what matching class means can reach at best."""
    means = class_means(z, y, num_classes)
    scores = evaluation.scores(lambda z: -torch.cdist(z, means)[None], num_classes)
    return ProbeResult("nearest class mean", backbone_name, "no training", scores)


def class_means(z: torch.Tensor, y: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean feature of each class, of shape (C, D)."""
    sums = z.new_zeros(num_classes, z.shape[1], dtype=torch.float32).index_add_(0, y, z.float())
    return sums / torch.bincount(y, minlength=num_classes)[:, None]


def probe_accuracies(
    z: torch.Tensor,
    y: torch.Tensor,
    evaluation: EvalFeatures,
    num_classes: int,
    protocol: ProbeProtocol,
) -> dict[str, list[float]]:
    """Accuracies in percent of one probe per seed; see [`EvalFeatures.scores`].

    Args:
        z (`torch.Tensor`): Shape (seeds, n, views, D), the features each probe is trained on.
        y (`torch.Tensor`): Shape (n,), the images' classes.
        evaluation ([`EvalFeatures`]): What they are scored on.
        num_classes (`int`): C.
        protocol ([`ProbeProtocol`]): How they are trained.
    """
    W, b = train_probes(z.float(), y, num_classes, protocol)
    return evaluation.scores(lambda z: torch.einsum("nd,scd->snc", z, W) + b[:, None], num_classes)


def train_probes(
    z: torch.Tensor, y: torch.Tensor, num_classes: int, protocol: ProbeProtocol
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of shape (seeds, C, D) and biases of shape (seeds, C) of probes trained side by side.

    Their losses are summed, so that each is trained as if it were alone.
    """
    seeds, rows, views, dim = z.shape
    starts = [torch.randn(num_classes, dim, generator=seeded_generator(seed, "probe start")) for seed in range(seeds)]
    W = (0.01 * torch.stack(starts)).to(z).requires_grad_()
    b = z.new_zeros(seeds, num_classes).requires_grad_()
    optimizer = torch.optim.Adam([W, b], lr=protocol.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.steps)
    order = seeded_generator(0, "probe rows")
    for step in range(protocol.steps):
        z_step, y_step = z[:, :, step % views], y
        if rows > _MAX_ROWS:
            drawn = torch.randint(rows, (_MAX_ROWS,), generator=order).to(z.device)
            z_step, y_step = z_step[:, drawn], y[drawn]
        logits = torch.einsum("smd,scd->smc", z_step, W) + b[:, None]
        loss = F.cross_entropy(logits.flatten(0, 1), y_step.repeat(seeds), reduction="sum") / len(y_step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return W.detach(), b.detach()


@torch.no_grad()
def _view_features(
    backbone: FrozenBackbone, images: DistilledSet, num_views: int, views: ViewSettings, seed: int, batch_size: int
) -> torch.Tensor:
    """Features of shape (n, num_views, D)."""
    pixels, features = images.pixels(), []
    images_per_batch = max(1, batch_size // num_views)
    for ids in torch.arange(len(pixels)).split(images_per_batch):
        chunk = pixels[ids].to(backbone.mean)
        crops = random_views(chunk, ids.tolist(), num_views, backbone.image_size, views, seed, 0, "probe views")
        features.append(backbone(crops).float().unflatten(0, (len(ids), num_views)))
    return torch.cat(features)
