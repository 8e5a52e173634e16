"""What reaches the model is what its image processor gives: over every one of Transformers, and key by key."""

import json
import re

import numpy as np
import pytest
import torch
import transformers as tf
from conftest import ROOT
from packaging import version
from PIL import Image
from processors import OTHER_SHAPE, difference, names, noise, page, rows

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.data.images import to_tensor

SIZES = {"size": {"shortest_edge": 24}, "crop_size": {"height": 16, "width": 16}}


def test_every_processor_is_read_or_refused():
    assert len(rows()) == len(names()) > 90
    assert sum(row.read is not None for row in rows()) >= 45
    assert all(row.refused for row in rows() if row.read is None)


def test_images_of_the_models_own_side_reach_it_as_its_processor_gives_them():
    assert {row.name: row.own_side for row in rows() if row.read and row.own_side > 1e-6} == {}


def test_square_images_are_resized_and_cropped_as_its_processor_does():
    differ = {row.name for row in rows() if row.read and (row.square == OTHER_SHAPE or row.square > 1e-6)}
    assert differ == set()


def test_the_page_is_what_the_table_says():
    written = (ROOT / "docs/processors.md").read_text()
    if version.parse(tf.__version__) < version.parse(re.search(r"Transformers ([\d.]+) that", written)[1]):
        pytest.skip("the page is about a later Transformers")
    assert written == page()


VALUES = [
    tf.MobileViTImageProcessorPil(**SIZES),
    tf.MobileViTImageProcessorPil(**SIZES, do_flip_channel_order=False),
    tf.BitImageProcessorPil(**SIZES, do_rescale=False),
    tf.BitImageProcessorPil(**SIZES, do_normalize=False),
    tf.BitImageProcessorPil(**SIZES, do_rescale=False, do_normalize=False),
    tf.BitImageProcessorPil(**SIZES, rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[1, 1, 1]),
    tf.BitImageProcessorPil(**SIZES, image_mean=0, image_std=1),
    tf.BitImageProcessorPil(**SIZES, image_mean=0.25, image_std=0.5),
    tf.BitImageProcessorPil(**SIZES, resample=2),
    tf.BitImageProcessorPil(**SIZES, resample=1),
    tf.BitImageProcessorPil(**SIZES, resample=0),
    tf.BitImageProcessorPil(size={"shortest_edge": 19}, crop_size={"height": 16, "width": 16}),
    tf.EfficientNetImageProcessorPil(size={"height": 16, "width": 16}, rescale_offset=True),
    tf.EfficientNetImageProcessorPil(size={"height": 16, "width": 16}, include_top=False),
    tf.EfficientNetImageProcessorPil(size={"height": 16, "width": 16}, include_top=True, do_normalize=False),
    tf.EfficientNetImageProcessorPil(
        size={"height": 24, "width": 24}, crop_size={"height": 16, "width": 16}, do_center_crop=True,
        rescale_offset=True, rescale_factor=1 / 127.5, include_top=False,
    ),
    tf.ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.9),
    tf.ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    tf.PoolFormerImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, crop_pct=0.95),
    tf.LevitImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
    tf.DeiTImageProcessorPil(size={"height": 20, "width": 20}, crop_size={"height": 16, "width": 16}),
    tf.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=16),
]  # fmt: skip


@pytest.mark.parametrize("processor", VALUES, ids=lambda processor: type(processor).__name__)
def test_what_a_processor_does_is_read(processor):
    read = Preprocessing.from_processor(processor)
    assert difference(processor, read, noise(37, 37)) < 1e-6
    if read.resize_ratio > 1 and not isinstance(
        processor, tf.DeiTImageProcessorPil | tf.EfficientNetImageProcessorPil
    ):
        assert difference(processor, read, noise(50, 37)) < 1e-6
        assert difference(processor, read, noise(37, 51)) < 1e-6


def test_the_file_of_a_processor_says_the_same_as_the_processor(tmp_path):
    """A class that can't be loaded here is read from its file."""
    for processor in VALUES:
        values = json.loads(processor.to_json_string())
        assert Preprocessing.from_processor(values) == Preprocessing.from_processor(processor) or (
            "do_normalize" not in values  # whose absence means no in the class alone
        )


class Odd(tf.BitImageProcessorPil):
    """Does something that no key says."""

    def normalize(self, image, mean, std, **kwargs):
        return super().normalize(image, mean, std, **kwargs) ** 2


def test_what_no_key_says_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"^Odd can't be read as .* \(its values differ by .*\)\. Pass the model live"
    ):
        Preprocessing.from_processor(Odd(**SIZES))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"do_color_quantize": True}, "it does more than that: do_color_quantize"),
        ({"do_grayscale": True}, "do_grayscale"),
        ({"size": {"height": 32, "width": 24}}, "images of 32 x 24 pixels are not square; give image_size"),
        ({"size": {"shortest_edge": 65536}}, "65536 is no side of an image"),
    ],
)
def test_what_a_file_says_that_is_not_understood_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Preprocessing.from_processor({"image_processor_type": "MyProcessor", **values})


@pytest.mark.parametrize(
    "processor",
    [
        tf.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 24, "width": 24}),  # black beside it
        tf.CLIPImageProcessorPil(do_resize=False, crop_size={"height": 24, "width": 24}),
        tf.LevitImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 24, "width": 24}),
        tf.PerceiverImageProcessorPil(),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_a_resize_or_crop_that_is_not_ours_is_refused(processor):
    with pytest.raises(ValueError, match="can't be read as"):
        Preprocessing.from_processor(processor)


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"shortest_edge": "large"}},
        {"rescale_factor": "1/255"},
        {"resample": "no such filter"},
        {"image_std": {"a": 1}},
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused_by_name(values):
    with pytest.raises(ValueError, match="MyProcessor can't be read"):
        Preprocessing.from_processor({"image_processor_type": "MyProcessor", **values})


def test_a_filter_may_have_its_name_and_what_is_no_processor_is_said(tmp_path):
    assert Preprocessing.from_processor({"resample": "lanczos"}).resample == "lanczos"
    for content in ("[1]", "null", '{"image_processor": null}'):
        (tmp_path / "preprocessor_config.json").write_text(content)
        with pytest.raises(ValueError, match="holds no image processor"):
            Preprocessing.from_pretrained(str(tmp_path), tf.Dinov2Config())
    with pytest.raises(TypeError, match="Expected an image processor of Transformers, found <class"):
        Preprocessing.from_processor(tf.ViTImageProcessorPil)
    with pytest.raises(ValueError, match="it has no input_size"):
        Preprocessing.from_timm({"mean": [0.5] * 3})


@pytest.mark.parametrize("kind", ["PPLCNetImageProcessor", "PPLCNetImageProcessorFast", "Llama4ImageProcessor"])
def test_a_file_of_a_class_that_may_do_more_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind} can't be read.*can't be asked without torchvision: pip install"):
        Preprocessing.from_processor({"image_processor_type": kind, "image_mean": [0.4] * 3, "image_std": [0.2] * 3})


def test_another_side_is_taken_where_the_processors_is_not_square():
    assert Preprocessing.from_processor({"size": {"height": 32, "width": 24}}, image_size=16).geometry[:2] == (16, 1.0)


def test_timms_ratio_filter_and_modes():
    values = {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bilinear"}
    read = Preprocessing.from_timm(values)
    assert read.geometry == (224, 248 / 224, "bilinear")  # rounded down, as timm does
    assert Preprocessing.from_timm({"input_size": [3, 224, 224]}).resize_ratio == pytest.approx(256 / 224)
    for changed in ({"crop_mode": "border"}, {"interpolation": "random"}, {"input_size": [3, 224, 192]}):
        with pytest.raises(ValueError, match="timm's pretrained_cfg can't be read"):
            Preprocessing.from_timm({**values, **changed})
    with pytest.raises(ValueError, match="4 channels"):
        Preprocessing.from_timm({**values, "input_size": [4, 224, 224]})


def grey_vit() -> tf.ViTModel:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return tf.ViTModel(tf.ViTConfig(**small, image_size=16, patch_size=8, num_channels=1)).eval()


@pytest.mark.parametrize("mean", [[0.25], 0.25, [0.25, 0.25, 0.25]], ids=str)
def test_a_model_of_one_channel_is_given_the_luminance(tmp_path, mean):
    model, size = grey_vit(), {"height": 16, "width": 16}
    model.save_pretrained(tmp_path)
    values = {"image_processor_type": "ViTImageProcessor", "size": size, "image_mean": mean, "image_std": [0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    backbone = FrozenBackbone.from_pretrained(str(tmp_path))
    image = noise(16, 16).convert("L")
    processor = tf.ViTImageProcessorPil(size=size, image_mean=[0.25], image_std=[0.5], do_resize=False)
    with torch.no_grad():
        wanted = model(**processor(images=[image], return_tensors="pt")).last_hidden_state[:, 0]
    torch.testing.assert_close(backbone.encode(to_tensor(image.convert("RGB"))[None]), wanted)
    pixels = torch.rand(2, 3, 16, 16, requires_grad=True)
    (backbone(pixels) * torch.arange(16)).sum().backward()  # LayerNorm's output sums to zero
    assert pixels.grad is not None
    shares = pixels.grad.sum(dim=(0, 2, 3)) / pixels.grad.sum()
    torch.testing.assert_close(shares, torch.tensor([0.299, 0.587, 0.114]), rtol=1e-3, atol=1e-3)


def test_statistics_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"of 3 channels \(1 or 3\), found \[0.5, 0.4\]"):
        Preprocessing.from_processor({"image_mean": [0.5, 0.4], "image_std": [0.5, 0.4]})
    with pytest.raises(ValueError, match="of 4 channels"):
        Preprocessing.from_processor({}, tf.ViTConfig(num_channels=4))
    with pytest.raises(ValueError, match="mean and std need three numbers each"):
        Preprocessing(16, mean=(0.5, 0.5), std=(0.5, 0.5))
    with pytest.raises(ValueError, match="std must be above zero"):
        Preprocessing(16, std=(0.5, 0.0, 0.5))
    with pytest.raises(ValueError, match="resize_ratio must be at least 1"):
        Preprocessing(16, resize_ratio=0.5)
    assert Preprocessing(16, mean=0.5, std=0.5).mean == (0.5,)


def test_a_processor_that_nobody_knows_is_read_with_a_warning(tmp_path, caplog):
    values = {**SIZES, "image_processor_type": "MyImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    assert Preprocessing.from_pretrained(str(tmp_path), tf.Dinov2Config()).mean == (0.1, 0.2, 0.3)
    assert f"MyImageProcessor of '{tmp_path}' can't be asked: its file is read as it stands" in caplog.text


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["BitImageProcessor", "NotKnownImageProcessor"])
def test_statistics_are_found_in_either_file(tmp_path, nested, kind):
    values = {**SIZES, "image_processor_type": kind, "image_mean": [0.1, 0.2, 0.3], "do_center_crop": True}
    if nested:
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    else:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    read = Preprocessing.from_pretrained(str(tmp_path), tf.Dinov2Config())
    assert (read.mean, read.image_size) == ((0.1, 0.2, 0.3), 16)


def test_a_damaged_file_is_a_sentence(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{not json")
    with pytest.raises(ValueError, match=r"its preprocessor_config.json is not JSON: Expecting property name"):
        Preprocessing.from_pretrained(str(tmp_path), tf.Dinov2Config())


def test_blue_comes_first_where_the_processor_says_so():
    image = Image.fromarray(np.broadcast_to(np.array([255, 0, 0], np.uint8), (16, 16, 3)).copy())
    read = Preprocessing.from_processor(VALUES[0])
    assert read.channels_of(to_tensor(image)[None])[0, :, 0, 0].tolist() == [0, 0, 255]
