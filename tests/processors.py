"""Every image processor of the installed Transformers: what is read of it, and how far ours is from its own output.

`test_processors.py` checks it, and that `python tests/processors.py > docs/processors.md` would change nothing.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image

from hf_lgm import Preprocessing
from hf_lgm.data.images import centre_crop, to_tensor

# An output that has another shape than ours: it is not cropped there.
OTHER_SHAPE = "another shape"


@dataclass(frozen=True)
class Row:
    """What is known of one processor.

    Args:
        name (`str`): Its class, without the backend.
        read ([`Preprocessing`], *optional*): What was read; `None` where it is refused.
        refused (`str`, *optional*): Why.
        own_side (`float`, *optional*): Largest difference for an image of the side that was read.
        square (`float` or `str`, *optional*): For a larger square image, through its own resize and crop too.
        oblong (`float` or `str`, *optional*): For one of three to two.
    """

    name: str
    read: Preprocessing | None = None
    refused: str = ""
    own_side: float | None = None
    square: float | str | None = None
    oblong: float | str | None = None


def noise(width: int, height: int) -> Image.Image:
    """An image in which every filter and every shift shows."""
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def ours(read: Preprocessing, image: Image.Image) -> torch.Tensor:
    """What reaches the model here, of shape (1, 3, side, side)."""
    mean, std = read.statistics()
    return (read.channels_of(to_tensor(centre_crop(image, *read.geometry))[None] / 255) - mean) / std


def theirs(processor: Any, image: Image.Image, **flags: bool) -> torch.Tensor:
    """What the processor makes of it; patches are put together again."""
    given = processor(images=[image], return_tensors="pt", **flags)["pixel_values"]
    if given.ndim == 3:  # SigLIP 2
        p, side = processor.patch_size, processor.patch_size * round(given.shape[1] ** 0.5)
        given = torch.nn.functional.fold(
            given.unflatten(2, (p * p, 3)).permute(0, 3, 2, 1).flatten(1, 2), (side, side), p, stride=p
        )
    return given


def difference(processor: Any, read: Preprocessing, image: Image.Image, **flags: bool) -> float | str:
    """The largest difference of two outputs, as a share of the largest value."""
    try:
        given = theirs(processor, image, **flags)
    except (ValueError, RuntimeError):
        return OTHER_SHAPE
    wanted = ours(read, image)
    return float((given - wanted).abs().max() / wanted.abs().max()) if given.shape == wanted.shape else OTHER_SHAPE


def row(name: str) -> Row:
    """What is known of the processor of that class."""
    processor = getattr(tf, name)()
    name = name.removesuffix("Pil")
    try:
        read = Preprocessing.from_processor(processor)
    except ValueError as error:
        return Row(name, refused=str(error).partition("(")[2].partition("). Pass")[0])
    side = read.image_size
    as_they_are = {flag: False for flag in ("do_resize", "do_center_crop") if flag in processor.to_dict()}
    own = difference(processor, replace(read, resize_ratio=1.0), noise(side, side), **as_they_are)
    square = difference(processor, read, noise(side + side // 3, side + side // 3))
    return Row(name, read, "", float(own), square, difference(processor, read, noise(side * 3 // 2, side)))


def names() -> list[str]:
    """Image processors that work without torchvision."""
    others = [kinds["pil"] for kinds in _mapping().values() if "pil" in kinds and not kinds["pil"].endswith("Pil")]
    found = {name for name in dir(tf) if name.endswith("ImageProcessorPil")} | set(others)
    return sorted(filter(_works, found - {"TimmWrapperImageProcessor"}))  # is read from its configuration


def _works(name: str) -> bool:
    """Whether the class can be made without torchvision, whatever its name says."""
    try:
        getattr(tf, name)()
    except ImportError:  # HunYuanVL's until Transformers 5.22
        return False
    return True


def _mapping() -> dict[str, dict[str, str]]:
    return tf.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES


@functools.cache
def rows() -> list[Row]:
    """One for each."""
    return [row(name) for name in names()]


def page() -> str:
    """The page of the documentation that this table is."""
    head = ["processor", "side", "resize", "filter", "mean", "std", "own side", "larger square", "3 : 2"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in (r for r in rows() if r.read):
        p = r.read
        mean, std = (" ".join(f"{value:.4g}" for value in dict.fromkeys(values)) for values in (p.mean, p.std))
        cells = [p.image_size, f"{p.resize_ratio:.3g}", p.resample, mean + (", BGR" if p.flip_channels else ""), std]
        shown = [_shown(value) for value in (r.own_side, r.square, r.oblong)]
        lines.append(f"| {r.name} | {' | '.join(map(str, [*cells, *shown]))} |")
    refused = [f"- {r.name}: {r.refused}" for r in rows() if not r.read]
    counts = {"read": len(lines) - 2, "refused_count": len(refused), "version": tf.__version__}
    return PAGE.format(table="\n".join(lines), refused="\n".join(refused), **counts)


def _shown(value: Any) -> str:
    return "no" if value == OTHER_SHAPE or value > 1e-4 else "0" if value == 0 else f"{value:.0e}"


PAGE = """# Image processors

<!-- Written by `python tests/processors.py > docs/processors.md`; a test keeps it true. -->

What is read of each image processor of Transformers {version} that works without torchvision, with the defaults of its
class, and how far what reaches the model is from what the processor itself gives. {read} are read.

*Mean* and *std* are for values in [0, 1], rescaling, offset and whatever is done twice included; one number stands for
all channels. *Resize* is what the shortest side is resized to, in sides, before the centre crop. The last columns are
the largest difference of values, as a share of the largest, for noise: of an image of the side that is read, of a
larger square one through the processor's own resize and crop, and of one of three to two. "no" is said where the
processor squashes, pads or keeps the shape: here the shortest side is resized, and the middle cropped.

{table}

Classes that need torchvision are asked where that is installed. Where it is not, those of DINOv3, SAM 2, SAM 3,
TIPS v2 and Sapiens 2 are read from their file, and the others are refused by name: some do more than theirs says,
such as PP-LCNet's, which swaps red and blue. With torchvision 0.28 the five differed by 3e-7 at most for images of
their own side, and by up to 0.8 % for larger square ones, which they resize in floating point where Pillow rounds
to 8 bits.

## Refused

These {refused_count} are no mean, standard deviation, resize and crop of a square image, and are refused by name,
before any work; a model that is given live, with a `Preprocessing`, needs no processor.

{refused}
"""

if __name__ == "__main__":
    tf.logging.set_verbosity_error()
    print(page(), end="")  # noqa: T201
