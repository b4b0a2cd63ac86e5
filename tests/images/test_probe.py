"""imgdata.images.probe: what a header says, for good files, odd files and files that are no images."""

import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from imgdata.errors import ImageError
from imgdata.images.info import ImageInfo
from imgdata.images.jpeg import has_plain_header
from imgdata.images.probe import probe
from support.pictures import (
    FORMATS,
    animation,
    bomb,
    chunk,
    cmyk_jpeg,
    encode,
    exif,
    jpeg,
    palette_with_alpha,
    photo,
    photo_file,
    png,
    png16,
    present,
    rgba,
    with_segment,
)

FILES = present(
    {
        "jpeg": (jpeg(), "jpeg", "RGB", 8),
        "jpeg progressive": (jpeg(progressive=True), "jpeg", "RGB", 8),
        "jpeg 4:4:4": (jpeg(subsampling=0), "jpeg", "RGB", 8),
        "jpeg with restarts": (jpeg(restart_marker_blocks=2), "jpeg", "RGB", 8),
        "jpeg gray": (jpeg("L"), "jpeg", "L", 8),
        "jpeg cmyk": (cmyk_jpeg(0), "jpeg", "CMYK", 8),
        "jpeg cmyk without adobe": (cmyk_jpeg(None), "jpeg", "CMYK", 8),
        "jpeg ycck": (cmyk_jpeg(2), "jpeg", "YCCK", 8),
        "png": (encode(photo(), "PNG"), "png", "RGB", 8),
        "png gray": (encode(photo().convert("L"), "PNG"), "png", "L", 8),
        "png black and white": (encode(photo().convert("1"), "PNG"), "png", "1", 1),
        "png gray 2 bits": (png(4, 1, 2, 0, b"\0\x1b"), "png", "L", 2),
        "png gray alpha": (encode(rgba().convert("LA"), "PNG"), "png", "LA", 8),
        "png rgba": (encode(rgba(), "PNG"), "png", "RGBA", 8),
        "png palette": (encode(photo().quantize(200), "PNG"), "png", "P", 8),
        "png palette 4 bits": (encode(photo().quantize(16), "PNG"), "png", "P", 4),
        "png palette alpha": (palette_with_alpha(), "png", "PA", 4),
        "png gray 16": (png16(0, 1), "png", "I;16", 16),
        "png rgb 16": (png16(2, 3), "png", "RGB;16", 16),
        "png gray alpha 16": (png16(4, 2), "png", "LA;16", 16),
        "png rgba 16": (png16(6, 4), "png", "RGBA;16", 16),
        "webp lossy": (encode(photo(), "WEBP"), "webp", "RGB", 8),
        "webp lossless": (encode(photo(), "WEBP", lossless=True), "webp", "RGB", 8),
        "webp lossy alpha": (encode(rgba(), "WEBP"), "webp", "RGBA", 8),
        "webp lossless alpha": (encode(rgba(), "WEBP", lossless=True), "webp", "RGBA", 8),
        "gif": (encode(photo(), "GIF"), "gif", "P", 8),
        "bmp": (encode(photo(), "BMP"), "bmp", "RGB", 8),
        "tiff": (encode(photo(), "TIFF"), "tiff", "RGB", 8),
        "tiff gray 16": (encode(Image.new("I;16", (160, 120), 999), "TIFF"), "tiff", "I;16", 16),
        "ppm": (encode(photo(), "PPM"), "ppm", "RGB", 8),
        "jpeg 2000": (encode(photo(), "JPEG2000"), "jpeg2000", "RGB", 8),
    }
)
PILLOW_MODE = {"YCCK": "CMYK", "PA": "P", "RGB;16": "RGB", "RGBA;16": "RGBA", "LA;16": "RGBA"}
VALID = [*(data for data, *_ in FILES.values()), *map(animation, ["GIF", *FORMATS[1:]]), jpeg(exif=exif(6)[6:])]


@pytest.mark.parametrize(("data", "format", "mode", "bits"), FILES.values(), ids=FILES)
def test_header_facts_are_those_of_pillow(data: bytes, format: str, mode: str, bits: int) -> None:
    info = probe(data)
    assert (info.format, info.mode, info.bits) == (format, mode, bits)
    assert (info.orientation, info.animated) == (1, False)
    with Image.open(io.BytesIO(data)) as image:
        assert (info.width, info.height) == image.size
        assert PILLOW_MODE.get(mode, mode) in (image.mode, "LA" if mode == "LA;16" else image.mode)


@pytest.mark.parametrize(
    "path",
    [
        *(photo_file("skimage", f"data/{name}") for name in ("rocket.jpg", "retina.jpg", "astronaut.png", "logo.png")),
        *(photo_file("sklearn", f"datasets/images/{name}") for name in ("china.jpg", "flower.jpg")),
    ],
    ids=lambda path: path.name,
)
def test_header_facts_of_photographs_are_those_of_pillow(path: Path) -> None:
    info = probe(path.read_bytes())
    with Image.open(path) as image:
        expected = (image.size, image.mode, image.format, image.getexif().get(0x0112, 1))
    assert ((info.width, info.height), info.mode, info.format.upper(), info.orientation) == expected


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_buffer_will_do(kind: type[bytearray] | type[memoryview]) -> None:
    assert probe(kind(jpeg())) == ImageInfo("jpeg", 160, 120, "RGB", 8)


@pytest.mark.parametrize("format", ["GIF", *FORMATS[1:]])
def test_animations_are_told_from_single_pictures(format: str) -> None:
    assert probe(animation(format)).animated
    assert not probe(encode(photo(), format)).animated


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", FORMATS)
def test_orientation_is_read_from_exif(format: str, orientation: int) -> None:
    info = probe(encode(photo(), format, exif=exif(orientation)))
    assert info.orientation == orientation
    assert info.upright_size == ((160, 120) if orientation < 5 else (120, 160))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_through_pillow() -> None:
    assert probe(encode(rgba(), "AVIF")) == ImageInfo("avif", 160, 120, "RGBA", 8)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (exif(6, "<"), 6),
        (exif(6, ">"), 6),
        (exif(8, "<", kind=4), 8),
        (exif(8, ">", kind=4), 8),
        (exif(0), 1),  # not among 1 to 8
        (exif(9), 1),
        (exif(6)[:-8], 1),  # the entry is cut
        (exif(6)[:12], 1),
        (b"Exif\0\0" + b"II*\0" + b"\xff" * 4, 1),  # the directory lies outside
        (b"Exif\0\0" + b"MM*\0" + exif(6)[10:], 1),  # byte order and magic disagree
        (b"Exif\0\0", 1),
        (b"http://ns.adobe.com/xap/1.0/\0<x/>", 1),
    ],
)
def test_orientation_of_jpeg_survives_odd_exif(block: bytes, expected: int) -> None:
    assert probe(with_segment(jpeg(), 0xE1, block)).orientation == expected


def test_orientation_is_found_behind_other_app1_segments() -> None:
    data = with_segment(with_segment(jpeg(), 0xE1, exif(3)), 0xE1, b"http://ns.adobe.com/xap/1.0/\0")
    assert probe(data).orientation == 3


def test_fill_bytes_and_garbage_between_segments_are_passed_over() -> None:
    data = jpeg()
    at = data.index(b"\xff\xdb")
    assert probe(data[:at] + b"\xff\xff\xff" + data[at:]) == probe(data)
    assert probe(data[:at] + b"garbage\xff\0" + data[at:]) == probe(data)


def test_adobe_segment_behind_the_frame_header_still_tells_ycck() -> None:
    data = cmyk_jpeg(2)
    segment = data[2:18]
    assert segment[:2] == b"\xff\xee"
    tables = data.index(b"\xff\xc4")
    assert probe(data[:2] + data[18:tables] + segment + data[tables:]).mode == "YCCK"


def test_bombs_are_only_read_by_their_header() -> None:
    info = probe(bomb())
    assert (info.width, info.height) == (60_000, 60_000)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "no bytes"),
        (b"\xff\xd8", "truncated", "JPEG header incomplete after 2 bytes"),
        (jpeg()[:100], "truncated", "JPEG header incomplete after 100 bytes"),
        (encode(photo(), "PNG")[:20], "truncated", "PNG"),
        (b"RIFF\x20\0\0\0WEBPVP8 \0\0", "truncated", "WebP header incomplete after 18 bytes"),
        (b"RIFF\x60\0\0\0WEBPVP8X\x0a\0\0\0\x08\0\0\0" + bytes(6) + b"EXIF\x26\0\0\0MM", "truncated", "WebP ends"),
        (encode(photo(), "BMP")[:20], "truncated", "Truncated"),
        (b"RIFF", "truncated", "only 4 bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not-an-image", "looks like HTML"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "not-an-image", "looks like HTML"),
        (b'<?xml version="1.0"?><svg width="3"/>', "not-an-image", "looks like SVG"),
        (b'<?xml version="1.0"?><Error/>', "not-an-image", "looks like XML"),
        (b'{"error": "not found"}', "not-an-image", "looks like JSON"),
        (b"Not Found\n", "not-an-image", "looks like text: 'Not Found'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not-an-image", "Git LFS pointer"),
        (b"%PDF-1.7\n", "not-an-image", "looks like a PDF"),
        (b"PK\x03\x04\x14\0", "not-an-image", "looks like an archive"),
        (bytes(5000), "not-an-image", "nothing but zero bytes"),
        (b"\x80\x02}q\x01\0\0\0\0\0\0\0", "not-an-image", "unknown binary data, starting 80 02"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported", "HEIC"),
        (b"\xff\xd8\xff\xd9", "corrupt", "without a picture"),
        (b"\xff\xd8\xff\xdb\0\1", "corrupt", "no valid length"),
        (b"\xff\xd8\xff\xda\0\2", "corrupt", "no frame header"),
        (b"\xff\xd8\xff\xc0\0\4\0\0", "corrupt", "frame header is too short"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x05\x01\1\x11\0", "corrupt", "5 x 0 pixels"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\4\0\x05\x02\1\x11\0", "corrupt", "2 colour components"),
        (png(0, 5, 8, 2, b""), "corrupt", "0 x 5"),
        (png(5, 5, 3, 2, b""), "corrupt", "type 2, 3 bits"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "corrupt", "does not start with its header"),
        (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(40), "corrupt", "key frame"),
        (b"RIFF\x20\0\0\0WEBPABCD" + bytes(40), "corrupt", "unknown chunk b'ABCD'"),
        (b"II*\0", "truncated", "unpack"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(ImageError, match=detail) as caught:
        probe(data)
    assert caught.value.reason == reason


@given(st.sampled_from(VALID), st.integers(0, 4000))
def test_a_prefix_is_read_or_refused(data: bytes, size: int) -> None:
    try:
        info = probe(data[:size])
    except ImageError:
        return
    assert info.format == probe(data).format


@given(st.sampled_from(VALID), st.randoms(use_true_random=False))
def test_a_damaged_header_is_read_or_refused(data: bytes, rng: random.Random) -> None:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
    try:
        info = probe(damaged)
    except ImageError:
        return
    assert info.width > 0
    assert info.height > 0
    assert 1 <= info.orientation <= 8


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        probe(b"\xff\xd8" + data)
    with pytest.raises(ImageError):
        probe(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (jpeg(), True),
        (jpeg(progressive=True), True),
        (jpeg("L"), True),
        (jpeg(restart_marker_blocks=2), True),
        (cmyk_jpeg(2), True),
        (jpeg()[:20] + b"hello" + jpeg()[20:], False),  # behind JFIF's segment
        (jpeg()[:20] + b"\xff" + jpeg()[20:], False),  # a fill byte, which decoders pass over
        (jpeg()[:20] + b"\xff\x02\0\x02" + jpeg()[20:], False),  # a reserved marker
        (jpeg()[:20] + b"\xff\xfe\0\x01" + jpeg()[20:], False),  # a segment shorter than its own length
        (jpeg()[:20] + b"\xff\xfe\xff\xff" + jpeg()[20:], False),  # one that ends behind the file
        (jpeg().replace(b"\xff\xc0", b"\xff\xfe"), False),  # no frame
        (b"\xff\xd8" + jpeg()[2:] + jpeg()[2:], True),  # what lies behind the scan is not looked at
        (jpeg()[:30], False),
        (b"\xff\xd8\xff\xd9", False),
    ],
)
def test_a_plain_header_is_segment_behind_segment(data: bytes, plain: bool) -> None:
    assert has_plain_header(data) is plain
