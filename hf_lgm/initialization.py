"""What synthetic images begin as, where it is not noise: real images, or those of an earlier set."""

from collections.abc import Callable
from dataclasses import replace

import torch

from .backbone import FrozenBackbone
from .baselines import centroid_rows, random_rows, real_image_set
from .data import LabelledImages
from .distilled_set import DistilledSet


def earlier_set(name: str, class_names: list[str], images_per_class: int) -> DistilledSet:
    """The first images of each class of an earlier set, by class.

    Args:
        name (`str`): Its folder or Hub id.
        class_names (`list[str]`): The classes to distil, in their order.
        images_per_class (`int`): How many are needed of each.

    Raises:
        ValueError: If it has other classes, fewer images, or none.
    """
    earlier = DistilledSet.from_pretrained(name)
    if not earlier.has_images:
        raise ValueError(
            f"--init: '{name}' has rows of real images and not the images themselves: give --init centroid or random, "
            "or a set with images."
        )
    y = earlier.labels_as(class_names, f"--init: '{name}' has")
    fewest = int(torch.bincount(y, minlength=len(class_names)).min())
    if fewest < images_per_class:
        raise ValueError(
            f"--init: '{name}' has {fewest} image(s) of a class, and --images_per_class {images_per_class} are to be "
            "distilled: give fewer, or another set."
        )
    rows = torch.cat([(y == label).nonzero()[:images_per_class, 0] for label in range(len(class_names))])
    return replace(earlier, dataset=earlier.dataset.select(rows.tolist()))


def real_pixels(
    init: str,
    images: LabelledImages,
    images_per_class: int,
    owned: range,
    backbone: FrozenBackbone,
    features: Callable[[], torch.Tensor],
    seed: int,
) -> torch.Tensor:
    """Real images to begin with, of shape (len(owned), 3, size, size) with values in [0, 1].

    Args:
        init (`str`): `"random"`, or `"centroid"`: those nearest to their class mean.
        images ([`LabelledImages`]): The real images.
        images_per_class (`int`): How many of each class there are in all, sorted by class.
        owned (`range`): Which of them this process needs.
        backbone ([`FrozenBackbone`]): Says how they are cut.
        features (`Callable`): Gives the real images' features, of shape (N, D).
        seed (`int`): Draws random ones.
    """
    if init == "random":
        rows = random_rows(images.labels, images.num_classes, images_per_class, seed)
    else:
        rows = centroid_rows(features(), images.labels, images.num_classes, images_per_class)
    own, size = rows[owned.start : owned.stop], backbone.preprocessing.synthetic_size
    if len(own) == 0:  # more processes than images
        return torch.empty(0, 3, size, size)
    return real_image_set(images, own, size, backbone.preprocessing.resize_ratio).pixels()
