"""Encoded images to 8-bit RGB: one that can't be read says so, whatever its decoder raises; metadata may be broken."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

from datasets import DownloadConfig
from datasets.utils.file_utils import is_local_path, xopen
from PIL import Image, ImageFile, UnidentifiedImageError

from ..hub import first_line
from ..settings import MAX_IMAGE_PIXELS
from .images import to_rgb

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"

# What pixels are made of; in every other chunk of a PNG are metadata.
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

# JPEG's comments and application segments, but for those of JFIF and Adobe, which say what the channels are.
_JPEG_METADATA = {0xFE, *range(0xE1, 0xF0)} - {0xEE}
_JPEG_SCAN = 0xDA

# What reading one file of an archive raises where that part is broken.
_BROKEN_ARCHIVES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError, EOFError)

# How images that are skipped are counted, and how many of them are named.
LEFT_OUT = "%d of %d images can't be read and are left out: %s"
NAMED_ROWS = 10

_ORIENTATION, _SHORT = 0x0112, 3  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """Why one image can't be read; whoever knows its row says which."""

    def __init__(self, sentence: str) -> None:
        # A worker's exception is made again of its whole traceback, by torch.
        super().__init__(sentence.rpartition(f"{type(self).__name__}: ")[2].rstrip())


def unreadable(row: str, column: str, stored: dict[str, Any] | None, why: Exception) -> UnreadableImage:
    """Which image can't be read, and why."""
    file = f", file '{stored['path']}'" if stored and stored["path"] else ""
    reason = f"The image in {row} (column '{column}'{file}) can't be read: {why}."
    return UnreadableImage(f"{reason} skip_bad_images=True leaves such rows out, if there are others.")


def named_rows(images: list[tuple[int, dict[str, Any] | None]], total: int) -> str:
    """The first of so many rows, with their files."""
    paths = [(row, stored["path"] if stored else None) for row, stored in images[:NAMED_ROWS]]
    rows = ", ".join(f"{row} ('{path}')" if path else str(row) for row, path in paths)
    return f"rows {rows}{', …' if total > NAMED_ROWS else ''}"


def encoded(stored: dict[str, Any] | None, token: str | None = None) -> bytes | None:
    """An image as it is stored, wherever that is; `None` if there is none.

    Args:
        stored (`dict`, *optional*): As `datasets` holds an image: bytes, or a path.
        token (`str`, *optional*): For files on the Hub.

    Raises:
        UnreadableImage: If the file is not there, or may not be read. What the network raises stays as it is.
    """
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        return None
    if stored["bytes"] is not None:
        return stored["bytes"]
    try:
        with xopen(stored["path"], "rb", download_config=DownloadConfig(token=token)) as file:
            return file.read()
    except _BROKEN_ARCHIVES as error:
        raise UnreadableImage(_reason(error)) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) or is_local_path(stored["path"]):
            raise UnreadableImage(_reason(error)) from error
        raise


def read_image(
    data: bytes | None, max_pixels: int = MAX_IMAGE_PIXELS, mode: str | None = None, needed: int | None = None
) -> Image.Image:
    """The image in 8-bit RGB, the right way up; of several frames or pages the first.

    Args:
        data (`bytes`, *optional*): The encoded image.
        max_pixels (`int`, *optional*, defaults to 178956970): Refuse larger ones, which may be made to fill memory.
        mode (`str`, *optional*): What to convert to first, where the dataset asks for it.
        needed (`int`, *optional*): Pixels of the shortest side that are enough: a JPEG that has two, four or eight
            times as many is decoded at that fraction, which is faster and averages pixels.

    Raises:
        UnreadableImage: If there is none, or it can't be decoded.
    """
    if not data:
        raise UnreadableImage("it is empty")
    if max_pixels > MAX_IMAGE_PIXELS and (Image.MAX_IMAGE_PIXELS or max_pixels) < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels  # of this process, which may be a worker; Pillow knows no other way
    try:
        image = upright(*_loaded(data, max_pixels, needed))
        return to_rgb(image.convert(mode) if mode and mode != image.mode else image)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(2 * (Image.MAX_IMAGE_PIXELS or 0)) from error
    except Exception as error:  # broken files make decoders raise anything, of struct.error to MemoryError
        raise UnreadableImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What an error says; Pillow's own names an object in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image, or of a format that Pillow does not know"
    if isinstance(error, (OSError, ValueError)):
        return first_line(error).rstrip(".")
    return f"its decoder fails with {type(error).__name__} ({first_line(error)})"


def _loaded(data: bytes, max_pixels: int, needed: int | None) -> tuple[Image.Image, bytes | None]:
    """The decoded image, and its EXIF where it had to be taken out to decode the rest."""
    try:
        return _decoded(data, max_pixels, needed), None
    except (UnreadableImage, Image.DecompressionBombError):
        raise
    except Exception:  # broken metadata make Pillow raise anything; the pixels may be whole
        bare, exif = _without_metadata(data)
        if len(bare) == len(data):
            raise
        return _decoded(bare, max_pixels, needed), exif


def _decoded(data: bytes, max_pixels: int, needed: int | None) -> Image.Image:
    image = Image.open(BytesIO(data))
    if image.format == "EPS":
        raise UnreadableImage("it is PostScript, a program, which is not run; save it as PNG")
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    if needed:  # of JPEGs alone; Pillow takes the smallest fraction that leaves both sides as large
        image.draft(None, (needed, needed))
    _ignore_what_follows_the_pixels(image)
    image.load()
    if data.startswith(_PNG):
        _scale_transparency(image, bits=data[24])
    return image


def _ignore_what_follows_the_pixels(image: Image.Image) -> None:
    """Chunks and directories behind the pixels, which Pillow reads with them, may be broken."""
    if isinstance(image, ImageFile.ImageFile):
        end = image.load_end

        def load_end() -> None:
            with suppress(Exception):
                end()

        image.load_end = load_end  # type: ignore[method-assign]


def _too_large(max_pixels: int) -> UnreadableImage:
    return UnreadableImage(f"it has more than {max_pixels} pixels, and a larger max_image_pixels is needed to read it")


def _scale_transparency(image: Image.Image, bits: int) -> None:
    """The transparent colour of a PNG in the range that Pillow gives its pixels."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and bits < 8:
        image.info["transparency"] = colour * 255 // (2**bits - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def upright(image: Image.Image, exif: bytes | None = None) -> Image.Image:
    """The image as its orientation says, where that can be read."""
    method = _TURNS.get(_orientation(image, exif))
    return image if method is None else image.transpose(method)  # `ImageOps` would write the EXIF again, broken or not


def _orientation(image: Image.Image, exif: bytes | None) -> int:
    """Of the first place that can be read: metadata decide nothing else, and may hold anything."""
    for read in (lambda: image.getexif()[_ORIENTATION], lambda: _first_orientation(exif or image.info["exif"])):
        with suppress(Exception):
            if isinstance(orientation := read(), int):
                return orientation
    return 1


def _first_orientation(exif: bytes) -> int | None:
    """In the first directory, whatever else is in it: Pillow stops at the first broken entry."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}[tiff[:2]]
    start = struct.unpack(f"{order}I", tiff[4:8])[0] + 2
    count = struct.unpack(f"{order}H", tiff[start - 2 : start])[0]
    for place in range(start, start + 12 * count, 12):
        tag, kind, number, value = struct.unpack(f"{order}HHIH", tiff[place : place + 10])
        if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
            return value
    return None


def _without_metadata(data: bytes) -> tuple[bytes, bytes | None]:
    """A PNG or JPEG with nothing but its pixels, and its EXIF; any other file as it is."""
    if data.startswith(_PNG):
        chunks = list(_png_chunks(data))
        exif = next((chunk[8:-4] for chunk in chunks if chunk[4:8] == b"eXIf"), None)
        return _PNG + b"".join(chunk for chunk in chunks if chunk[4:8] in _PNG_PIXELS), exif
    if data.startswith(_JPEG):
        segments = list(_jpeg_segments(data))
        exif = next((segment[4:] for segment in segments if segment[4:8] == b"Exif"), None)
        return _JPEG + b"".join(segment for segment in segments if segment[1] not in _JPEG_METADATA), exif
    return data, None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """With length, name and checksum."""
    start = len(_PNG)
    while start + 8 <= len(data):
        end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
        yield data[start:end]
        start = end


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """With marker and length; the last are the pixels."""
    start = len(_JPEG)
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != _JPEG_SCAN:
        end = start + 2 + struct.unpack(">H", data[start + 2 : start + 4])[0]
        yield data[start:end]
        start = end
    yield data[start:]
