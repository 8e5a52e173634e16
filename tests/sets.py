"""Small sets, with names that break what is careless."""

import torch

from hf_lgm import DistilledSet

NASTY = ["a | b", "**bold** <b>", "emoji 🐈", "two\nlines", 'quo"te', "x: y", "#7", "'", "---", " "]


def make_set(n=6, classes=3, size=16, **kwargs):
    pixels = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    names = kwargs.pop("class_names", [f"class {i}" for i in range(classes)])
    return DistilledSet.from_pixels(pixels, [i * classes // n for i in range(n)], names, **kwargs)
