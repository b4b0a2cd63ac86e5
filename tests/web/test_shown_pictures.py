"""Thumbnails: every kind of picture upright, small, in RGB; a damaged one is a message; the last asked for first."""

import io
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgdata.errors import ImageError
from imgdata.images.probe import probe
from imgdata.web import thumbnails as module
from imgdata.web.rows import Row
from imgdata.web.thumbnails import SIDES, Thumbnails, thumbnail
from imgdata.web.view import open_viewer
from support.pictures import cmyk_jpeg, encode, exif, jpeg, palette_with_alpha, photo, png16, rgba, with_segment


def row(data: bytes) -> Row:
    """The row of a picture's file, by its header."""
    info = probe(data)
    return Row(
        number=0,
        split="train",
        position=0,
        key="a",
        source="a",
        label=0,
        width=info.width,
        height=info.height,
        size=len(data),
        format=info.format,
        mode=info.mode,
        orientation=info.orientation,
        shard="a.tar",
        offset=0,
        xxh64=0,
    )


def shown(data: bytes, side: int) -> Image.Image:
    with Image.open(io.BytesIO(thumbnail(data, row(data), side))) as image:
        assert image.format == "JPEG"
        image.load()
        return image


KINDS = {
    "jpeg": jpeg(quality=95),
    "gray jpeg": jpeg("L", quality=95),
    "cmyk jpeg": cmyk_jpeg(None),
    "cmyk jpeg of Adobe": cmyk_jpeg(2),
    "progressive jpeg": jpeg(progressive=True, quality=95),
    "png": encode(photo(), "PNG"),
    "png with alpha": encode(rgba(), "PNG"),
    "png with a palette and alpha": palette_with_alpha(),
    "png of one bit": encode(photo().convert("1"), "PNG"),
    "gray png of 16 bits": png16(0, 1),
    "png of 16 bits": png16(2, 3),
    "gif": encode(photo(), "GIF"),
    "bmp": encode(photo(), "BMP"),
    "webp": encode(photo(), "WEBP"),
}


@pytest.mark.parametrize("side", [SIDES[0], SIDES[-1]])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_small_jpeg_of_the_same_shape(kind: str, side: int) -> None:
    data = KINDS[kind]
    if not data:
        pytest.skip("this Pillow can't write the format")
    facts, image = row(data), shown(data, side)
    longer = min(side, max(facts.width, facts.height))
    assert max(image.size) == longer
    scale = longer / max(facts.width, facts.height)
    assert abs(min(image.size) - min(facts.width, facts.height) * scale) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_lies_on_its_side_is_shown_upright(orientation: int) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = photo() if orientation == 1 else photo().transpose(Image.Transpose(back[orientation]))
    data = with_segment(encode(stored, "JPEG", quality=95), 0xE1, exif(orientation))
    assert row(data).orientation == orientation
    image, expected = shown(data, 96), photo().resize((96, 72), Image.Resampling.BICUBIC)
    assert image.size == (96, 72)
    assert np.abs(np.asarray(image, int) - np.asarray(expected, int)).mean() < 6


@pytest.mark.parametrize("kind", ["jpeg", "png", "progressive jpeg"])
def test_a_thumbnail_looks_like_its_picture(kind: str) -> None:
    expected = photo().resize((64, 48), Image.Resampling.BICUBIC)
    difference = np.asarray(shown(KINDS[kind], 64), int) - np.asarray(expected, int)
    assert np.abs(difference).mean() < 10


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (80, 60), (255, 0, 0, 0))
    assert min(shown(encode(clear, "PNG"), 64).getpixel((32, 24))) > 250


def test_gray_of_sixteen_bits_shows_its_most_significant_ones() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    image = shown(encode(Image.fromarray(ramp), "PNG"), 64)
    assert image.getpixel((1, 0))[0] < 10
    assert 110 < image.getpixel((32, 24))[0] < 146
    assert image.getpixel((62, 47))[0] > 245


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_extreme_shapes_keep_a_pixel(size: tuple[int, int], side: int) -> None:
    image = shown(encode(Image.new("RGB", size, "red"), "JPEG"), side)
    assert max(image.size) == min(side, max(size))
    assert min(image.size) >= 1


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif"])
@pytest.mark.parametrize("end", [0, 3, 40])
def test_a_damaged_picture_is_an_image_error(kind: str, end: int) -> None:
    facts = row(KINDS[kind])
    with pytest.raises(ImageError):
        thumbnail(KINDS[kind][:end], facts, 96)


def test_more_pixels_than_are_decoded_are_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="too-large: 160 x 120 pixels"):
        thumbnail(KINDS["png"], row(KINDS["png"]), 96)


def test_the_last_asked_for_comes_first_and_what_is_cancelled_never(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = open_viewer(zoo).rows
    made, begin, begun = [], threading.Event(), threading.Event()

    def slow(data: bytes, row: Row, side: int) -> bytes:
        begun.set()
        begin.wait()
        made.append(row.number)
        return b"jpeg"

    monkeypatch.setattr(module, "thumbnail", slow)
    thumbnails = Thumbnails(rows, threads=1)
    first = thumbnails.submit(0, 96)
    begun.wait()
    waiting = [thumbnails.submit(number, 96) for number in (1, 2, 3, 4)]
    assert waiting[1].cancel()
    begin.set()
    assert [one.result() for one in (first, waiting[0], waiting[2], waiting[3])] == [b"jpeg"] * 4
    assert made == [0, 4, 3, 1]
    with pytest.raises(CancelledError):
        waiting[1].result()
    # Kept: it is not made again.
    assert thumbnails.submit(4, 96).result() == b"jpeg"
    assert made == [0, 4, 3, 1]
    thumbnails.close()


def test_thumbnails_that_are_kept_have_a_bound(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_BYTES", 250)
    monkeypatch.setattr(module, "thumbnail", lambda data, row, side: bytes(100))
    thumbnails = Thumbnails(open_viewer(zoo).rows, threads=1)
    for number in range(20):
        thumbnails.submit(number, 96).result()
    assert thumbnails._bytes <= 300
    assert len(thumbnails._kept) <= 3
    thumbnails.close()
