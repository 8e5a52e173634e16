"""Pre-train the demo's two backbones on the digits' train split, without labels (SimCLR, arXiv 2002.05709).

    python scripts/pretrain_demo.py --output_dir demo_backbones

writes `demo-vit` and `demo-convnext` in half precision, each with its image processor and card.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm
from transformers import (
    BitImageProcessorPil,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    HfArgumentParser,
)

from hf_lgm import FrozenBackbone, LabelledImages, ProbeProtocol
from hf_lgm.data.loading import load_splits
from hf_lgm.demo import DEMO_DATASET, SIDE
from hf_lgm.evaluation.probe import probe_logits, train_probes
from hf_lgm.evaluation.scoring import EvalFeatures
from hf_lgm.publishing.card import render_demo_backbone_card
from hf_lgm.publishing.files import CONFIG_FILE, RESULTS_FILE


@dataclass
class Arguments:
    """How the demo's backbones are pre-trained."""

    output_dir: Path = field(default=Path("demo_backbones"), metadata={"help": "Where the two folders go."})
    steps: int = field(default=900, metadata={"help": "Updates."})
    batch_size: int = field(default=256, metadata={"help": "Images per update, two views of each."})
    learning_rate: float = field(default=1e-3, metadata={"help": "AdamW's learning rate."})
    temperature: float = field(default=0.2, metadata={"help": "SimCLR's temperature."})
    seed: int = field(default=0, metadata={"help": "Decides everything random."})


def main() -> None:
    """Pre-train, measure and save both backbones."""
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    splits = load_splits(DEMO_DATASET)
    train, test = (LabelledImages.from_dataset(splits[name]) for name in ("train", "test"))
    pixels = {name: _pixels(images) for name, images in (("train", train), ("test", test))}
    processor = BitImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    for name, build in (("demo-vit", _vit), ("demo-convnext", _convnext)):
        torch.manual_seed(args.seed)
        model = pretrain(build(), pixels["train"], args)
        folder = args.output_dir / name
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        backbone = FrozenBackbone.from_pretrained(str(folder))
        with torch.no_grad():
            z, z_eval = backbone(pixels["train"]), backbone(pixels["test"])
        protocol = ProbeProtocol(learning_rate=1e-2, views=1, seeds=1)
        W, b = train_probes(lambda view, z=z: z[None], train.labels, 10, protocol)
        result = EvalFeatures.of(test, z_eval).result("all real images", name, protocol.training, probe_logits(W, b))
        config = {
            "name": name,
            "architecture": type(model).__name__,
            "parameters": model.num_parameters(),
            "side": SIDE,
            "images": len(train),
            "eval_images": len(test),
            "steps": args.steps,
            "seed": args.seed,
            "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        }
        for file, value in ((CONFIG_FILE, config), (RESULTS_FILE, result.rows())):
            (folder / file).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        card = render_demo_backbone_card(config, result.rows())
        (folder / "README.md").write_text(card, encoding="utf-8")
        print(f"{folder}: probe on all real features {result.mean:.1f} %")


def pretrain(model: nn.Module, images: torch.Tensor, args: Arguments) -> nn.Module:
    """SimCLR: the two views of an image find each other among all views of the batch. Images (N, 3, side, side)."""
    width = model.config.hidden_sizes[-1] if hasattr(model.config, "hidden_sizes") else model.config.hidden_size
    projector = nn.Sequential(nn.Linear(width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64))
    optimizer = torch.optim.AdamW([*model.parameters(), *projector.parameters()], lr=args.learning_rate)
    model.train()
    for _ in tqdm(range(args.steps), desc=type(model).__name__):
        batch = images[torch.randperm(len(images))[: args.batch_size]]
        views = torch.cat([_augment(batch), _augment(batch)])
        h = F.normalize(projector(model((views - 0.5) / 0.5).pooler_output), dim=1)
        similarity = (h @ h.T / args.temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(len(h)).roll(len(batch))
        loss = F.cross_entropy(similarity, partner)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _augment(images: torch.Tensor) -> torch.Tensor:
    """Random rotation, scale, shear, shift, brightness and noise; never a mirror image, which is another digit."""
    n = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n)

    angle, scale, shear = uniform(-0.26, 0.26), uniform(0.75, 1.2), uniform(-0.2, 0.2)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cos, -sin + shear, uniform(-0.3, 0.3)], 1), torch.stack([sin, cos, uniform(-0.3, 0.3)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    brightness = uniform(0.6, 1.4).view(n, 1, 1, 1)
    return moved * brightness + 0.1 * torch.randn_like(moved) * torch.rand(n, 1, 1, 1)


def _pixels(images: LabelledImages) -> torch.Tensor:
    return images.centre_crops(SIDE, resize_ratio=1.0) / 255


def _vit() -> Dinov2Model:
    return Dinov2Model(
        Dinov2Config(image_size=SIDE, patch_size=8, hidden_size=96, num_hidden_layers=4, num_attention_heads=4)
    )


def _convnext() -> ConvNextModel:
    return ConvNextModel(ConvNextConfig(image_size=SIDE, hidden_sizes=[48, 96], depths=[2, 2], num_stages=2))


if __name__ == "__main__":
    main()
