"""The built-in demo: handwritten digits and two small backbones that were pre-trained on them without labels."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from datasets import DatasetDict
    from PIL import Image

DEMO_DATASET = "demo-digits"
DEMO_MODELS = ("demo-vit", "demo-convnext")
DEMO_LICENSE = "cc-by-4.0"  # UCI, "Optical Recognition of Handwritten Digits"
SIDE = 32
_TEST_SHARE = 0.25


def demo_folder(name: str) -> Path | None:
    """The folder of a demo backbone, or `None` if it is not the name of one."""
    return Path(str(files("hf_lgm.demo") / name)) if name in DEMO_MODELS else None


def load_digits_images() -> "DatasetDict":
    """scikit-learn's copy of the UCI handwritten digits (CC BY 4.0): 8 x 8 pixels, enlarged to 32 x 32, two splits."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train, test = train_test_split(
        range(len(digits.target)), test_size=_TEST_SHARE, random_state=0, stratify=digits.target
    )
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    splits = {}
    for name, chosen in (("train", train), ("test", test)):
        columns = {"image": [_enlarged(digits.images[row]) for row in chosen], "label": digits.target[chosen].tolist()}
        splits[name] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def _enlarged(digit: "np.ndarray") -> "Image.Image":
    """A digit with values 0 … 16 as an 8-bit RGB image."""
    from PIL import Image

    grey = Image.fromarray((digit * 255 / 16).round().astype("uint8"))
    return grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
