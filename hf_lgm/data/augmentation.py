"""Random views of images: differentiable, batched, a function of (seed, step, image) and of nothing else.

Whatever is drawn for a view is drawn on the CPU and is a few numbers, so that all devices make the same views and none
has to wait: its noise is a window of one long row of normal numbers, which is the same for the whole run.
"""

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..distributed import to_device
from ..randomness import seeded_generator
from ..settings import ViewSettings

# 16 MB, with about four million windows. Two views may share numbers, but at other pixels, where they are independent.
_NORMALS = 2**22


def random_views(
    images: torch.Tensor,
    image_ids: Sequence[int],
    num_views: int,
    size: int,
    settings: ViewSettings,
    seed: int,
    step: int,
    purpose: str = "views",
) -> torch.Tensor:
    """`num_views` random views of every image, of shape (n * num_views, 3, size, size), one image's views together.

    Noise is not clamped, as in the paper. The views of one image depend on `seed`, `step`, `purpose` and its id, never
    on the images beside it.

    Args:
        images (`torch.Tensor`): Shape (n, 3, height, width), values in [0, 1].
        image_ids (`Sequence[int]`): Length n, the images' numbers in the whole set.
        num_views (`int`): Views of each image.
        size (`int`): Side of a view in pixels.
        settings (`ViewSettings`): How views are made.
        seed (`int`): The seed of the run.
        step (`int`): Optimisation step: each one sees other views.
        purpose (`str`, *optional*, defaults to `"views"`): Keeps the views of different uses apart.
    """
    n, channels = images.shape[:2]
    if n == 0:
        return images.new_zeros(0, channels, size, size)
    generators = [seeded_generator(seed, purpose, step, image_id) for image_id in image_ids]
    boxes = torch.stack([_crop_boxes(num_views, settings, g) for g in generators])  # (n, K, 4)
    views = _crop(images, to_device(boxes.to(images.dtype), images.device), size, settings.bounded_crops)
    if settings.noise_std == 0 and settings.noise_mean == 0 or settings.noise_probability == 0:
        return views
    drawn = torch.cat([torch.rand(num_views, 3, generator=g) for g in generators])  # (n * K, 3)
    return _add_noise(views, drawn, settings, seed)


def _crop_boxes(num_views: int, settings: ViewSettings, generator: torch.Generator) -> torch.Tensor:
    """Centres and half sides (x, y, w, h) of shape (num_views, 4), in [-1, 1] coordinates; w < 0 mirrors."""
    area, ratio, x, y, mirror = torch.rand(5, num_views, generator=generator)
    low, high = settings.crop_scale
    area = low + (high - low) * area
    low, high = (math.log(side) for side in settings.crop_ratio)
    ratio = torch.exp(low + (high - low) * ratio)
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    if settings.bounded_crops:
        width, height = width.clamp(max=1), height.clamp(max=1)
    x = (2 * x - 1) * (1 - width)
    y = (2 * y - 1) * (1 - height)
    if settings.flip:
        width = torch.where(mirror < 0.5, -width, width)
    return torch.stack([x, y, width, height], dim=1)


def _crop(images: torch.Tensor, boxes: torch.Tensor, size: int, bounded: bool) -> torch.Tensor:
    """Bilinear crops of shape (n * K, 3, size, size), in one pass over each image; unbounded ones see black beside it.

    The K grids of an image are stacked into one tall grid, so that the image is neither copied K times nor its
    gradient summed over K copies.
    """
    n, num_views = boxes.shape[:2]
    ticks = (torch.arange(size, dtype=images.dtype, device=images.device) * 2 + 1) / size - 1
    x, y, width, height = boxes.unsqueeze(-1).unbind(dim=2)  # (n, K, 1) each
    grid_x = (x + width * ticks)[:, :, None, :].expand(n, num_views, size, size)
    grid_y = (y + height * ticks)[:, :, :, None].expand(n, num_views, size, size)
    grid = torch.stack([grid_x, grid_y], dim=-1).reshape(n, num_views * size, size, 2)
    padding = "border" if bounded else "zeros"
    crops = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    crops = crops.reshape(n, -1, num_views, size, size).transpose(1, 2)
    return crops.reshape(n * num_views, -1, size, size)


def _add_noise(views: torch.Tensor, drawn: torch.Tensor, settings: ViewSettings, seed: int) -> torch.Tensor:
    """Gaussian noise on some of the views, in place; `drawn` (n * K, 3) says of each whether, and which window."""
    is_noisy, place, sign = drawn.unbind(dim=1)
    which = (is_noisy < settings.noise_probability).nonzero()[:, 0]  # on the CPU: no device is waited for
    row = _normal_row(seed, max(_NORMALS, 8 * views[0].numel()), views.dtype, views.device)
    windows = row.unfold(0, views[0].numel(), 1)
    starts = (place[which] * len(windows)).long().clamp(max=len(windows) - 1)
    scale = settings.noise_std * torch.where(sign[which] < 0.5, -1.0, 1.0).to(views.dtype)
    which, starts, scale = (to_device(numbers, views.device) for numbers in (which, starts, scale))
    noise = windows[starts].mul_(scale[:, None]).add_(settings.noise_mean)
    return views.flatten(1).index_add_(0, which, noise).view_as(views)


@functools.lru_cache(maxsize=2)  # views of several sizes share one
def _normal_row(seed: int, length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Normal numbers, so many that windows of them hardly ever meet the same ones at the same pixel."""
    return torch.randn(length, generator=seeded_generator(seed, "noise")).to(device, dtype)
