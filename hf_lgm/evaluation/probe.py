"""Linear probes: trained on a small set of images, scored on real ones, over seeds."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from ..backbones.backbone import FrozenBackbone
from ..data.augmentation import random_views
from ..publishing.distilled_set import DistilledSet
from ..randomness import seeded_generator
from ..settings import ProbeProtocol, ViewSettings

# Views that are encoded together, as many epochs' worth: those of one block depend on its number alone.
_BLOCK = 50


class ViewFeatures:
    """Features of random views of sets of equal size, one set per seed; encoded and kept a block of views at a time.

    Args:
        backbone ([`FrozenBackbone`]): D features per view.
        sets (`Sequence[DistilledSet]`): Of n images each.
        settings ([`ViewSettings`]): How views are made.
        batch_size (`int`, *optional*, defaults to 64): Views per forward pass.
    """

    def __init__(
        self, backbone: FrozenBackbone, sets: Sequence[DistilledSet], settings: ViewSettings, batch_size: int = 64
    ) -> None:
        self.backbone = backbone
        decoded = {id(images): images.pixels() for images in sets}  # one set may stand for every seed
        self.pixels = [decoded[id(images)] for images in sets]
        self.settings = settings.without_noise()
        self.batch_size = batch_size
        self._block, self._features = -1, torch.empty(0)

    def __call__(self, view: int) -> torch.Tensor:
        """Features of shape (seeds, n, D) of one view of each image."""
        if self._block != view // _BLOCK:
            self._block, self._features = view // _BLOCK, torch.empty(0)  # the old block goes before the new one comes
            encoded = [self._encode(pixels, seed, self._block) for seed, pixels in enumerate(self.pixels)]
            self._features = torch.stack(encoded)
        return self._features[:, :, view % _BLOCK]

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor, seed: int, block: int) -> torch.Tensor:
        """Features of shape (n, _BLOCK, D) of one seed's views."""
        images_per_batch, size, features = max(1, self.batch_size // _BLOCK), self.backbone.image_size, []
        for ids in torch.arange(len(pixels)).split(images_per_batch):
            chunk = pixels[ids].to(self.backbone.mean)
            views = random_views(chunk, ids.tolist(), _BLOCK, size, self.settings, seed, block, "probe views")
            encoded = torch.cat([self.backbone(batch).float() for batch in views.split(self.batch_size)])
            features.append(encoded.unflatten(0, (len(ids), _BLOCK)))
        return torch.cat(features)


def train_probes(
    features: Callable[[int], torch.Tensor], y: torch.Tensor, num_classes: int, protocol: ProbeProtocol
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of shape (seeds, C, D) and biases of shape (seeds, C) of probes trained side by side.

    Their losses are summed, so that each is trained as if it were alone; sets that are larger than a batch are shown
    to each in an order of its own. The learning rate falls once per epoch, as in the paper.

    Args:
        features (`Callable`): From the number of a view to features of shape (seeds, n, D).
        y (`torch.Tensor`): Shape (n,), the images' classes; or (seeds, n, C), a distribution over classes for each.
        num_classes (`int`): C.
        protocol ([`ProbeProtocol`]): How they are trained.
    """
    seeds, n, dim = (z := features(0)).shape
    starts = [torch.randn(num_classes, dim, generator=seeded_generator(seed, "probe start")) for seed in range(seeds)]
    W = (0.01 * torch.stack(starts)).to(z).requires_grad_()
    b = z.new_zeros(seeds, num_classes).requires_grad_()
    targets = y.expand(seeds, n) if y.ndim == 1 else y.to(z)
    optimizer = torch.optim.Adam([W, b], lr=protocol.rate(n))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.epochs)
    for epoch in range(protocol.epochs):
        for z, wanted in _batches(features(epoch % protocol.views), targets, protocol.batch_size, epoch):
            logits = torch.einsum("smd,scd->smc", z, W) + b[:, None]
            loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1), reduction="sum") / logits.shape[1]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        schedule.step()
    return W.detach(), b.detach()


def probe_logits(W: torch.Tensor, b: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Logits of shape (seeds, M, C) of features (M, D), by probes with weights (seeds, C, D) and biases (seeds, C)."""
    return lambda z: torch.einsum("nd,scd->snc", z, W) + b[:, None]


def _batches(
    z: torch.Tensor, targets: torch.Tensor, batch_size: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Features (seeds, m, D) and targets (seeds, m, …) of each step of one epoch, shuffled where they are too many."""
    seeds, n = z.shape[:2]
    if n > batch_size:
        generators = [seeded_generator(seed, "probe rows", epoch) for seed in range(seeds)]
        order = torch.stack([torch.randperm(n, generator=generator) for generator in generators]).to(z.device)
        probe = torch.arange(seeds, device=z.device)[:, None]
        z, targets = z[probe, order], targets[probe, order]
    return zip(z.split(batch_size, dim=1), targets.split(batch_size, dim=1), strict=True)
