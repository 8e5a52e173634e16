"""An objective of a user's own: what it is called in files, and whether it is one, on a few random features."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F

from ..backbones.backbone import FrozenBackbone
from ..config import LGMConfig
from ..hub import first_line
from ..randomness import seeded_generator
from ..settings import Objective
from .objectives import LabelledFeatures, ObjectiveFunction, uniform_weights

# Random real features for each class, or each cluster, that it is tried with.
_REAL = 2


def objective_name(objective: Any) -> str:
    """What settings, cards and checkpoints call an objective: the function's name, without its module.

    Raises:
        TypeError: If it is no function.
        ValueError: If it is called as one of ours, from which files could not tell it.
    """
    if isinstance(objective, type) or not callable(objective):
        raise TypeError(
            "Expected as objective a function of (synthetic, real, W), found "
            f"{repr(objective) if isinstance(objective, str) else type(objective).__name__}; the names "
            f"{' and '.join(get_args(Objective))} go into LGMConfig(objective=…)."
        )
    function = getattr(objective, "func", objective)  # of a partial
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if name in get_args(Objective):
        raise ValueError(f"A function called {name} can't be told from LGMConfig(objective='{name}'): rename it.")
    return name


def check_objective(
    objective: ObjectiveFunction, backbones: Sequence[FrozenBackbone], num_classes: int, args: LGMConfig
) -> None:
    """Try an objective in each feature space of each backbone, before any work, on random features.

    Args:
        objective (`Callable`): See [`LGMDistiller`].
        backbones (`Sequence[FrozenBackbone]`): On their device.
        num_classes (`int`): C.
        args ([`LGMConfig`]): Says how many images there are, whether for clusters, and what is learned.

    Raises:
        ValueError: If it fails, gives no finite scalar, or one that does not depend on what is learned.
    """
    name, learned = objective_name(objective), ["synthetic.z"]
    if args.label_learning_rate:
        learned.append("synthetic.y")
    spaces = (space for backbone in backbones for space in _random_spaces(backbone, num_classes, args))
    for synthetic, real, W in spaces:
        wanted = [synthetic.z, synthetic.y][: len(learned)]
        try:
            loss = objective(synthetic, real, W)
            is_scalar = isinstance(loss, torch.Tensor) and loss.ndim == 0 and bool(loss.isfinite())
            depends = is_scalar and loss.requires_grad
            found = torch.autograd.grad(loss, wanted, allow_unused=True) if depends else [None]
        except Exception as error:  # anybody's code may raise anything
            raise ValueError(
                f"The objective {name} fails on random features (synthetic.z of shape {tuple(synthetic.z.shape)}, "
                f"{synthetic.z.dtype}, real.z of {tuple(real.z.shape)}, {real.z.dtype}): {first_line(error)}"
            ) from error
        if not is_scalar:
            shown = f"shape {tuple(loss.shape)}" if getattr(loss, "ndim", 0) else str(loss)
            raise ValueError(f"The objective {name} must return a finite scalar tensor, found {shown}.")
        for what, gradient in zip(learned, found, strict=False):
            if gradient is None:
                advice = "" if what == "synthetic.z" else ", and label_learning_rate asks for learned labels"
                raise ValueError(f"What the objective {name} returns does not depend on {what} by autograd{advice}.")
            if not gradient.isfinite().all():
                raise ValueError(f"The gradient of the objective {name} on {what} is not finite on random features.")


def _random_spaces(
    backbone: FrozenBackbone, num_classes: int, args: LGMConfig
) -> Iterator[tuple[LabelledFeatures, LabelledFeatures, torch.Tensor]]:
    """Random features of each space with a random probe, in the shapes and types of a step's, of one view each."""
    device, single = backbone.mean.device, torch.promote_types(backbone.dtype, torch.float32)
    image = torch.arange(num_classes * args.images_per_class, device=device)
    label, groups = image // args.images_per_class, len(image) if args.has_clusters else num_classes
    for number, width in enumerate(backbone.widths):
        generator = seeded_generator(0, "trial of an objective", number)
        rows = groups * (1 if number else _REAL)  # of layers the means
        z, z_real, W = (torch.randn(n, width, generator=generator).to(device) for n in (len(image), rows, groups))
        y = F.one_hot(label, num_classes).float().requires_grad_(args.label_learning_rate > 0)
        group = torch.arange(rows, device=device) % groups
        of_class, cluster = (group // args.images_per_class, group) if args.has_clusters else (group, None)
        own = image if args.has_clusters else None
        synthetic = LabelledFeatures(z.to(single).requires_grad_(), y, uniform_weights(y), own)
        z_real = z_real.to(single if number else backbone.dtype)
        yield synthetic, LabelledFeatures(z_real, of_class, uniform_weights(group), cluster), W.to(single)
