"""Make a Transformers checkpoint of MoCo-v3's public ones, which are of a module of their own.

python scripts/convert_mocov3.py --checkpoint vit-b-300ep.pth.tar --output_dir mocov3-vit-base
python scripts/convert_mocov3.py --checkpoint model.safetensors --output_dir mocov3-vit-base
accelerate launch scripts/distill.py --model mocov3-vit-base

The checkpoints are those of https://github.com/facebookresearch/moco-v3 (CC BY-NC 4.0): `vit-s-300ep.pth.tar` and
`vit-b-300ep.pth.tar`; nyu-visionx/moco-v3-vit-b on the Hub holds the encoder of the latter as safetensors. Not run by
us on these: tested with small ones of the same form, against the forward pass written out.
"""

import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BitImageProcessorPil, ViTConfig, ViTModel

from hf_lgm.cli.parsing import run_command

# The encoder within the pre-training module, within a linear probe's, and alone.
PREFIXES = ("module.base_encoder.", "module.", "")
HEADS = 12  # of the small one too, unlike other ViTs of its size

RENAMED = {
    r"cls_token": "embeddings.cls_token",
    r"pos_embed": "embeddings.position_embeddings",
    r"patch_embed\.proj\.(weight|bias)": r"embeddings.patch_embeddings.projection.\1",
    r"blocks\.(\d+)\.norm1\.(weight|bias)": r"layers.\1.layernorm_before.\2",
    r"blocks\.(\d+)\.norm2\.(weight|bias)": r"layers.\1.layernorm_after.\2",
    r"blocks\.(\d+)\.attn\.([qkv])\.(weight|bias)": r"layers.\1.attention.\2_proj.\3",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)": r"layers.\1.attention.o_proj.\2",
    r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
    r"norm\.(weight|bias)": r"layernorm.\1",
}
CARD = """---
license: cc-by-nc-4.0
library_name: transformers
tags: [self-supervised-learning, moco-v3]
---

The momentum-contrast encoder of [MoCo-v3](https://github.com/facebookresearch/moco-v3), `{checkpoint}`, converted to
`ViTModel` without pooler: the feature of an image is the class token.
"""


def convert(state_dict: dict[str, torch.Tensor], num_heads: int = HEADS) -> ViTModel:
    """The encoder as a `ViTModel` without pooler; its sine-cosine positions are those of the checkpoint.

    Args:
        state_dict (`dict[str, torch.Tensor]`): Of the pre-training module, with its two encoders and its predictor.
        num_heads (`int`, *optional*, defaults to 12): Attention heads, which the weights do not tell.

    Raises:
        ValueError: If it is something else, or of a variant with a convolutional stem.
    """
    encoder = _encoder(state_dict)
    weights = {}
    for name, tensor in encoder.items():
        for part, piece in _query_key_value(name, tensor):
            pattern = next((pattern for pattern in RENAMED if re.fullmatch(pattern, part)), None)
            if pattern is None:
                raise ValueError(f"Expected the ViT of MoCo-v3, found a parameter '{name}', which it does not have.")
            weights[re.sub(pattern, RENAMED[pattern], part)] = piece
    hidden, channels, patch, _ = encoder["patch_embed.proj.weight"].shape
    tokens = encoder["pos_embed"].shape[1] - 1
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=sum(name.endswith("norm1.weight") for name in encoder),
        num_attention_heads=num_heads,
        intermediate_size=len(encoder["blocks.0.mlp.fc1.bias"]),
        layer_norm_eps=1e-6,
        image_size=patch * round(tokens**0.5),
        patch_size=patch,
        num_channels=channels,
    )
    model = ViTModel(config, add_pooling_layer=False).to(encoder["pos_embed"].dtype)
    model.load_state_dict(weights)  # all of them and no others
    return model.eval()


def _encoder(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The base encoder's parameters under its own names, without its projection head."""
    for prefix in PREFIXES:
        encoder = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        encoder = {name: tensor for name, tensor in encoder.items() if not name.startswith("head.")}
        if "patch_embed.proj.0.weight" in encoder:
            raise ValueError("This variant has a convolutional stem, which ViTModel has not: use vit-s or vit-b.")
        if "patch_embed.proj.weight" in encoder:
            return encoder
    raise ValueError(
        f"Expected the ViT of MoCo-v3 under one of {', '.join(filter(None, PREFIXES))}; found parameters such as "
        f"{', '.join(list(state_dict)[:3])}."
    )


def _query_key_value(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """One parameter for each of the three that stand in one."""
    if ".attn.qkv." not in name:
        return [(name, tensor)]
    return [(name.replace("qkv", part), piece) for part, piece in zip("qkv", tensor.chunk(3), strict=True)]


def read(path: Path) -> dict[str, torch.Tensor]:
    """The parameters in a checkpoint, pickled or as safetensors."""
    if path.suffix == ".safetensors":
        return load_file(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint.get("state_dict", checkpoint)


def main() -> None:
    """Read, convert, write a folder with weights, image processor and card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="A .pth.tar of MoCo-v3, or .safetensors.")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder to write.")
    parser.add_argument("--num_attention_heads", type=int, default=HEADS, help="12 in both of the public ones.")
    args = parser.parse_args()
    if not args.checkpoint.is_file():
        raise FileNotFoundError(f"--checkpoint: there is no file '{args.checkpoint}'.")
    model = convert(read(args.checkpoint), args.num_attention_heads)
    side = model.config.image_size
    model.save_pretrained(args.output_dir)
    BitImageProcessorPil(  # as the repository evaluates: the shorter side to 256, then the centre's 224
        size={"shortest_edge": side * 256 // 224}, crop_size={"height": side, "width": side},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(args.output_dir)  # fmt: skip
    (args.output_dir / "README.md").write_text(CARD.format(checkpoint=args.checkpoint.name), encoding="utf-8")
    print(f"{args.output_dir}: ViTModel, {model.num_parameters():,} parameters, {side} pixels")
    print(f"Next: accelerate launch scripts/distill.py --model {args.output_dir}")


if __name__ == "__main__":
    run_command(main)
