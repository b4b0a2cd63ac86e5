"""Planes by our own decoder of baseline JPEGs, beside those of libjpeg: the same samples, and the same verdict."""

from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from imgdata import native
from support.pictures import cmyk_jpeg, encode, jpeg, photo

if native.AVAILABLE:
    from imgdata.native import _compiled

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")

WHOLE = (0, 0, 0, 0)
"""The part that stands for the whole file, up to its end marker."""
SHRINKS = (1, 2, 4, 8)
KINDS = ("gray", "4:4:4", "4:2:2", "4:2:0", "4:4:0")
CONTENTS = ("noise", "photograph", "flat")


def picture(size: tuple[int, int], content: str) -> Image.Image:
    if content == "noise":
        # Long codes, and blocks without an end.
        value = np.random.Generator(np.random.Philox(key=7)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return Image.fromarray(value)
    return photo().resize(size) if content == "photograph" else Image.new("RGB", size, (200, 30, 90))


def written(image: Image.Image, kind: str, quality: int, **options: Any) -> bytes:
    if kind == "4:4:0":
        # Pillow has no word for it.
        data: bytes = simplejpeg.encode_jpeg(np.array(image), quality, "RGB", "440")
        return data
    if kind == "gray":
        return encode(image.convert("L"), "JPEG", quality=quality, **options)
    return encode(image, "JPEG", quality=quality, subsampling=kind, **options)


def size_of(data: bytes) -> tuple[int, int]:
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return width, height


def planes(data: bytes, shrink: int, part: tuple[int, int, int, int], *, own: bool, simd: str = native.SIMD[-1]) -> Any:
    return _compiled.planes(data, size_of(data), shrink, part, native.SIMD.index(simd), own)


def parts(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The whole, each corner, a strip on each side, one pixel, and the middle."""
    right, bottom, x, y = width - width // 3, height - height // 3, width // 2, height // 2
    return [
        WHOLE,
        (0, 0, x + 1, y + 1),
        (x, 0, width, y + 1),
        (0, y, x + 1, height),
        (x, y, width, height),
        (0, 0, width, 1),
        (width - 1, 0, width, height),
        (x, y, x + 1, y + 1),
        (width // 3, height // 3, max(right, width // 3 + 1), max(bottom, height // 3 + 1)),
    ]


def assert_planes_are_libjpegs(data: bytes, simds: tuple[str, ...] = native.SIMD[-1:]) -> None:
    for shrink in SHRINKS:
        for part in parts(*size_of(data)):
            expected = planes(data, shrink, part, own=False)
            assert expected is not None
            for simd in simds:
                assert planes(data, shrink, part, own=True, simd=simd) == expected, (shrink, part, simd)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 9), (16, 33), (131, 70), (3, 90)])
def test_every_sample_is_libjpegs(size: tuple[int, int], kind: str, content: str) -> None:
    assert_planes_are_libjpegs(written(picture(size, content), kind, 92), native.SIMD)


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("quality", [1, 5, 20, 50, 75, 90, 97, 100])
@pytest.mark.parametrize("content", CONTENTS)
def test_every_quality_and_all_tables_are_read(content: str, quality: int, optimize: bool) -> None:
    for kind in ("gray", "4:2:0"):
        assert_planes_are_libjpegs(written(picture((97, 66), content), kind, quality, optimize=optimize))


@pytest.mark.parametrize(
    "options", [*({"restart_marker_blocks": mcus} for mcus in (1, 2, 3, 5, 7, 11, 60)), {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("kind", KINDS[:4])
def test_restart_markers_may_stand_anywhere(kind: str, options: dict[str, int]) -> None:
    # 9 x 5 MCUs of 16 pixels: an interval divides a row, is a row, or goes over its end.
    assert_planes_are_libjpegs(written(picture((144, 79), "photograph"), kind, 90, **options))


@pytest.mark.parametrize("interval", [1, 3, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_crop_ready_files_are_read_from_the_segments_of_the_part(kind: str, interval: int) -> None:
    made = native.make_crop_ready(written(picture((288, 120), "photograph"), kind, 93), interval=interval)
    assert made is not None
    assert_planes_are_libjpegs(made[0])


@pytest.mark.skipif(native.SIMD[-1] == "scalar", reason="without its vector code libjpeg overflows in another way")
@pytest.mark.parametrize("step", [1000, 5000, 20_000, 32_767, 32_768, 65_535])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_beyond_all_samples_overflow_as_in_libjpeg(kind: str, step: int) -> None:
    for content in CONTENTS:
        found, rest = segments(written(picture((48, 40), content), kind, 80))
        for at, one in enumerate(found):
            if one[1] == 0xDB:
                found[at] = segment(0xDB, bytes([one[4] | 0x10]) + 64 * step.to_bytes(2))
        assert_planes_are_libjpegs(joined(found, rest), native.SIMD)


# --- headers ---------------------------------------------------------------------------------------------------


def segments(data: bytes) -> tuple[list[bytes], bytes]:
    """The segments before the scan, and the rest."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4])
        found.append(data[at : at + length])
        at += length
    return found, data[at:]


def joined(found: list[bytes], rest: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(found) + rest


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload


def wide_quant(data: bytes) -> bytes:
    """Quantisation tables of 16 bits."""
    found, rest = segments(data)
    for at, one in enumerate(found):
        if one[1] == 0xDB:
            found[at] = segment(0xDB, bytes([one[4] | 0x10]) + b"".join(bytes([0, step]) for step in one[5:]))
    return joined(found, rest)


def tables_in_one(data: bytes) -> bytes:
    found, rest = segments(data)
    codes = b"".join(one[4:] for one in found if one[1] == 0xC4)
    return joined([*(one for one in found if one[1] != 0xC4), segment(0xC4, codes)], rest)


def other_tables_first(data: bytes) -> bytes:
    """Codes that are defined twice: the last ones count."""
    other, _ = segments(jpeg(optimize=True))
    found, rest = segments(data)
    return joined([one for one in other if one[1] == 0xC4] + found, rest)


def ids(data: bytes, numbers: bytes) -> bytes:
    """Components of other numbers, without a word of JFIF."""
    found, rest = segments(data)
    kept = []
    for one in found:
        if one[1] == 0xC0:
            one = one[:10] + b"".join(numbers[i : i + 1] + one[11 + 3 * i : 13 + 3 * i] for i in range(3))
        if one[1] != 0xE0:
            kept.append(one)
    scan = rest[:5] + b"".join(numbers[i : i + 1] + rest[6 + 2 * i : 7 + 2 * i] for i in range(3)) + rest[11:]
    return joined(kept, scan)


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    return data[:2] + segment(marker, payload) + data[2:]


READ = {
    "16-bit quantisation": lambda: wide_quant(jpeg()),
    "all codes in one segment": lambda: tables_in_one(jpeg()),
    "codes that are defined twice": lambda: other_tables_first(jpeg()),
    "extended sequential": lambda: jpeg().replace(b"\xff\xc0", b"\xff\xc1", 1),
    "no JFIF, components 1 to 3": lambda: ids(jpeg(), b"\1\2\3"),
    "no JFIF, odd components": lambda: ids(jpeg(), b"\0\7\x22"),
    "YCbCr by Adobe": lambda: with_segment(ids(jpeg(), b"RGB"), 0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "a comment and EXIF": lambda: with_segment(with_segment(jpeg(), 0xFE, b"a" * 99), 0xE1, b"Exif\0\0" + bytes(40)),
    "bytes behind the end": lambda: jpeg() + b"\xff\xd8 more",
}
LEFT_TO_LIBJPEG = {
    "progressive": lambda: jpeg(progressive=True),
    "RGB by its components": lambda: ids(jpeg(), b"RGB"),
    "RGB by Adobe": lambda: with_segment(ids(jpeg(), b"\1\2\3"), 0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "CMYK": lambda: cmyk_jpeg(None),
    "JFIF of another version": lambda: jpeg().replace(b"JFIF\0\1", b"JFIF\0\3", 1),
    "fill bytes": lambda: jpeg().replace(b"\xff\xda", b"\xff\xff\xda", 1),
    "no codes": lambda: joined([one for one in segments(jpeg())[0] if one[1] != 0xC4], segments(jpeg())[1]),
    "a code of ones": lambda: jpeg().replace(b"\0\1\5\1\1\1\1\1\1", b"\2\1\5\1\1\1\1\1\1", 1),
    "no end marker": lambda: jpeg()[:-2],
    "another size": lambda: jpeg().replace(b"\x08\0\x78\0\xa0", b"\x08\0\x78\0\xb0", 1),
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", READ)
def test_headers_of_all_kinds_are_read(name: str) -> None:
    assert_planes_are_libjpegs(READ[name]())


@pytest.mark.parametrize("name", LEFT_TO_LIBJPEG)
def test_what_is_unusual_is_left_to_libjpeg(name: str) -> None:
    assert _compiled.planes(LEFT_TO_LIBJPEG[name](), (160, 120), 1, WHOLE, 0, True) is None


# --- damage ------------------------------------------------------------------------------------------------------


def taken_as_by_libjpeg(data: bytes, shrink: int, part: tuple[int, int, int, int]) -> bool:
    """Whether our decoder takes a file whose header says 48 x 40; then libjpeg has to take it, and to make the same."""
    own, other = (_compiled.planes(data, (48, 40), shrink, part, len(native.SIMD) - 1, own) for own in (True, False))
    assert own is None or own == other
    return own is not None


def small(kind: str, **options: Any) -> bytes:
    return written(picture((48, 40), "photograph"), kind, 60, **options)


SMALL = {
    "4:2:0": lambda: small("4:2:0"),
    "gray": lambda: small("gray"),
    "optimised": lambda: small("4:4:4", optimize=True),
    "restart markers": lambda: small("4:2:0", restart_marker_blocks=2),
    "crop-ready": lambda: (native.make_crop_ready(small("4:2:2"), interval=1) or (b"",))[0],
}
PART = (20, 10, 30, 22)


@pytest.mark.parametrize("name", SMALL)
def test_of_a_file_cut_off_anywhere_nothing_is_taken_that_libjpeg_refuses(name: str) -> None:
    data = SMALL[name]()
    for end in range(len(data)):
        for rest in (b"", b"\xff\xd9"):
            for part in (WHOLE, PART):
                taken_as_by_libjpeg(data[:end] + rest, 1, part)


@pytest.mark.parametrize("name", SMALL)
def test_of_a_file_with_a_changed_byte_nothing_is_taken_that_libjpeg_refuses(name: str) -> None:
    data = SMALL[name]()
    taken = 0
    for at in range(len(data)):
        for flipped in (0x01, 0x80, 0xFF):
            damaged = data[:at] + bytes([data[at] ^ flipped]) + data[at + 1 :]
            taken += taken_as_by_libjpeg(damaged, 1 + at % 2, (WHOLE, PART)[at % 2])
    # Many changes leave no trace but other colours.
    assert taken > 50
