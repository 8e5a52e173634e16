"""Make the folders of Spawrious, one-to-one, hard, out of its archive, as the benchmark's own loader chooses images.

python scripts/make_spawrious.py --archive spawrious224 --output_dir spawrious-o2o-hard

The archive, https://github.com/aengusl/spawrious (CC BY 4.0), unpacks to spawrious224/{0,1}/<location>/<breed>/. Its
images are linked, not copied. Not run by us on the archive: tested on a small one of the same form.
"""

import argparse
from pathlib import Path

from hf_lgm.cli.parsing import run_command

# Of each breed the background in training, and in test.
BACKGROUNDS = {
    "bulldog": ("jungle", "mountain"),
    "corgi": ("desert", "jungle"),
    "dachshund": ("mountain", "snow"),
    "labrador": ("snow", "desert"),
}
FILLER = "beach"
# Share of images before the breed's own background in the archive's two folders; the rest are before the filler.
SHARES = {"0": 0.97, "1": 0.87}


def images_of(archive: Path, breed: str) -> dict[str, list[Path]]:
    """The images of a breed by split: in training 97 % and 87 % before its background, in test all before another."""
    train, test = BACKGROUNDS[breed]
    chosen: dict[str, list[Path]] = {"train": [], "test": []}
    for folder, share in SHARES.items():
        of_breed = sorted((archive / folder / train / breed).iterdir())
        filler = sorted((archive / folder / FILLER / breed).iterdir())
        count = int(share * len(of_breed))
        chosen["train"] += of_breed[:count] + filler[: len(of_breed) - count]
        chosen["test"] += sorted((archive / folder / test / breed).iterdir())
    return chosen


def main() -> None:
    """Choose, link, say how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, required=True, help="The unpacked spawrious224.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder to make.")
    args = parser.parse_args()
    if not (args.archive / "0" / FILLER).is_dir():
        raise FileNotFoundError(f"--archive: expected 0/{FILLER} in '{args.archive}': name the unpacked spawrious224.")
    for breed in BACKGROUNDS:
        for split, images in images_of(args.archive, breed).items():
            folder = args.output_dir / split / breed
            folder.mkdir(parents=True)
            for image in images:
                part, location = image.parts[-4], image.parts[-3]
                (folder / f"{part}-{location}-{image.name}").symlink_to(image.resolve())
            print(f"{folder}: {len(images):,} images")


if __name__ == "__main__":
    run_command(main)
