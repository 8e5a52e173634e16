"""The vision architectures that the tests build, and what is true of each.

Every row is a tiny model with random weights; `test_architectures.py` checks what it says, and that
`python tests/architectures.py > docs/backbones.md` would change nothing.
"""
# ruff: noqa: E501  (a table)

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import transformers as tf
from torch import nn

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.backbones.architectures import call_model

SIDE = 32
ANY, INTERPOLATED, FIXED = "any", "any, positions interpolated", "fixed"

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**SMALL, "image_size": SIDE, "patch_size": 8}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SWIN = {"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
RESNET = {**STAGES, "embedding_size": 8, "layer_type": "basic"}
FOUR = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SAM2 = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "image_size": [SIDE, SIDE],
    "blocks_per_stage": [1, 2, 3, 2], "embed_dim_per_stage": [8, 16, 32, 64], "global_attention_blocks": [5],
    "num_attention_heads_per_stage": [1, 1, 2, 2],
}  # fmt: skip
HIERA = {
    "embed_dim": 16, "image_size": [SIDE, SIDE], "depths": [1, 1], "num_heads": [1, 2],
    "query_stride": [2, 2], "masked_unit_size": [2, 2], "masked_unit_attention": [True, False],
    "embed_dim_multiplier": 2.0, "num_query_pool": 1,
}  # fmt: skip


# Models whose blocks have fewer positions further on, and those that show none of them.
OF_STAGES = (
    "DINOv3 ConvNeXt", "ALIGN", "GroupViT vision", "SAM 2 vision", "Swin", "Swin v2", "Donut Swin", "Hiera", "PVT",
    "PVT v2", "CvT", "LeViT", "Segformer", "SwiftFormer", "PoolFormer", "FocalNet", "ConvNeXt", "ConvNeXt v2", "ResNet",
    "RegNet", "BiT", "MobileNet v1", "MobileNet v2", "MobileViT", "MobileViT v2", "EfficientNet", "TextNet",
    "timm: CLIP ResNet", "timm: ResNet",
)  # fmt: skip
WITHOUT_LAYERS = ("MaskFormer Swin",)


@dataclass(frozen=True)
class Architecture:
    """One row: how to build it, and what its features are.

    Args:
        name (`str`): What tables call it.
        config (`Callable`): Makes a tiny configuration.
        pooling (`str`): What the model's outputs ask for.
        feature_size (`str`): Where its configuration says the feature size; or the number for the tiny model.
        side (`str`): Whether it takes images of another side than its configuration's.
        model_class (`str`, *optional*): Its class, where `AutoModel` does not know the type.
    """

    name: str
    config: Callable[[], tf.PreTrainedConfig]
    pooling: Literal["cls", "pooler", "mean", "gap", "projection"]
    feature_size: str
    side: str = ANY
    model_class: str | None = None

    def build(self) -> nn.Module:
        """The tiny model, with random weights from one seed and batch norms that have seen data."""
        torch.manual_seed(0)
        config = self.config()
        model = getattr(tf, self.model_class)(config) if self.model_class else tf.AutoModel.from_config(config)
        return with_live_statistics(model)

    @property
    def class_name(self) -> str:
        """What `AutoModel` makes of the configuration."""
        return self.model_class or tf.AutoModel._model_mapping[type(self.config())].__name__

    @property
    def layers(self) -> str:
        """What `--layers` takes of it."""
        return "none" if self.name in WITHOUT_LAYERS else "stages" if self.name in OF_STAGES else "depths"

    @property
    def needs_timm(self) -> bool:
        """Whether it is built by timm."""
        return self.class_name == "TimmWrapperModel"


def with_live_statistics(model: nn.Module) -> nn.Module:
    """A random model whose signal does not die out, as it does with statistics of 0 and 1 and small weights."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and norms:
            nn.init.kaiming_normal_(module.weight)
    for norm in norms:
        norm.momentum = None  # the mean over all batches
        nn.init.ones_(norm.weight)
    if norms:
        with torch.no_grad():
            call_model(model.train(), torch.rand(8, 3, SIDE, SIDE))
    return model.eval()


def _dual(kind: str, projected: dict | None = None, **vision: object) -> Callable[[], tf.PreTrainedConfig]:
    def make() -> tf.PreTrainedConfig:
        return getattr(tf, kind)(text_config=TEXT, vision_config={**VIT, **vision}, **(projected or {}))

    return make


def _config(kind: str, *parts: dict, **settings: object) -> Callable[[], tf.PreTrainedConfig]:
    def make() -> tf.PreTrainedConfig:
        merged = {key: value for part in (*parts, settings) for key, value in part.items()}
        return getattr(tf, kind)(**merged)

    return make


def _timm(architecture: str, **model_args: object) -> Callable[[], tf.PreTrainedConfig]:
    return lambda: tf.TimmWrapperConfig(architecture=architecture, model_args=model_args)


PROJECTED = {"projection_dim": 16}
# fmt: off
ARCHITECTURES = [
    Architecture("DINOv2", _config("Dinov2Config", PLAIN), "pooler", "hidden_size"),
    Architecture("DINOv2 with registers", _config("Dinov2WithRegistersConfig", PLAIN), "pooler", "hidden_size"),
    Architecture("DINOv3 ViT", _config("DINOv3ViTConfig", VIT, num_register_tokens=4), "pooler", "hidden_size"),
    Architecture("DINOv3 ConvNeXt", _config("DINOv3ConvNextConfig", STAGES, image_size=SIDE), "pooler", "hidden_sizes[-1]"),
    Architecture("ViT", _config("ViTConfig", VIT), "cls", "hidden_size", INTERPOLATED),
    Architecture("ViT-MAE", _config("ViTMAEConfig", VIT), "cls", "hidden_size", INTERPOLATED),
    Architecture("ViT-MSN", _config("ViTMSNConfig", VIT), "cls", "hidden_size", INTERPOLATED),
    Architecture("DeiT", _config("DeiTConfig", VIT), "cls", "hidden_size", INTERPOLATED),
    Architecture("I-JEPA", _config("IJepaConfig", VIT), "mean", "hidden_size", INTERPOLATED),
    Architecture("BEiT", _config("BeitConfig", VIT), "pooler", "hidden_size"),
    Architecture("Data2Vec", _config("Data2VecVisionConfig", VIT), "cls", "hidden_size"),
    Architecture("Pixio", _config("PixioConfig", VIT), "pooler", "hidden_size"),
    Architecture("Sapiens 2", _config("Sapiens2Config", VIT), "pooler", "hidden_size"),
    Architecture("DPT", _config("DPTConfig", VIT, backbone_out_indices=[0, 1], is_hybrid=False), "cls", "hidden_size"),
    Architecture("ViTDet", _config("VitDetConfig", PLAIN), "gap", "hidden_size"),
    Architecture("MLCD", _config("MLCDVisionConfig", VIT), "pooler", "hidden_size"),
    Architecture("InternVL vision", _config("InternVLVisionConfig", VIT), "cls", "hidden_size"),
    Architecture("TIPS v2 vision", _config("Tipsv2VisionConfig", VIT), "pooler", "hidden_size"),
    Architecture("CLIP", _dual("CLIPConfig", PROJECTED), "projection", "projection_dim", INTERPOLATED),
    Architecture("CLIP vision", _config("CLIPVisionConfig", VIT), "pooler", "hidden_size", INTERPOLATED),
    Architecture("CLIP vision with projection", _config("CLIPVisionConfig", VIT, PROJECTED), "projection", "projection_dim", INTERPOLATED, "CLIPVisionModelWithProjection"),
    Architecture("MetaCLIP 2", _dual("MetaClip2Config", PROJECTED), "projection", "projection_dim", INTERPOLATED),
    Architecture("AltCLIP", _dual("AltCLIPConfig", PROJECTED), "projection", "projection_dim", INTERPOLATED),
    Architecture("Chinese CLIP vision", _config("ChineseCLIPVisionConfig", VIT), "pooler", "hidden_size", INTERPOLATED),
    Architecture("SigLIP", _dual("SiglipConfig"), "projection", "vision_config.hidden_size", INTERPOLATED),
    Architecture("SigLIP vision", _config("SiglipVisionConfig", VIT), "pooler", "hidden_size", INTERPOLATED),
    Architecture("SigLIP 2", _dual("Siglip2Config", num_patches=16), "projection", "vision_config.hidden_size"),
    Architecture("SigLIP 2 vision", _config("Siglip2VisionConfig", SMALL, patch_size=8, num_patches=16), "pooler", "hidden_size"),
    Architecture("AIMv2", _dual("Aimv2Config", PROJECTED), "projection", "projection_dim", FIXED),
    Architecture("AIMv2 vision", _config("Aimv2VisionConfig", VIT), "pooler", "hidden_size", FIXED),
    Architecture("ALIGN", lambda: tf.AlignConfig(text_config=TEXT, vision_config={"image_size": SIDE, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 80}, projection_dim=16), "projection", "vision_config.hidden_dim"),
    Architecture("Chinese CLIP", _dual("ChineseCLIPConfig", PROJECTED), "projection", "projection_dim", INTERPOLATED),
    Architecture("CLIPSeg", _dual("CLIPSegConfig", PROJECTED), "projection", "projection_dim", INTERPOLATED),
    Architecture("OWL-ViT", _dual("OwlViTConfig", PROJECTED), "projection", "projection_dim", INTERPOLATED),
    Architecture("BLIP vision", _config("BlipVisionConfig", VIT, initializer_range=0.02), "pooler", "hidden_size", INTERPOLATED, "BlipVisionModel"),
    Architecture("FLAVA image", _config("FlavaImageConfig", VIT), "cls", "hidden_size", INTERPOLATED, "FlavaImageModel"),
    Architecture("GroupViT vision", _config("GroupViTVisionConfig", SMALL, image_size=SIDE, patch_size=8, depths=[1, 1, 1], num_group_tokens=[8, 4, 0], num_output_groups=[8, 4, 0]), "pooler", "hidden_size", FIXED, "GroupViTVisionModel"),
    Architecture("SAM vision", _config("SamVisionConfig", PLAIN, output_channels=16, window_size=2, global_attn_indexes=[1], mlp_dim=64, initializer_range=0.02), "gap", "output_channels", FIXED),
    Architecture("SAM-HQ vision", _config("SamHQVisionConfig", PLAIN, output_channels=16, window_size=2, global_attn_indexes=[1], mlp_dim=64, initializer_range=0.02), "gap", "output_channels", FIXED),
    Architecture("SAM 3 ViT", _config("Sam3ViTConfig", VIT, window_size=2, global_attn_indexes=[1], pretrain_image_size=SIDE), "mean", "hidden_size", FIXED),
    Architecture("SAM 2 vision", _config("Sam2VisionConfig", backbone_config=SAM2, backbone_channel_list=[64, 32, 16, 8]), "gap", "backbone_config.embed_dim_per_stage[-1]"),
    Architecture("Swin", _config("SwinConfig", SWIN), "pooler", "hidden_size"),
    Architecture("Swin v2", _config("Swinv2Config", SWIN), "pooler", "hidden_size"),
    Architecture("Donut Swin", _config("DonutSwinConfig", SWIN), "pooler", "hidden_size"),
    Architecture("MaskFormer Swin", _config("MaskFormerSwinConfig", SWIN), "pooler", "hidden_size"),
    Architecture("Hiera", _config("HieraConfig", HIERA), "pooler", "hidden_size", INTERPOLATED),
    Architecture("PVT", _config("PvtConfig", FOUR, image_size=SIDE, num_attention_heads=[1, 1, 2, 2], sequence_reduction_ratios=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2]), "cls", "hidden_sizes[-1]", FIXED),
    Architecture("PVT v2", _config("PvtV2Config", FOUR, image_size=SIDE, num_attention_heads=[1, 1, 2, 2], mlp_ratios=[2, 2, 2, 2]), "gap", "hidden_sizes[-1]"),
    Architecture("CvT", _config("CvtConfig", embed_dim=[8, 8, 16], num_heads=[1, 2, 2], depth=[1, 2, 3]), "cls", "embed_dim[-1]"),
    Architecture("LeViT", _config("LevitConfig", image_size=SIDE, hidden_sizes=[16, 16, 16], num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8]), "pooler", "hidden_sizes[-1]", FIXED),
    Architecture("Segformer", _config("SegformerConfig", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]), "gap", "hidden_sizes[-1]"),
    Architecture("SwiftFormer", _config("SwiftFormerConfig", embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1]), "gap", "embed_dims[-1]"),
    Architecture("PoolFormer", _config("PoolFormerConfig", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]), "gap", "hidden_sizes[-1]"),
    Architecture("FocalNet", _config("FocalNetConfig", image_size=SIDE, embed_dim=8, hidden_sizes=[8, 16], depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3]), "pooler", "hidden_sizes[-1]"),
    Architecture("ConvNeXt", _config("ConvNextConfig", STAGES, num_stages=2, image_size=SIDE), "pooler", "hidden_sizes[-1]"),
    Architecture("ConvNeXt v2", _config("ConvNextV2Config", STAGES, num_stages=2, image_size=SIDE), "pooler", "hidden_sizes[-1]"),
    Architecture("ResNet", _config("ResNetConfig", RESNET), "pooler", "hidden_sizes[-1]"),
    Architecture("RegNet", _config("RegNetConfig", STAGES, embedding_size=8, groups_width=8, layer_type="x"), "pooler", "hidden_sizes[-1]"),
    Architecture("BiT", _config("BitConfig", STAGES, embedding_size=8, num_groups=4), "pooler", "hidden_sizes[-1]"),
    Architecture("MobileNet v1", _config("MobileNetV1Config", depth_multiplier=0.25), "pooler", "256"),
    Architecture("MobileNet v2", _config("MobileNetV2Config", depth_multiplier=0.35), "pooler", "1280"),
    Architecture("MobileViT", _config("MobileViTConfig", image_size=SIDE, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 16, 16, 16, 16, 32], num_attention_heads=2), "pooler", "neck_hidden_sizes[-1]"),
    Architecture("MobileViT v2", _config("MobileViTV2Config", image_size=SIDE, width_multiplier=0.25, output_stride=16), "pooler", "128"),
    Architecture("EfficientNet", _config("EfficientNetConfig", image_size=SIDE, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320), "pooler", "hidden_dim"),
    Architecture("TextNet", _config("TextNetConfig"), "pooler", "2048"),
    Architecture("timm: ViT", _timm("vit_tiny_patch16_224", img_size=SIDE, depth=2), "pooler", "192", FIXED),
    Architecture("timm: EVA-02", _timm("eva02_tiny_patch14_224", img_size=SIDE, patch_size=16, depth=2), "pooler", "192", FIXED),
    Architecture("timm: Perception Encoder", _timm("vit_pe_core_tiny_patch16_384", img_size=SIDE, depth=2), "pooler", "192", FIXED),
    Architecture("timm: CLIP ResNet", _timm("resnet50_clip"), "pooler", "2048"),
    Architecture("timm: ResNet", _timm("resnet18"), "pooler", "512"),
]
# fmt: on


class _NoMap(nn.Module):
    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return [pixels]


# What is refused, and what the message has to name.
REFUSED: list[tuple[str, Callable[[], nn.Module], int, str]] = [
    (
        "Pixtral vision (packs a batch into one row)",
        lambda: tf.AutoModel.from_config(tf.PixtralVisionConfig(**VIT)),
        SIDE,
        "PixtralVisionModel does not give one feature vector per image .* wrap it",
    ),
    (
        "VideoMAE (takes clips)",
        lambda: tf.AutoModel.from_config(tf.VideoMAEConfig(**VIT)),
        SIDE,
        "VideoMAEModel does not take images of 32 x 32 pixels.* wrap it",
    ),
    (
        "HGNet v2 (AutoModel gives a `Backbone`)",
        lambda: tf.AutoModel.from_config(tf.HGNetV2Config()),
        64,
        "HGNetV2Backbone does not give one feature vector per image .* wrap it",
    ),
    (
        "ResNetBackbone, as any `…Backbone`",
        lambda: tf.ResNetBackbone(tf.ResNetConfig(**RESNET)),
        SIDE,
        "ResNetBackbone does not give one feature vector per image .* wrap it",
    ),
    (
        "BERT (takes text)",
        lambda: tf.AutoModel.from_config(tf.BertConfig(**TEXT)),
        SIDE,
        "BertModel takes 'input_ids', not images",
    ),
    (
        "PVT at another side",
        lambda: next(a for a in ARCHITECTURES if a.name == "PVT").build(),
        48,
        r"PvtModel does not take images of 48 x 48 pixels \(its configuration says 32\).* leave image_size out",
    ),
    ("a module that returns a list", _NoMap, SIDE, "_NoMap does not give one feature vector per image"),
]


def refusal(make: Callable[[], nn.Module], side: int) -> str:
    """What `FrozenBackbone` says to a model that it can't use."""
    try:
        FrozenBackbone(make(), Preprocessing(side))
    except ValueError as error:
        return str(error)
    raise AssertionError("it was not refused")


def page() -> str:
    """The page of the documentation that this table is."""
    rows = [
        "| architecture | class | features | size | another side | layers | tested |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ARCHITECTURES:
        tested = "where timm is installed" if row.needs_timm else "live" if row.model_class else "saved, loaded by id"
        if row.name in REAL_WEIGHTS:
            tested += "; by hand with ImageNet weights"
        size = row.feature_size if row.feature_size.isdigit() else f"`{row.feature_size}`"
        rows.append(
            f"| {row.name} | `{row.class_name}` | {row.pooling} | {size} | {row.side} | {row.layers} | {tested} |"
        )
    refusals = [f"- **{name}.** {refusal(make, side)}" for name, make, side, _ in REFUSED]
    return PAGE.format(count=len(ARCHITECTURES), table="\n".join(rows), refusals="\n".join(refusals))


REAL_WEIGHTS = ("MobileNet v1", "MobileNet v2")
PAGE = """# Backbones

<!-- Written by `python tests/architectures.py > docs/backbones.md`; a test keeps it true. -->

{count} architectures of Transformers, each built small with random weights and put through the same test: features of
the size that its configuration says, the same for the same image whatever stands beside it in the batch, finite, with a
gradient to the pixels and none to the weights, at the side of its configuration and at another one.

Columns: *features* is the part of its output that is used unless `--feature_pooling` says otherwise: `cls` (the first
token), `pooler` (its own `pooler_output`), `mean` (of all tokens), `gap` (mean of the feature map), `projection` (the
space that images and text share). *Size* is where the configuration says D, or D itself. *Another side* is what
`--image_size` does: "any" works as it is, "positions interpolated" is asked for when the side differs, "fixed" is
refused. *Layers* are what `--layers` takes: the last blocks of the last "stages", or "depths" of a plain transformer,
half of it, three quarters and all of it; of "none" the features alone are matched, and a line says so. *Tested*: "saved, loaded by id" goes through `AutoModel.from_pretrained`; "live" is a class that `AutoModel`
does not know, passed as `FrozenBackbone(model, Preprocessing(image_size=…))`; rows of timm need
`pip install "hf_lgm[timm]"`.

{table}

## Views of several sizes

`--view_sizes 0.5 0.75 1` shows a backbone the views at these multiples of its own side, in whole patches. Each is tried
with two blank images before any work. One that the backbone does not take is left out: of those whose other side is
"fixed" their own remains; windows may need more pixels than the smallest has. A side in pixels (`--view_sizes 160 224`)
that it does not take is refused. A side that would change the model for good is not taken either: Swin makes its
windows smaller for an image that is smaller than these, and never larger again.

## What is refused

Before anything is computed, with these words:

{refusals}

Any other `torch.nn.Module` works live, if it maps images (B, 3, side, side) to vectors (B, D), tokens (B, L, D) or maps
(B, D, h, w).

## Preprocessing

Side, mean, standard deviation, the resize before the crop, its filter and the order of the channels are read from the
image processor, without torchvision: `do_rescale`, `rescale_factor`, `rescale_offset`, `do_normalize`, `image_mean` and
`image_std` (a number, one or three), `include_top`, `do_flip_channel_order`, `size`, `crop_size`, `crop_pct`,
`do_resize`, `do_center_crop`, `resample`. Then the processor is asked: what it makes of an image of that side, and of
a larger square one, has to be what was read, but for the resize's rounding, else it is refused by name. [Every processor of Transformers, and how far ours is from
it](processors.md). Where it has no class that works without torchvision (DINOv3, SAM 2, TIPS v2, Sapiens 2), its
`preprocessor_config.json`, or what `processor_config.json` says of it, is read as it stands; for timm `config.json`, with
`crop_pct` and `interpolation`. A repository that has none gets ImageNet's mean and standard deviation, and a warning.
`--image_size`, `--resize_ratio`, `--image_mean` and `--image_std` override what is read. A model of one channel is given
the luminance of the images.

An image that is not square is never squashed: its shortest side is resized, and the middle cropped.

## Weights

Weights that the checkpoint lacks, or has in another shape, are an error where the features depend on them, and none
where they do not: a head, a pooler that is not used, a mask token. Where the names in the checkpoint have a prefix
(`_orig_mod.` of a compiled model, `module.` of a parallel one), the error names it, and `--strip_prefix` takes it off.
"""

if __name__ == "__main__":
    tf.logging.set_verbosity_error()
    print(page(), end="")  # noqa: T201
