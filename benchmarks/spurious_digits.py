"""Digits on coloured backgrounds that give the class away in training, and mislead in half of the test images.

python benchmarks/spurious_digits.py --output_dir spurious-digits
python scripts/distill.py --model demo-vit --eval_models demo-convnext --dataset spurious-digits \
    --group_column_name background --flip false --crop_scale 0.3 1
"""

import argparse

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as PILImage

from hf_lgm.demo import load_digits_images

GROUPS = ["of its class", "of another class"]
# Ten colours of equal brightness, as far from each other as hues allow.
COLOURS = np.array(
    [PILImage.new("HSV", (1, 1), (255 * i // 10, 200, 170)).convert("RGB").getpixel((0, 0)) for i in range(10)]
)


def coloured(split: Dataset, misleading: float, seed: int) -> Dataset:
    """The digits in white on a background; a share of them on that of another class.

    Args:
        split (`datasets.Dataset`): Grey digits with their labels.
        misleading (`float`): The share.
        seed (`int`): Draws them, and the other classes.
    """
    generator = np.random.default_rng(seed)
    labels = np.array(split["label"][:])
    groups = (generator.random(len(labels)) < misleading).astype(int)
    backgrounds = (labels + groups * generator.integers(1, 10, len(labels))) % 10
    pictures = []
    for digit, background in zip(split["image"][:], backgrounds, strict=True):
        ink = np.asarray(digit.convert("L"))[..., None] / 255
        pixels = 255 * ink + COLOURS[background] * (1 - ink)
        pictures.append(PILImage.fromarray(pixels.round().astype(np.uint8)))
    features = Features({"image": Image(), "label": split.features["label"], "background": ClassLabel(names=GROUPS)})
    return Dataset.from_dict({"image": pictures, "label": labels, "background": groups}, features=features)


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="spurious-digits")
    parser.add_argument("--misleading", type=float, default=0.05, help="share of the training images")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    digits = load_digits_images()
    splits = {
        "train": coloured(digits["train"], args.misleading, args.seed),
        "test": coloured(digits["test"], 0.5, args.seed + 1),
    }
    DatasetDict(splits).save_to_disk(args.output_dir)
    print(f"Next: --dataset {args.output_dir} --group_column_name background, as above")


if __name__ == "__main__":
    main()
