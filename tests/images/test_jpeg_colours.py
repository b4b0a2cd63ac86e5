"""Whether a JPEG holds RGB or YCbCr, by libjpeg's rules: what libjpeg makes of it shows whether that is so."""

import io

import numpy as np
import pytest
from PIL import Image

from imgdata.images.jpeg import is_stored_as_rgb
from support.loaders import sample

COLOUR = (200, 30, 90)
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def stored(**options):
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), COLOUR, np.uint8)).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def adobe(transform):
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def without(data, marker):
    """The JPEG without its segments of that marker."""
    place = 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if data[place + 1] == marker:
            data, end = data[:place] + data[end:], place
        place = end
    return data


YCC = without(without(stored(), 0xE0), 0xEE)
RGB = without(without(stored(keep_rgb=True), 0xE0), 0xEE)


@pytest.mark.parametrize(
    ("segments", "data", "is_rgb"),
    [
        (b"", stored(), False),
        (b"", stored(keep_rgb=True), True),
        (b"", YCC, False),
        (b"", RGB, True),
        (adobe(0), YCC, True),
        (adobe(1), RGB, False),
        (adobe(0) + JFIF, RGB, False),
        (JFIF + adobe(0), RGB, False),
        (b"\xff\xfe\0\x06text" + adobe(0), YCC, True),
    ],
)
def test_what_libjpeg_takes_for_rgb_is_told(segments, data, is_rgb):
    holds_rgb = data in (stored(keep_rgb=True), RGB)
    data = data[:2] + segments + data[2:]
    assert is_stored_as_rgb(data) is is_rgb
    # libjpeg shows what is stored as it is, if it takes that for RGB, and converts it otherwise.
    with Image.open(io.BytesIO(data)) as image:
        shown = np.asarray(image)[8, 8]
    assert (np.abs(shown.astype(int) - COLOUR).max() < 8) == (holds_rgb == is_rgb)


def test_gray_and_cmyk_do_not_hold_rgb():
    assert not is_stored_as_rgb(sample(7))
    assert not is_stored_as_rgb(sample(8))
