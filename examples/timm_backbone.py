"""Distil a folder of images through a model of timm.

pip install -e ".[timm]"
python examples/timm_backbone.py --model resnet50.a1_in1k --dataset photos/ --output_dir photos-resnet50

The folder has one folder per class, below train and test where there are two splits.
"""

import argparse

import timm

from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing, load_images


def load_backbone(name: str) -> FrozenBackbone:
    """A model of timm, and what timm itself says of its input."""
    model = timm.create_model(name, pretrained=True, num_classes=0)  # features in place of logits
    data = timm.data.resolve_model_data_config(model)
    preprocessing = Preprocessing(
        image_size=data["input_size"][-1],
        mean=data["mean"],
        std=data["std"],
        resize_ratio=1 / data["crop_pct"],
        resample=data["interpolation"],
    )
    return FrozenBackbone(model, preprocessing, name=name)


def main(argv: list[str] | None = None) -> None:
    """Distil, evaluate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50.a1_in1k", help="A name of timm's.")
    parser.add_argument("--dataset", required=True, help="Folder of images, or a Hub id.")
    parser.add_argument("--output_dir", default="outputs/timm", help="Folder to write.")
    parser.add_argument("--max_steps", type=int, default=300, help="Steps of the optimisation.")
    flags = parser.parse_args(argv)

    train, test = load_images(flags.dataset)
    args = LGMConfig(output_dir=flags.output_dir, max_steps=flags.max_steps)
    distiller = LGMDistiller(load_backbone(flags.model), args, train, test)
    distiller.train()
    print(distiller.evaluate())
    print(f"Look at: {distiller.save_model()}/preview.png")


if __name__ == "__main__":
    main()
