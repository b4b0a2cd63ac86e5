"""Encoded bytes -> `ImageInfo`: format, size, mode, orientation; from the header alone, nothing is decoded."""

import re

from imgdata.errors import ImageError
from imgdata.images.info import ImageInfo
from imgdata.images.jpeg import probe_jpeg
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.png import PNG_SIGNATURE, probe_png
from imgdata.images.webp import probe_webp


def probe(data: bytes | bytearray | memoryview) -> ImageInfo:
    """Return the facts in the header of `data`; takes 2 to 4 us for a usual JPEG, PNG or WebP.

    Raises `ImageError` with the reason `empty`, `truncated` (the header is incomplete), `not-an-image`,
    `corrupt`, or `unsupported` (an image format that can't be read here). Damage behind the header is
    found by `imgdata.images.decode.check`.
    """
    if not isinstance(data, bytes):
        data = bytes(data)
    if data[:2] == b"\xff\xd8":
        return probe_jpeg(data)
    if data[:8] == PNG_SIGNATURE:
        return probe_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return probe_webp(data)
    return _probe_other(data, _sniff(data))


_MAGIC = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    *((magic, "TIFF") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((magic, "JPEG2000") for magic in (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    (b"\0\0\1\0", "ICO"),
    (b"qoif", "QOI"),
    (b"8BPS", "PSD"),
    *((b"P%d%c" % (digit, space), "PPM") for digit in range(1, 7) for space in b" \n\r\t#"),
)
"""Formats by their signature: Pillow's others are guesswork or run other programs."""
_NO_IMAGES = (
    (rb"%PDF-", "a PDF"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive (zip, gzip, rar, 7z)"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"\s*<(?:!doctype\s+html|html|head|body|script)", "HTML"),
    (rb"\s*(?:<\?xml.*?)?<svg", "SVG, which has no pixels"),
    (rb"\s*<[?!a-z]", "XML"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the real files with `git lfs pull`"),
    (rb"\0+\Z", "nothing but zero bytes"),
)
"""Patterns at the start of files that are no images, and what such a file is."""
_SIGNATURES = (b"\xff\xd8", PNG_SIGNATURE, b"RIFF", *(magic for magic, _ in _MAGIC))


def _sniff(data: bytes) -> str:
    """Return Pillow's name of the format, by signature."""
    if not data:
        raise ImageError("empty", "the file has no bytes")
    head = data[:16]
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis"):
            return "AVIF"
        if head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            raise ImageError("unsupported", "HEIC can't be read here; convert it to JPEG first")
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        raise ImageError("unsupported", "JPEG XL can't be read here; convert it to JPEG first")
    if len(data) < 12 and (head.startswith(b"RIFF") or any(magic.startswith(data) for magic in _SIGNATURES)):
        raise ImageError("truncated", f"only {len(data)} bytes")
    raise ImageError("not-an-image", f"looks like {_describe(data[:4096])}")


def looks_like_an_image(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an image format, readable here or not."""
    try:
        return head.startswith((b"\xff\xd8", PNG_SIGNATURE, b"RIFF")) or bool(_sniff(head))
    except ImageError as error:
        return error.reason == "unsupported"


def _describe(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, what in _NO_IMAGES:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return what
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", head):
        shown = " ".join(head[:200].decode("utf-8", "replace").split())
        return f"text: {shown[:40]!r}"
    return f"unknown binary data, starting {head[:8].hex(' ')}"


def _probe_other(data: bytes, name: str) -> ImageInfo:
    with pillow_errors(), open_image(data, name) as image:
        mode, bits, orientation = image.mode, 8, 1
        if mode == "1":
            bits = 1
        elif mode.startswith("I;16"):
            mode, bits = "I;16", 16
        elif mode in ("I", "F"):
            bits = 32
        elif mode == "P" and "transparency" in image.info:
            mode = "PA"
        if name == "TIFF":
            # Pillow makes a TIFF upright itself, and its size is that of the upright picture.
            if mode != "1" and max(getattr(image, "tag_v2", {}).get(258, (8,))) == 16:
                mode, bits = mode if mode == "I;16" else f"{mode};16", 16
        else:
            orientation = image.getexif().get(0x0112, 1)
        if orientation not in range(1, 9):
            orientation = 1
        width, height = image.size
        if not width or not height:
            raise ImageError("corrupt", f"{name} header says {width} x {height} pixels")
        animated = bool(getattr(image, "is_animated", False))
    return ImageInfo(name.lower(), width, height, mode, bits, orientation, animated)
