"""Whether images are grey, by a sample of them."""

import numpy as np
from PIL import Image

from .labelled_images import LabelledImages

# Images that are looked at, evenly spaced; a coloured one ends the search.
_SAMPLE = 256

# Levels of 255 that red, green and blue of a grey pixel may differ by, where a conversion has rounded.
_TOLERANCE = 2


def are_grey(images: LabelledImages) -> bool:
    """Whether a sample of the images is grey; of a stream, those that are kept. None at all are not.

    Raises:
        UnreadableImage: If one can't be decoded.
    """
    images = images.with_images()
    count = min(len(images), _SAMPLE)
    rows = [number * len(images) // count for number in range(count)]
    return bool(rows) and all(is_grey(images.image(row)) for row in rows)


def is_grey(image: Image.Image) -> bool:
    """Whether red, green and blue of an RGB image are the same everywhere, or nearly so."""
    return bool(np.ptp(np.asarray(image), axis=2).max(initial=0) <= _TOLERANCE)
