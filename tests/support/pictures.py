"""Encoded images for the tests: photographs that packages ship, and tricky files made from them."""

import io
import struct
import zlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features


def photo_file(package: str, name: str) -> Path:
    """A file inside an installed package, which is not imported for it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / name


@cache
def photo() -> Image.Image:
    """A 160 x 120 photograph in RGB."""
    with Image.open(photo_file("skimage", "data/coffee.png")) as image:
        return image.convert("RGB").crop((100, 20, 580, 380)).resize((160, 120))


def can_write(format: str) -> bool:
    """False for formats whose library Pillow was built without."""
    library = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}.get(format)
    return library is None or bool(features.check(library))


FORMATS = [format for format in ("JPEG", "PNG", "WEBP") if can_write(format)]
EXTENSIONS = [{"JPEG": "jpg"}.get(format, format.lower()) for format in FORMATS]


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """The image in that format; no bytes when this Pillow can't write it."""
    if not can_write(format):
        return b""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encode(photo().convert(mode), "JPEG", **options)


def exif(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    """An Exif block whose second entry is the orientation, as SHORT (3) or LONG (4)."""
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *([orientation, 0] if kind == 3 else [orientation]))
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    entries = struct.pack(order + "HHIHH", 0x0103, 3, 1, 1, 0) + struct.pack(order + "HHI", 0x0112, kind, 1) + value
    return b"Exif\0\0" + head + struct.pack(order + "H", 2) + entries + bytes(4)


def with_segment(encoded: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment right behind its start."""
    return encoded[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload + encoded[2:]


def cmyk_jpeg(transform: int | None) -> bytes:
    """A CMYK JPEG whose Adobe segment says `transform` (2 is YCCK), or that has none."""
    encoded = jpeg("CMYK")
    at = encoded.index(b"\xff\xee")
    size = int.from_bytes(encoded[at + 2 : at + 4], "big")
    without = encoded[:at] + encoded[at + 2 + size :]
    if transform is None:
        return without
    return with_segment(without, 0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG from its raw rows (each behind a filter byte), with `extra` chunks before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", head, *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))


def png16(colour: int, channels: int) -> bytes:
    """A 16-bit PNG of 64 x 4 pixels; all channels run from 0 to 65535 along the row."""
    ramp = np.linspace(0, 65535, 64).astype(">u2")
    row = b"\0" + np.repeat(ramp, channels).tobytes()
    return png(64, 4, 16, colour, row * 4)


def present(files: dict[str, Any]) -> dict[str, Any]:
    """`files` without those that this Pillow could not make."""
    return {name: file for name, file in files.items() if (file[0] if isinstance(file, tuple) else file)}


def animation(format: str) -> bytes:
    frames = [photo().rotate(angle) for angle in (0, 90, 180)]
    return encode(frames[0], format, save_all=True, append_images=frames[1:], duration=50)


def rgba() -> Image.Image:
    """The photograph, with transparency growing to the right."""
    image = photo().copy()
    image.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return image


def palette_with_alpha() -> bytes:
    return encode(photo().quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))


def bomb() -> bytes:
    """A PNG that promises 60,000 x 60,000 pixels in a few bytes."""
    return png(60_000, 60_000, 8, 2, bytes(100))
