"""Distil by an objective of your own: here the distance of class means.

python examples/own_objective.py
python examples/own_objective.py --model facebook/dinov2-base --dataset photos/

An objective is a function of features. It gets those of all views of the synthetic images and those of the real ones,
each with .z (N, D), .y (class indices, or distributions over classes) and .weight (N,), which sums to 1; and the
weights W (C, D) of a random probe. It returns a scalar to minimise.
"""

import argparse

import torch
from torch.nn.functional import one_hot

from hf_lgm import LGMConfig, LGMDistiller, load_images
from hf_lgm.distillation.objectives import LabelledFeatures


def class_means(features: LabelledFeatures, num_classes: int) -> torch.Tensor:
    """The weighted mean of the features of each class, of shape (C, D)."""
    y = features.y if features.y.is_floating_point() else one_hot(features.y, num_classes)
    share = y.to(features.z) * features.weight.to(features.z)[:, None]  # (N, C)
    return share.T @ features.z / share.sum(dim=0)[:, None]


def distance_of_means(synthetic: LabelledFeatures, real: LabelledFeatures, W: torch.Tensor) -> torch.Tensor:
    """Squared distance of the class means, in units of the spread of the real ones."""
    wanted = class_means(real, len(W)).to(synthetic.z)
    spread = (wanted - wanted.mean(dim=0)).square().mean()
    return (class_means(synthetic, len(W)) - wanted).square().mean() / spread


def main(argv: list[str] | None = None) -> None:
    """Distil, evaluate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-vit", help="Folder or Hub id.")
    parser.add_argument("--dataset", default="demo-digits", help="Folder of images, or a Hub id.")
    parser.add_argument("--output_dir", default="outputs/own-objective", help="Folder to write.")
    parser.add_argument("--max_steps", type=int, default=300, help="Steps of the optimisation.")
    flags = parser.parse_args(argv)

    train, test = load_images(flags.dataset)
    args = LGMConfig(output_dir=flags.output_dir, max_steps=flags.max_steps, flip="digits" not in flags.dataset)
    distiller = LGMDistiller(flags.model, args, train, test, objective=distance_of_means)
    distiller.train()
    print(distiller.evaluate())
    print(f"Look at: {distiller.save_model()}/preview.png")


if __name__ == "__main__":
    main()
