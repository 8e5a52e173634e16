"""Distil one set for two backbones, and compare it on both with as many real images.

python examples/several_backbones.py --model demo-vit demo-convnext --dataset demo-digits
python examples/several_backbones.py --model facebook/dinov2-base openai/clip-vit-base-patch16 --dataset photos/
"""

import argparse

from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, compare, load_images


def main(argv: list[str] | None = None) -> None:
    """Distil, compare, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["demo-vit", "demo-convnext"], help="Folders or Hub ids.")
    parser.add_argument("--dataset", default="demo-digits", help="Folder of images, or a Hub id.")
    parser.add_argument("--output_dir", default="outputs/several", help="Folder to write.")
    parser.add_argument("--max_steps", type=int, default=300, help="Steps of the optimisation.")
    flags = parser.parse_args(argv)

    train, test = load_images(flags.dataset)
    backbones = [FrozenBackbone.from_pretrained(name) for name in flags.model]
    args = LGMConfig(output_dir=flags.output_dir, max_steps=flags.max_steps, flip="digits" not in flags.dataset)
    distiller = LGMDistiller(backbones, args, train, test)
    distiller.train()
    distiller.save_model()

    comparison = compare({"for both": distiller.distilled_set()}, backbones, train, test, references=[])
    print(comparison.table())


if __name__ == "__main__":
    main()
