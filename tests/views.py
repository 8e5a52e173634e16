"""A random view written out a second time, by an affine grid; of ours it takes the random numbers alone."""

import math

import torch
import torch.nn.functional as F

from hf_lgm.data.augmentation import random_views
from hf_lgm.randomness import seeded_generator
from hf_lgm.settings import ViewSettings

PAPER_VIEWS = ViewSettings(bounded_crops=False)


def boxes(num_views, image_id, seed, step, purpose="views", bounded=False):
    """Centres and half sides (x, y, w, h), of shape (K,) each, in float32 as they are drawn; w < 0 mirrors."""
    area, ratio, x, y, mirror = torch.rand(5, num_views, generator=seeded_generator(seed, purpose, step, image_id))
    area = 0.08 + (1 - 0.08) * area
    ratio = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio)
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    if bounded:
        width, height = width.clamp(max=1), height.clamp(max=1)
    x, y = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    return x, y, torch.where(mirror < 0.5, -width, width), height


def written_out(images, image_ids, num_views, size, seed, step, purpose="views", bounded=False):
    """Views as `random_views` gives them, one image after the other."""
    crops = []
    for image, image_id in zip(images, image_ids, strict=True):
        x, y, width, height = (b.to(images) for b in boxes(num_views, image_id, seed, step, purpose, bounded))
        zero = torch.zeros_like(x)
        affine = torch.stack([torch.stack([width, zero, x], dim=1), torch.stack([zero, height, y], dim=1)], dim=1)
        grid = F.affine_grid(affine, [num_views, 3, size, size], align_corners=False)
        padding = "border" if bounded else "zeros"
        pixels = image.expand(num_views, *image.shape)
        crops.append(F.grid_sample(pixels, grid, padding_mode=padding, align_corners=False))
    black = torch.zeros_like(images)  # whose views are nothing but noise
    settings = ViewSettings(bounded_crops=bounded)
    return torch.cat(crops) + random_views(black, image_ids, num_views, size, settings, seed, step, purpose)
