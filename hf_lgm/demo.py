"""The built-in demo: handwritten digits and two small backbones that were pre-trained on them without labels."""

from importlib.resources import files
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as PILImage

DEMO_DATASET = "demo-digits"
DEMO_MODELS = ("demo-vit", "demo-convnext")
DEMO_LICENSE = "cc-by-4.0"  # UCI, "Optical Recognition of Handwritten Digits"
SIDE = 32
_TEST_SHARE = 0.25


def demo_folder(name: str) -> Path | None:
    """The folder of a demo backbone, or `None` if it is not the name of one."""
    return Path(str(files("hf_lgm") / "demo_backbones" / name)) if name in DEMO_MODELS else None


def load_digits_images() -> DatasetDict:
    """scikit-learn's copy of the UCI handwritten digits (CC BY 4.0): 8 x 8 pixels, enlarged to 32 x 32, two splits."""
    from sklearn.datasets import load_digits  # only needed here, and slow to import
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.target))
    train, test = train_test_split(rows, test_size=_TEST_SHARE, random_state=0, stratify=digits.target)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    splits = {}
    for name, chosen in (("train", train), ("test", test)):
        pictures = [_enlarged(digits.images[row]) for row in chosen]
        columns = {"image": pictures, "label": digits.target[chosen].tolist()}
        splits[name] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def _enlarged(digit: np.ndarray) -> PILImage.Image:
    """A digit with values 0 … 16 as an 8-bit RGB picture."""
    grey = PILImage.fromarray((digit * 255 / 16).round().astype(np.uint8))
    return grey.resize((SIDE, SIDE), PILImage.Resampling.BICUBIC).convert("RGB")
