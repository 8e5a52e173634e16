"""The images on the way as a film: a GIF, and an MP4 where its extra is there."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from .files import TIMELAPSE_FILE, VIDEO_FILE

# Optimised images hardly compress: forty frames of so many pixels are about 10 MB as a GIF.
MAX_PIXELS = 320_000
COMMENT = b"hf_lgm"  # says that a GIF is ours
_FPS, _LAST_MS = 10, 2000


def save_timelapse(frames: Sequence[Path], folder: Path) -> list[Path]:
    """Write the frames as `timelapse.gif` and, where imageio-ffmpeg is installed, as `timelapse.mp4`; returns both.

    Each frame has colours of its own, found by an octree: 3 s for fifty frames of 800 x 800 pixels, and by Pillow's
    default, the median cut with dithering, 70 s.

    Args:
        frames (`Sequence[Path]`): Pictures of one size, in their order.
        folder (`Path`): Where to.
    """
    images = [_shrunk(Image.open(frame).convert("RGB")) for frame in frames]
    path = folder / TIMELAPSE_FILE
    first, *others = [image.quantize(method=Image.Quantize.FASTOCTREE) for image in images]
    durations = [1000 // _FPS] * len(others) + [_LAST_MS]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, comment=COMMENT)
    if not has_video():
        return [path]
    from diffusers.utils import export_to_video  # here, since it is slow to load

    held = [images[-1]] * (_LAST_MS * _FPS // 1000 - 1)
    return [path, Path(export_to_video([*images, *held], str(folder / VIDEO_FILE), fps=_FPS, macro_block_size=2))]


def has_video() -> bool:
    """Whether what writes an MP4 is installed."""
    return find_spec("imageio") is not None and find_spec("imageio_ffmpeg") is not None


def is_ours(path: Path) -> bool:
    """Whether a GIF is one that `save_timelapse` wrote."""
    try:
        with Image.open(path) as image:
            return image.info.get("comment") == COMMENT
    except OSError:  # there is none, or it is no image
        return False


def _shrunk(image: Image.Image) -> Image.Image:
    """The image with at most as many pixels as a frame may have, and even sides, which a video needs."""
    factor = min(1.0, math.sqrt(MAX_PIXELS / (image.width * image.height)))
    width, height = (max(2, 2 * round(factor * side / 2)) for side in image.size)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
