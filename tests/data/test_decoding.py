"""One bad image costs one image, and whole pixels are kept whatever the metadata say."""

import io
import logging
import os
import struct
import time
import zipfile
import zlib

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SIDE
from datasets import ClassLabel, Dataset, Features, load_dataset
from PIL import Image, ImageOps

from hf_lgm import LabelledImages, StreamEncoder, load_images
from hf_lgm.data.decoding import UnreadableImage, encoded, read_image
from hf_lgm.data.images import centre_crop, fast_centre_crop, to_rgb, to_tensor
from hf_lgm.features.extraction import FeatureExtractor
from hf_lgm.settings import ColumnOptions

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 12, 3), dtype=np.uint8))
RED = Image.fromarray(np.full((4, 6, 3), (255, 0, 0), np.uint8))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def of_datasets(data: bytes) -> Image.Image:
    return to_rgb(datasets.Image().decode_example({"bytes": data, "path": None}))


def same(image: Image.Image, other: Image.Image) -> bool:
    return image.size == other.size and image.tobytes() == other.tobytes()


def exif(orientation: int, *entries) -> bytes:
    """With entries of (tag, type, four bytes), whatever they mean."""
    fields = sorted([(0x0112, 3, 1, struct.pack("<HH", orientation, 0)), *((tag, of, 2, x) for tag, of, x in entries)])
    packed = b"".join(struct.pack("<HHI", *field[:3]) + field[3] for field in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + packed + struct.pack("<I", 0)


def jpeg(app1: bytes = b"", **options) -> bytes:
    data = saved(PHOTO, "JPEG", **options)
    return data[:2] + (b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 if app1 else b"") + data[2:]


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(*chunks: bytes, behind: bool = False) -> bytes:
    """A PNG with more chunks, before its pixels or behind them."""
    data = saved(PHOTO, "PNG")
    place = data.index(b"IEND") - 4 if behind else data.index(b"IDAT") - 4
    return data[:place] + b"".join(chunks) + data[place:]


@pytest.mark.filterwarnings("ignore:Saving I mode images as PNG")  # Pillow 13 refuses, 11.3 to 12.3 warn
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "HSV"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_good_images_have_the_bits_that_datasets_gives_them(mode, kind):
    try:
        data = saved(PHOTO.convert("L").convert("I").convert(mode) if mode[0] == "I" else PHOTO.convert(mode), kind)
    except (OSError, ValueError):
        pytest.skip(f"{kind} holds no {mode}")
    try:
        wanted = of_datasets(data)
    except OSError:  # YCbCr in TIFF, which Pillow reads since 13
        with pytest.raises(UnreadableImage):
            read_image(data)
    else:
        assert same(read_image(data), wanted)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_that_of_datasets(kind, orientation):
    directory = Image.Exif()
    directory[0x0112] = orientation
    data = saved(PHOTO, kind, exif=directory)
    assert same(read_image(data), of_datasets(data))
    if orientation == 6:
        assert read_image(data).size == (20, 12)


def test_orientation_in_xmp_is_read():
    data = jpeg(b"http://ns.adobe.com/xap/1.0/\0" + b'<x tiff:Orientation="6"/>')
    assert read_image(data).size == (20, 12) and same(read_image(data), of_datasets(data))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (0x011A, 2, b"72\0\0"),  # XResolution as text
        (0x010E, 5, b"\xff\xff\xff\xff"),  # ImageDescription as a fraction beyond the end
        (0xA005, 2, b"R9\0\0"),  # the offset of a directory as text
        (0x02BC, 2, b"x\0\0\0"),  # XMP as text
        (0x8769, 4, b"\xff\xff\xff\x7f"),  # a directory beyond the end
        (0x8825, 2, b"x\0\0\0"),
    ],
)
def test_broken_exif_beside_an_orientation(tag, kind, value):
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg(b"Exif\0\0" + exif(6)))))
    assert same(read_image(jpeg(b"Exif\0\0" + exif(6, (tag, kind, value)))), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize(
    "data",
    [
        jpeg(b"Exif\0\0"),
        jpeg(b"Exif\0\0II*\0\xff\xff\xff\xff"),
        jpeg(b"Exif\0\0nothing of the kind"),
        jpeg().replace(b"\xff\xe0", b"\xff\xe2\x00\x08MPF\0\0\0\xff\xe0", 1),
        png(chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
        png(chunk(b"tEXt", b"comment\0text", crc=1)),
        png(chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**22)))),
        png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**22)))),
        png(chunk(b"zTXt", b"comment\0\0not compressed")),
        png(chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**22))), behind=True),
        png(chunk(b"iCCP", b"name\0\1")),
        png(chunk(b"gAMA", b"")),
        png(chunk(b"tEXt", b"Raw profile type exif\0nothing of the kind")),
        png(chunk(b"pHYs", b"1")),
        png(*[chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(2**19))) for n in range(200)]),
    ],
)
def test_whole_pixels_beside_broken_metadata_are_kept(data):
    whole = jpeg() if data.startswith(b"\xff\xd8") else png()
    assert same(read_image(data), read_image(whole))


def test_the_orientation_of_an_image_whose_other_metadata_had_to_go():
    data = png(chunk(b"eXIf", exif(6)), chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**22))))
    assert same(read_image(data), PHOTO.transpose(Image.Transpose.ROTATE_270))


def test_a_tiff_with_broken_exif():
    directory = Image.Exif()
    directory[0x0112] = 6
    directory[0x9C9C] = "x"
    data = bytearray(saved(PHOTO, "TIFF", exif=directory))
    place = data.index(struct.pack("<H", 0x9C9C))
    data[place : place + 8] = struct.pack("<HHI", 0x8769, 2, 2)  # the offset of a directory as text
    assert same(read_image(bytes(data)), PHOTO.transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "it is empty"),
        (b"", "it is empty"),
        (b"no image", "it is no image, or of a format that Pillow does not know"),
        (jpeg()[:300], r"its decoder fails with IndexError \(index out of range\)"),
        (png()[:200], "truncated|broken"),
        (saved(PHOTO, "TIFF")[:-30], "."),
        (saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "no agreed range"),
        (saved(PHOTO, "EPS"), "it is PostScript, a program, which is not run"),  # Pillow would start Ghostscript
    ],
)  # fmt: skip
def test_pixels_that_are_not_there_are_said(data, why):
    with pytest.raises(UnreadableImage, match=why):
        read_image(data)


def transparent(mode: str) -> tuple[bytes, int]:
    """Left half transparent, stored black; right half of a colour."""
    half = Image.new("RGB", (32, 16))
    half.paste((255, 0, 0), (16, 0, 32, 16))
    if mode == "I;16":
        grey = np.where(np.arange(32)[None].repeat(16, 0) < 16, 0, 40000).astype(np.uint16)
        return saved(Image.fromarray(grey), "PNG", transparency=0)
    if mode == "RGBA":
        mask = half.convert("L").point(lambda value: 255 if value else 0)
        half.putalpha(mask)
        return saved(half, "PNG")
    if mode == "P bytes":
        palette = half.quantize(2)
        black = palette.getpixel((0, 0))
        return saved(palette, "PNG", transparency=bytes(0 if entry == black else 255 for entry in range(2)))
    if mode == "LA":
        return saved(Image.open(io.BytesIO(transparent("RGBA"))).convert("LA"), "PNG")
    return saved(half.convert(mode), "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "I;16", "RGBA", "LA", "P bytes"])
def test_transparency_is_white_in_every_mode(mode):
    image = read_image(transparent(mode))
    assert image.getpixel((2, 8)) == (255, 255, 255) and image.getpixel((20, 8)) != (255, 255, 255) or mode == "1"
    assert image.mode == "RGB"


@pytest.mark.parametrize(("bits", "grey"), [(2, 1), (4, 3)])
def test_the_transparent_grey_of_few_bits(bits, grey):
    """A PNG of one row: all pixels of that grey, which Pillow scales to eight bits and the transparent colour not."""
    row = b"\0" + bytes([int(f"{grey:0{bits}b}" * (8 // bits), 2)])
    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", grey)), chunk(b"IDAT", zlib.compress(row))
    image = read_image(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_the_transparent_colour_of_sixteen_bits():
    row = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    colour = chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    chunks = chunk(b"IHDR", header), colour, chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")
    image = read_image(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_transparency_of_modes_that_only_memory_holds(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    if mode == "PA":
        image, alpha = Image.new("P", (2, 1)).convert("PA"), image.getchannel("A")
        image.putalpha(alpha)
    image = (image.convert("LA") if mode == "La" else image).convert(mode)
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255) and to_rgb(image).getpixel((1, 0))[1] < 100


def test_a_mark_of_transparency_that_a_conversion_has_left_over():
    image = RED.copy()
    image.info["transparency"] = b"\0\xff"
    assert to_rgb(image) is image


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_read(kind):
    frames = {"save_all": True, "append_images": [Image.new("RGB", RED.size, (0, 0, 255))]}
    options = frames | ({"lossless": True} if kind == "WEBP" else {})
    assert read_image(saved(RED, kind, **options)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 100_000), (100_000, 1), (7, 3000)])
def test_long_images_are_cut_before_they_are_resized(size):
    assert centre_crop(Image.new("RGB", size, (255, 0, 0)), 224, 256 / 224).getpixel((100, 100)) == (255, 0, 0)


def bomb(pixels: int = 4000) -> bytes:
    return saved(Image.new("1", (pixels // 20, 20)), "PNG")


@pytest.fixture
def usual_limit(monkeypatch):
    """Of Pillow and of ours, so small that tests need no memory."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr("hf_lgm.data.decoding.MAX_IMAGE_PIXELS", 2000)


def test_bombs_are_images_that_can_not_be_read(usual_limit):
    with pytest.raises(UnreadableImage, match="more than 2000 pixels, and a larger max_image_pixels is needed"):
        read_image(bomb(), 2000)
    with pytest.raises(UnreadableImage, match="more than 30 pixels, and a larger max_image_pixels"):
        read_image(bomb(80), 30)
    assert read_image(bomb(), 5000).size == (200, 20)  # also above Pillow's own limit


@pytest.mark.parametrize("workers", [0, 2])
def test_the_limit_reaches_workers(usual_limit, backbone, workers):
    features = Features({"image": datasets.Image(), "label": ClassLabel(names=["a", "b"])})
    stored = [{"bytes": bomb(), "path": "scan.png"}, {"bytes": bomb(80), "path": None}]
    dataset = Dataset.from_dict({"image": stored, "label": [0, 1]}, features=features)
    extractor = FeatureExtractor(num_workers=workers)
    read = LabelledImages.from_dataset(dataset, max_image_pixels=5000)
    assert extractor.extract(backbone, read).shape == (2, 24)
    small = LabelledImages.from_dataset(dataset, max_image_pixels=2000)
    with pytest.raises(ValueError) as raised:
        FeatureExtractor(num_workers=workers, batch_size=1).extract(backbone, small.select(torch.tensor([1, 0])))
    expected = (
        "The image in row 0 (column 'image', file 'scan.png') can't be read: it has more than 2000 pixels, and a"
    )
    assert str(raised.value).startswith(expected) and "\n" not in str(raised.value)


def test_a_limit_of_no_pixels_is_refused():
    with pytest.raises(ValueError, match="max_image_pixels must be at least 1, found 0"):
        ColumnOptions(max_image_pixels=0)


def whatever(error):
    def decode(image):
        raise error

    return decode


@pytest.mark.parametrize("error", [struct.error("bad"), TypeError("bad"), SyntaxError("bad"), zlib.error("bad"),
                                   EOFError("bad"), OverflowError("bad"), RecursionError("bad"), MemoryError("bad"),
                                   KeyError("bad"), SystemError("bad"), AssertionError("bad")])  # fmt: skip
def test_whatever_a_decoder_raises_costs_one_image(error, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", whatever(error))
    with pytest.raises(UnreadableImage, match="bad"):
        read_image(png())


def test_an_interrupt_is_no_bad_image(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", whatever(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        read_image(png())


# `datasets` leaves text tables open that it streams.
left_open = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def table(folder, files) -> str:
    """A CSV of paths, classes in turn."""
    folder.mkdir(exist_ok=True)
    rows = {"image": list(map(str, files)), "label": ["ab"[number % 2] for number in range(len(files))]}
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    return str(folder)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "files").mkdir()
    paths = [tmp_path / "files" / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        replace(path, number)
    return paths


def replace(path, number, age=10**9) -> None:
    """Another image in the same file, later."""
    Image.new("RGB", (SIDE, SIDE), (number * 20, 0, 0)).save(path)
    os.utime(path, ns=(time.time_ns(), time.time_ns() - age))


def features_of(folder, backbone):
    return FeatureExtractor().extract(backbone, LabelledImages.from_dataset(load_dataset(folder)["train"], "image"))


def test_replaced_files_have_new_features(tmp_path, files, backbone):
    folder = table(tmp_path / "table", files)
    before = features_of(folder, backbone)
    assert torch.equal(features_of(folder, backbone), before)
    for number, path in enumerate(files):
        replace(path, 11 - number, age=0)
    fresh = LabelledImages.from_dataset(load_dataset(folder)["train"], "image").centre_crops(SIDE, 1.0)
    after = features_of(folder, backbone)
    assert not torch.equal(after, before) and torch.allclose(after, backbone.encode(fresh), atol=1e-5)


@left_open
def test_replaced_files_of_a_streamed_table_have_new_features(tmp_path, files, backbone):
    folder = table(tmp_path / "table", files)

    def streamed():
        images, _ = load_images(folder, stream_encoder=StreamEncoder([backbone]), image_column_name="image")
        return images.source.features(backbone, images.rows), images.fingerprint

    (before, known_as), (again, _) = streamed(), streamed()
    for number, path in enumerate(files):
        replace(path, 11 - number, age=0)
    after, known_later = streamed()
    assert torch.equal(before, again) and not torch.equal(after, before) and known_as != known_later


@left_open
def test_replaced_files_of_a_streamed_parquet_of_paths_have_new_features(tmp_path, files, backbone):
    folder = tmp_path / "table"
    folder.mkdir()
    features = Features({"image": datasets.Image(), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"image": list(map(str, files)), "label": [0, 1] * 3}, features=features)
    pq.write_table(rows.data.table, folder / "train.parquet")

    def streamed():
        images, _ = load_images(str(folder), stream_encoder=StreamEncoder([backbone]))
        return images.source.features(backbone, images.rows)

    before = streamed()
    for number, path in enumerate(files):
        replace(path, 11 - number, age=0)
    assert not torch.equal(streamed(), before)


def test_a_repaired_file_is_read_again(tmp_path, files, caplog):
    folder, whole = table(tmp_path / "table", files), files[2].read_bytes()
    files[2].write_bytes(whole[:50])

    def rows():
        dataset = load_dataset(folder)["train"]
        return LabelledImages.from_dataset(dataset, "image", skip_bad_images=True).rows.tolist()

    with caplog.at_level(logging.WARNING):
        assert rows() == rows() == [0, 1, 3, 4, 5]
    assert f"1 of 6 images can't be read and are left out: rows 2 ('{files[2]}')" in caplog.text
    files[2].write_bytes(whole)
    assert rows() == [0, 1, 2, 3, 4, 5]


def test_images_that_a_table_holds_are_known_by_the_table(train_images):
    assert train_images.files == ""


@left_open
def test_a_missing_file_is_named_with_its_row(tmp_path, files, backbone):
    folder = table(tmp_path / "table", files)
    files[3].unlink()
    message = rf"row 3.* \(column 'image', file '{files[3]}'\) can't be read: .*No such file"
    images = LabelledImages.from_dataset(load_dataset(folder)["train"], "image")
    with pytest.raises(ValueError, match=message):
        images.image(3)
    with pytest.raises(ValueError, match=message):
        load_images(folder, stream_encoder=StreamEncoder([backbone]), image_column_name="image")


def test_the_mode_that_a_dataset_asks_for(backbone):
    features = Features({"image": datasets.Image(mode="L"), "label": ClassLabel(names=["a", "b"])})
    dataset = Dataset.from_dict({"image": [{"bytes": saved(RED, "PNG"), "path": None}] * 2, "label": [0, 1]}, features)
    streamed = StreamEncoder([backbone]).encode(dataset.to_iterable_dataset())
    for images in (LabelledImages.from_dataset(dataset), streamed.with_images()):
        assert images.image(0).getpixel((0, 0)) == (76, 76, 76)
    stored = FeatureExtractor().extract(backbone, LabelledImages.from_dataset(dataset))
    assert torch.allclose(FeatureExtractor().extract(backbone, streamed), stored, atol=1e-5)


def test_a_broken_member_of_an_archive_is_one_bad_image(tmp_path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", saved(Image.new("RGB", (16, 16), "red"), "PNG"))
    assert encoded({"bytes": None, "path": f"zip://a.png::{archive}"})
    data = bytearray(archive.read_bytes())
    data[60] ^= 255  # its checksum is another's now
    archive.write_bytes(data)
    with pytest.raises(UnreadableImage, match="Bad CRC-32"):
        encoded({"bytes": None, "path": f"zip://a.png::{archive}"})


@pytest.mark.parametrize("stream", [False, True])
def test_where_no_image_can_be_read_the_first_says_why(tmp_path, backbone, stream):
    folder = tmp_path / "table"
    folder.mkdir()
    rows = {"image": [f"not/there/{number}.png" for number in range(4)], "label": ["a", "b"] * 2}
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    encoder = StreamEncoder([backbone]) if stream else None
    with pytest.raises(UnreadableImage, match=r"The image in row 0.*not/there/0.png.*No such file or directory"):
        load_images(str(folder), image_column_name="image", skip_bad_images=True, stream_encoder=encoder)


GEOMETRIES = [(64, 1.0, "bicubic"), (24, 8 / 7, "bilinear"), (31, 256 / 224, "lanczos"), (90, 1.0, "bicubic")]


def scene(width: int, height: int) -> Image.Image:
    """Smooth, with an edge, as photographs are."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [np.sin(7 * x + 3 * y), np.cos(5 * y), (x > y) * 1.6 - 0.8]
    return Image.fromarray(((np.stack(channels, -1) + 1) * 127).astype(np.uint8))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("shape", [(200, 131), (40, 300), (64, 64), (5, 7), (2000, 3)])
def test_fast_crops_are_within_two_levels_of_pillows(shape, geometry):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), dtype=np.uint8))
    exact, fast = to_tensor(centre_crop(image, *geometry)).int(), fast_centre_crop(image, *geometry).int()
    assert fast.shape == (3, geometry[0], geometry[0])
    difference = (fast - exact).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 1e-3


@pytest.mark.parametrize(
    "needed, shape", [(None, (400, 320)), (161, (400, 320)), (160, (200, 160)), (80, (100, 80)), (1, (50, 40))]
)
def test_a_large_jpeg_is_decoded_no_larger_than_needed(needed, shape):
    data = saved(scene(400, 320), "JPEG", quality=95)
    assert read_image(data, needed=needed).size == shape
    assert read_image(saved(scene(400, 320), "PNG"), needed=needed).size == (400, 320)  # of JPEGs alone
    turned = Image.Exif()
    turned[0x0112] = 6
    assert read_image(saved(scene(400, 320), "JPEG", exif=turned), needed=needed).size == shape[::-1]


def test_fast_decoding_changes_pixels_little_and_is_asked_for(tmp_path, backbone):
    stored = [{"bytes": saved(scene(400 + 9 * number, 320), "JPEG", quality=90), "path": None} for number in range(4)]
    features = Features({"image": datasets.Image(), "label": ClassLabel(num_classes=2)})
    dataset = Dataset.from_dict({"image": stored, "label": [0, 1, 0, 1]}, features=features)
    exact, fast = (LabelledImages.from_dataset(dataset, decode=how) for how in ("exact", "fast"))
    geometry = backbone.preprocessing.geometry
    crops = [torch.stack([images.centre_crop(row, *geometry) for row in range(4)]).int() for images in (exact, fast)]
    difference = (crops[0] - crops[1]).abs()
    assert 0 < difference.float().mean() < 3  # of 16 pixels, across which an edge runs
    assert torch.equal(exact.centre_crops(16, 1.0), fast.centre_crops(16, 1.0))  # what a set keeps is exact
    assert exact.fingerprint != fast.fingerprint  # so features of one are not taken for those of the other
    streamed = StreamEncoder([backbone]).encode(dataset.to_iterable_dataset(), ColumnOptions(decode="fast"))
    extractor = FeatureExtractor(cache_dir=tmp_path)
    assert torch.equal(extractor.extract(backbone, streamed), extractor.extract(backbone, fast))


def test_another_decoding_is_refused():
    with pytest.raises(ValueError, match="decode must be one of exact, fast, found 'quick'"):
        ColumnOptions(decode="quick")
