"""Each class in each group: how often a set is right there, and the real image that its images are nearest to."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from ..data.images import to_images
from ..data.labelled_images import LabelledImages
from ..evaluation.scoring import subgroup_accuracies


@dataclass(frozen=True)
class GroupAccuracy:
    """One class in one group.

    Args:
        class_name (`str`): The class.
        group (`str`): The group.
        of_set (`float`): Accuracy in percent by probes on the set, the mean over them.
        of_full (`float`): Likewise by the probe on all real images.
        images (`int`): How many real images were scored.
        row (`int`, *optional*): Row of the training split with the real image of this class and group that is most
            similar, by cosine, to the images of the set of this class; `None` where there is none.
        similarity (`float`, *optional*): That cosine.
        image (`PIL.Image.Image`, *optional*): The image itself; `None` where it is not at hand.
    """

    class_name: str
    group: str
    of_set: float
    of_full: float
    images: int
    row: int | None = None
    similarity: float | None = None
    image: Image.Image | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "class": self.class_name,
            "group": self.group,
            "set": round(self.of_set, 2),
            "all_real_images": round(self.of_full, 2),
            "images": self.images,
            "nearest_real_row": self.row,
            "similarity": None if self.similarity is None else round(self.similarity, 4),
        }


def group_accuracies(
    eval_images: LabelledImages,
    of_set: torch.Tensor,
    of_full: torch.Tensor,
    nearest: dict[tuple[str, str], tuple[int, float, Image.Image | None]],
) -> list[GroupAccuracy]:
    """Every pair of class and group that occurs, by class, then group; empty where there are no groups.

    Args:
        eval_images ([`LabelledImages`]): N real images with their groups.
        of_set (`torch.Tensor`): Shape (seeds, N), predictions of probes on the set.
        of_full (`torch.Tensor`): Shape (1, N), those of the probe on all real images.
        nearest (`dict`): What `nearest_in_groups` gives.
    """
    y, groups, names = eval_images.labels, eval_images.groups, eval_images.group_names
    if groups is None or names is None or not (groups >= 0).any():
        return []
    ours, pairs = subgroup_accuracies(of_set == y, y, groups)
    full, _ = subgroup_accuracies(of_full == y, y, groups)
    means = zip(pairs, (100 * ours.mean(dim=0)).tolist(), (100 * full.mean(dim=0)).tolist(), strict=True)
    found = []
    for (label, group), accuracy, accuracy_of_full in means:
        named = eval_images.class_names[label], names[group]
        count = int(((y == label) & (groups == group)).sum())
        found.append(GroupAccuracy(*named, accuracy, accuracy_of_full, count, *nearest.get(named, (None, None, None))))
    return found


def nearest_in_groups(
    train_images: LabelledImages, z: torch.Tensor, z_set: torch.Tensor, y_set: torch.Tensor, size: int
) -> dict[tuple[str, str], tuple[int, float, Image.Image | None]]:
    """For each class and group the real image nearest to the set's: its row, its cosine, and the image if at hand.

    Args:
        train_images ([`LabelledImages`]): N real images with their groups.
        z (`torch.Tensor`): Shape (N, D), their features.
        z_set (`torch.Tensor`): Shape (n, D), features of the set's images.
        y_set (`torch.Tensor`): Shape (n,), their classes.
        size (`int`): Side of the image that comes back.
    """
    if train_images.groups is None or train_images.group_names is None:
        return {}
    z, z_set, found = F.normalize(z.float(), dim=1), F.normalize(z_set.float(), dim=1), {}
    for label, class_name in enumerate(train_images.class_names):
        for group, name in enumerate(train_images.group_names):
            rows = ((train_images.labels == label) & (train_images.groups == group)).nonzero()[:, 0]
            if len(rows) and (y_set == label).any():
                cosines = (z[rows] @ z_set[y_set == label].T).amax(dim=1)
                best = rows[cosines.argmax()]
                image = _image(train_images, best, size)
                found[class_name, name] = int(train_images.rows[best]), float(cosines.max()), image
    return found


def _image(images: LabelledImages, index: torch.Tensor, size: int) -> Image.Image | None:
    """The central square of an image; of a stream only some are kept."""
    one = images.select(index[None]).with_images()
    return to_images(one.centre_crops(size, 1.0) / 255)[0] if len(one) else None
