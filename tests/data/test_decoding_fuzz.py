"""Files of six formats, mutated: an image, or our sentence with row and file, and nothing else."""

import io
import resource
from collections import Counter
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hf_lgm import LabelledImages
from hf_lgm.data.decoding import UnreadableImage
from hf_lgm.features.stream_pass import StreamPass
from hf_lgm.features.stream_rows import StreamColumns
from hf_lgm.settings import ColumnOptions

KINDS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
FEATURES = Features({"image": datasets.Image(), "label": ClassLabel(names=["a"])})
MAX_PIXELS = 10_000_000  # with headers that say anything
MAX_GROWTH = 600 * 2**20  # in bytes: so many pixels in several modes


def whole_files(kind: str) -> list[bytes]:
    """Of several modes and with all that the format may carry."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8))
    described = Image.Exif()
    described[0x0112], described[0x010E], described[0x011A] = 6, "a photograph", 72.0
    described.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    text = PngInfo()
    for number in range(8):
        text.add_itxt(f"comment {number}", "text " * 30, zip=number % 2 == 0)
    frames = {"save_all": True, "append_images": [photo.transpose(Image.Transpose.ROTATE_180)]}
    files = []
    for image, options in (
        (photo, {} if kind in ("GIF", "BMP") else {"exif": described}),
        (Image.new("RGB", (16, 24), (200, 30, 90)), {"pnginfo": text, "dpi": (72, 72)} if kind == "PNG" else {}),
        (photo.convert("L"), {}),
        (photo.quantize(16), {"transparency": 0} if kind in ("PNG", "GIF") else {}),
        (photo.convert("CMYK") if kind in ("JPEG", "TIFF") else photo.convert("1"), {}),
        (photo, {} if kind in ("JPEG", "BMP") else frames),
        (photo, {"compression": "tiff_lzw"} if kind == "TIFF" else {}),
    ):
        file = io.BytesIO()
        (image.convert("RGB") if kind == "JPEG" and image.mode == "P" else image).save(file, kind, **options)
        files.append(file.getvalue())
    return files


WHOLE = {kind: whole_files(kind) for kind in KINDS}
INTERESTING = st.sampled_from([b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])


@st.composite
def mutated(draw, kind: str) -> bytes:
    """One to three changes, some of them among the first bytes, where headers and EXIF are."""
    data = bytearray(draw(st.sampled_from(WHOLE[kind])))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 160)))
        bytes_ = draw(INTERESTING | st.binary(min_size=1, max_size=4))
        how = draw(st.sampled_from(["replace"] * 6 + ["insert", "delete", "cut", "repeat"]))
        if how == "replace":
            data[place : place + len(bytes_)] = bytes_
        elif how == "insert":
            data[place:place] = bytes_
        elif how == "delete":
            del data[place : place + draw(st.integers(1, 40))]
        elif how == "cut":
            del data[place:]
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 200))]
    return bytes(data)


def read_from_disk(stored) -> Image.Image:
    dataset = Dataset.from_dict({"image": [stored], "label": [0]}, features=FEATURES)
    return LabelledImages.from_dataset(dataset, max_image_pixels=MAX_PIXELS).image(0)


def stream_pass() -> StreamPass:
    options = ColumnOptions(max_image_pixels=MAX_PIXELS)
    encoding = SimpleNamespace(geometries={(16, 1.0)})
    return StreamPass(StreamColumns.find(FEATURES, options), options, encoding, 0, 1)


def read_mutated(kind: str, examples: int) -> Counter:
    """How many were images, and how many sentences."""
    counts, a_stream = Counter(), stream_pass()

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutated(kind))
    def read(data):
        stored = {"bytes": data, "path": "scan"}
        streamed = a_stream._decode(stored)
        try:
            image = read_from_disk(stored)
        except UnreadableImage as error:
            counts["sentences"] += 1
            sentence = str(error)
            assert sentence.startswith("The image in row 0 (column 'image', file 'scan') can't be read: ")
            assert "\n" not in sentence and isinstance(streamed.error, UnreadableImage)
        else:
            counts["images"] += 1
            assert image.mode == "RGB" and min(image.size) > 0 and image.width * image.height <= MAX_PIXELS
            assert streamed.error is None and streamed.crops[16, 1.0].shape == (3, 16, 16)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_GROWTH
    return counts


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it repairs
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_images_or_sentences(kind, examples, record_property):
    counts = read_mutated(kind, examples)
    print(f"{kind}: {counts['images']} images, {counts['sentences']} sentences")  # noqa: T201  (pytest -s)
    record_property("counts", dict(counts))
    assert counts["images"] and counts["sentences"] and counts.total() >= 0.9 * examples
