"""How long the table at the end of a run takes, from a few timed passes over random images and features."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..distillation.planning import MOST_CLASSES, DatasetSize, seconds_of
from .classifiers import HELD_OUT_SHARE, LBFGS_STEPS, WEIGHT_DECAYS, logistic_regression
from .probe import train_probes

# Sets of synthetic size in the table: the distilled one, random real images, central ones.
_SETS = 3

# What is timed: views, epochs of probes, rows of real features, L-BFGS steps. More take as much longer.
_VIEWS, _EPOCHS, _ROWS, _STEPS = 20, 20, 4096, 5


def evaluation_seconds(backbones: Sequence[FrozenBackbone], args: LGMConfig, size: DatasetSize, encoded: int) -> float:
    """Seconds of the table's rows through all backbones on this device; a probe that converges early takes less.

    Args:
        backbones (`Sequence[FrozenBackbone]`): All that the images are scored by.
        args ([`LGMConfig`]): The settings.
        size ([`DatasetSize`]): The real data.
        encoded (`int`): The first backbones, whose features of real images are there from distilling.
    """
    per_backbone = [_column_seconds(backbone, args, size) for backbone in backbones]
    forward = [_forward_seconds(backbone) for backbone in backbones]
    views = _SETS * args.eval_seeds * args.probe_protocol.views * size.num_classes * args.images_per_class
    real = size.num_train + size.num_eval
    return sum(per_backbone) + views * sum(forward) + real * sum(forward[encoded:])


@torch.no_grad()
def _forward_seconds(backbone: FrozenBackbone) -> float:
    """Of one image."""
    pixels = torch.rand(_VIEWS, 3, backbone.image_size, backbone.image_size).to(backbone.mean)
    return seconds_of(lambda: backbone(pixels), backbone.mean.device) / _VIEWS


def _column_seconds(backbone: FrozenBackbone, args: LGMConfig, size: DatasetSize) -> float:
    """The probes on small sets, and the one on all real images, once features are there."""
    device, protocol = backbone.mean.device, args.probe_protocol
    num_classes = min(size.num_classes, MOST_CLASSES)
    more = size.num_classes / num_classes  # classes, each of which has images
    y = torch.arange(num_classes * args.images_per_class, device=device) % num_classes
    z = torch.randn(protocol.seeds, len(y), backbone.dim, device=device)
    few = replace(protocol, epochs=_EPOCHS)
    epochs = seconds_of(functools.partial(train_probes, lambda view: z, y, num_classes, few), device)
    rows = torch.arange(min(_ROWS, size.num_train), device=device)
    real = torch.randn(len(rows), backbone.dim, device=device)
    fit = functools.partial(logistic_regression(real, rows % num_classes, num_classes, _STEPS), WEIGHT_DECAYS[-1])
    fits = len(WEIGHT_DECAYS) * (1 - HELD_OUT_SHARE) + 1  # one of each to choose from, and the chosen one on all
    all_real = fits * seconds_of(fit, device) * LBFGS_STEPS / _STEPS * size.num_train / len(rows)
    return _SETS * epochs * more**2 * protocol.epochs / _EPOCHS + all_real * more
