import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, ViTImageProcessorPil

from hf_lgm import Preprocessing
from hf_lgm.data.images import centre_crop, to_images, to_rgb, to_tensor

CROPPED = {"do_center_crop": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    ("processor", "side", "ratio"),
    [
        (
            {**CROPPED, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            224,
            256 / 224,
        ),  # DINOv2
        ({**CROPPED, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}, 224, 1.0),  # CLIP
        ({**CROPPED, "size": 160, "crop_size": 128}, 128, 1.25),  # files of before 2022
        ({"size": {"height": 384, "width": 384}}, 384, 1.0),  # ViT does not crop: all of a square image
        ({"image_processor": {"size": {"height": 48, "width": 48}}}, 48, 1.0),  # inside a multimodal one
        ({}, 32, 256 / 224),  # says nothing: the model's own
    ],
)
def test_geometry_from_processors(processor, side, ratio):
    read = Preprocessing.from_processor(processor, Dinov2Config(image_size=32))
    assert (read.image_size, read.resize_ratio) == (side, pytest.approx(ratio))


def test_normalisation_from_processors():
    assert Preprocessing.from_processor(CROPPED).mean == (0.1, 0.2, 0.3)
    assert Preprocessing.from_processor(ViTImageProcessorPil()).std == (0.5, 0.5, 0.5)
    not_normalised = Preprocessing.from_processor({**CROPPED, "do_normalize": False})
    assert (not_normalised.mean, not_normalised.std) == ((0, 0, 0), (1, 1, 1))


def test_a_processor_without_a_class_is_read_as_json(tmp_path):
    """DINOv3's and SAM 2's have none that works without torchvision."""
    values = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 48, "width": 48}, **CROPPED}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    read = Preprocessing.from_pretrained(str(tmp_path), Dinov2Config())
    assert (read.image_size, read.mean) == (48, (0.1, 0.2, 0.3))


def test_no_processor_is_a_warning(tmp_path, caplog):
    assert Preprocessing.from_pretrained(str(tmp_path), Dinov2Config(image_size=40)).image_size == 40
    assert "has no preprocessor_config.json or processor_config.json: using ImageNet's mean and std" in caplog.text


def test_the_synthetic_side_is_256_where_the_crop_is_224():
    assert Preprocessing(224).synthetic_size == 256
    assert Preprocessing(96).synthetic_size == 96


GREY = np.array([[0, 128], [255, 64]], dtype=np.uint8)


def with_alpha() -> Image.Image:
    """Red, half of it transparent."""
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), [[0, 0, 0], [128, 128, 128]]),
        (Image.fromarray(GREY).convert("1", dither=0), [[0, 0, 0], [255, 255, 255]]),
        (Image.fromarray(GREY.astype(np.uint16) * 257), [[0, 0, 0], [128, 128, 128]]),  # I;16
        (Image.fromarray((GREY // 2).astype(np.uint16)), [[0, 0, 0], [0, 0, 0]]),  # I;16, all of it dark
        (Image.fromarray(GREY.astype(np.int32) * 257), [[0, 0, 0], [128, 128, 128]]),  # 16-bit PNGs of old
        (Image.fromarray(GREY.astype(np.int32)), [[0, 0, 0], [128, 128, 128]]),  # 8-bit values in a wide type
        (Image.fromarray(GREY).convert("P"), [[0, 0, 0], [128, 128, 128]]),
        (with_alpha(), [[255, 0, 0], [255, 255, 255]]),  # transparency over white
        (with_alpha().convert("LA"), [[76, 76, 76], [255, 255, 255]]),
        (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), [[255, 0, 0], [255, 0, 0]]),
        (Image.new("YCbCr", (2, 1), (255, 128, 128)), [[255, 255, 255], [255, 255, 255]]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_rgb(image, expected):
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    assert np.asarray(converted)[0].tolist() == expected


def test_transparent_palette():
    palette = Image.new("P", (1, 1), 0)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_floating_point_images_are_refused():
    with pytest.raises(ValueError, match="no agreed range"):
        to_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (3, 400), (17, 17), (224, 224)])
def test_square_is_the_centre(shape):
    assert centre_crop(Image.new("RGB", shape), 16, 256 / 224).size == (16, 16)


def test_square_keeps_the_centre_and_all_of_it_at_ratio_one():
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 0, 0), (10, 0, 30, 20))
    assert np.asarray(centre_crop(image, 20, 1.0)).reshape(-1, 3).tolist() == [[255, 0, 0]] * 400


def test_pixels_round_to_the_nearest_and_come_back():
    values = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    image = to_images(values + 0.4 / 255)[0]
    assert torch.equal(to_tensor(image), (values[0] * 255).round().to(torch.uint8))
    assert to_images(torch.full((1, 3, 2, 2), 1.3))[0].getpixel((0, 0)) == (255, 255, 255)


def test_timms_configuration_says_it_too():
    values = {"input_size": [3, 336, 336], "mean": [0.5] * 3, "std": [0.4] * 3, "crop_pct": 0.875}
    assert Preprocessing.from_timm(values) == Preprocessing(336, (0.5,) * 3, (0.4,) * 3, 1 / 0.875)
