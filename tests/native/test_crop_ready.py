"""imgdata.native: JPEGs with restart markers, of which the segments of a crop are decoded alone."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgdata import native
from imgdata.images.probe import probe
from support import pictures
from support.native_crops import SAMPLINGS, Files, Geometry, cropped, encode, gentle, geometries, submit

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")

ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYV"
    "pQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAAY"
    "ACgDASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AJMcLpjY8eknQd3TnFzh2kbkr5aQbg+xrjuUNEfvPdWTI23CdMMwE6l2FB"
    "W/s2dQPf6uo0Unp++as06lsCQLPTut5r3T31Q2LpYF2RjqNd5f0ZlpXc5IaWPvJbkmTZbIvK4Akjumiyaqu5mgGXyvkJgZAd5Lkbou9Cf6s5Qf"
    "2SJ9l0YyX/qIVYnsaRqFVuq+HDs6Yrqghz3GNgTjeMqjSubGoQZwWA4P2I3VK6xX2pSagGXfMeh2gP/Z"
)
"""40 x 24 pixels, 4:2:0, arithmetic coding: `arith_code` of libjpeg-turbo."""


@pytest.fixture(scope="module")
def pool() -> Iterator[native.Pool]:
    pool = native.Pool(1)
    yield pool
    pool.close()


def ready(data: bytes, *, strip: bool = False, orientation: int = 1, interval: int = 0) -> tuple[bytes, int]:
    """`make_crop_ready`, where it has to take the file."""
    result = native.make_crop_ready(data, strip=strip, orientation=orientation, interval=interval)
    assert result is not None
    return result


def picture(width: int, height: int, sampling: str, seed: int = 0, *, progressive: bool = False) -> bytes:
    image = gentle(width, height, seed, 250)
    return encode(image if sampling != "gray" else image.convert("L"), sampling, progressive=progressive)


def by_pillow(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


# --- coefficients ---------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.integers(1, 150),
    st.integers(1, 90),
    st.sampled_from([*SAMPLINGS, "gray"]),
    st.booleans(),
    st.integers(0, 100),
)
def test_coefficients_are_those_of_the_original(
    width: int, height: int, sampling: str, progressive: bool, seed: int
) -> None:
    original = picture(width, height, sampling, seed, progressive=progressive)
    data, interval = ready(original)
    assert native.same_coefficients(original, data)
    assert native.crop_interval(data) == interval
    assert data.count(b"\xff\xda") == 1


@pytest.mark.parametrize("options", [{"restart_marker_rows": 1}, {"restart_marker_blocks": 5}, {"optimize": True}])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_markers_that_a_file_has_are_replaced(options: dict[str, object], subsampling: str) -> None:
    original = by_pillow(gentle(133, 70, 3, 250), subsampling=subsampling, **options)
    data, interval = ready(original)
    assert native.same_coefficients(original, data)
    assert native.crop_interval(data) == interval


def test_arithmetic_coding_becomes_huffmans() -> None:
    data, interval = ready(ARITHMETIC)
    assert native.same_coefficients(ARITHMETIC, data)
    assert (native.crop_interval(data), b"\xff\xcc" in data) == (interval, False)


def test_rgb_and_rare_samplings_keep_their_coefficients() -> None:
    for options in ({"keep_rgb": True}, {"subsampling": "4:1:1"}):
        original = by_pillow(gentle(70, 50, 1), **options)
        data, _ = ready(original)
        assert native.same_coefficients(original, data)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(io.BytesIO(original))))


def test_another_coefficient_is_found() -> None:
    one, other = picture(40, 40, "4:2:0", 1), picture(40, 40, "4:2:0", 2)
    assert native.same_coefficients(one, one)
    assert not native.same_coefficients(one, other)
    assert not native.same_coefficients(one, picture(40, 41, "4:2:0", 1))
    with pytest.raises(ValueError, match="without a warning"):
        native.same_coefficients(one, other[:-20])


def test_made_ready_twice_it_is_the_same_file() -> None:
    data, interval = ready(picture(150, 90, "4:2:0"))
    assert ready(data) == (data, interval)


def test_codes_are_optimised() -> None:
    original = by_pillow(pictures.photo(), quality=95)
    assert len(ready(original)[0]) < len(original)


# --- the interval ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "sampling", "interval"),
    [
        (500, "4:2:0", 2),  # 32 MCUs
        (500, "4:2:2", 2),
        (500, "4:4:4", 7),  # 63 MCUs of 8 pixels
        (512, "4:4:4", 4),
        (500, "gray", 7),
        (240, "4:2:0", 3),  # 15 MCUs
        (560, "4:2:0", 5),  # 35
        (272, "4:2:0", 17),  # a prime number of MCUs: a row
        (20, "4:2:0", 2),
        (16, "4:2:0", 1),
        (1, "gray", 1),
    ],
)
def test_the_interval_is_the_least_of_32_pixels_that_divides_a_row(width: int, sampling: str, interval: int) -> None:
    data, found = ready(picture(width, 40, sampling))
    assert (found, native.crop_interval(data)) == (interval, interval)


def test_another_interval_can_be_asked_for() -> None:
    original = picture(256, 64, "4:2:0")
    assert [ready(original, interval=i)[1] for i in (1, 4, 16)] == [1, 4, 16]
    assert native.crop_interval(ready(original, interval=16)[0]) == 16
    # Segments that go on in the next row can't be cut out.
    assert native.crop_interval(ready(original, interval=3)[0]) == 0
    assert native.crop_interval(original) == 0
    with pytest.raises(ValueError, match="interval 0 to 65535"):
        native.make_crop_ready(original, interval=65536)


# --- what stays -------------------------------------------------------------------------------------------


def icc() -> bytes:
    # Nothing here looks into it, and Pillow-SIMD can't make a real one.
    return b"a profile of colours " * 30


def described() -> bytes:
    return by_pillow(pictures.photo(), icc_profile=icc(), exif=pictures.exif(6), comment=b"a comment")


def test_all_segments_and_bytes_behind_the_end_stay() -> None:
    original = described() + b"behind"
    data, _ = ready(original)
    with Image.open(io.BytesIO(data)) as image, Image.open(io.BytesIO(original)) as before:
        assert {
            name: image.info[name] for name in ("icc_profile", "exif", "comment", "dpi", "jfif") if name in image.info
        } == {
            name: before.info[name] for name in ("icc_profile", "exif", "comment", "dpi", "jfif") if name in before.info
        }
    assert data.endswith(b"\xff\xd9behind")


def test_strip_keeps_what_pixels_depend_on() -> None:
    original = described() + b"behind"
    data, _ = ready(original, strip=True, orientation=6)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == icc()
        assert image.getexif() == {0x0112: 6}
        assert "comment" not in image.info
        assert image.info["jfif"]
    assert data.endswith(b"\xff\xd9")
    assert probe(data).orientation == 6
    assert native.same_coefficients(original, data)


def test_strip_without_an_orientation_writes_none() -> None:
    data, _ = ready(described(), strip=True)
    with Image.open(io.BytesIO(data)) as image:
        assert not image.getexif()


@pytest.mark.parametrize("transform", [0, 1])
@pytest.mark.parametrize("strip", [False, True])
def test_adobes_colours_stay(transform: int, strip: bool) -> None:
    plain = picture(40, 40, "4:4:4")
    # Without JFIF's segment, Adobe's decides between YCbCr and RGB.
    without = plain[:2] + plain[plain.index(b"\xff\xdb") :]
    original = pictures.with_segment(without, 0xEE, b"Adobe" + bytes((0, 100, 0, 0, 0, 0, transform)))
    data, _ = ready(original, strip=strip)
    assert b"JFIF" not in data
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(io.BytesIO(original))))


def test_a_directory_of_more_pictures_stays_as_it_is_unless_stripped() -> None:
    original = pictures.with_segment(picture(40, 40, "4:2:0"), 0xE2, b"MPF\0II*\0") + picture(20, 20, "4:2:0")
    assert native.make_crop_ready(original) is None
    data, _ = ready(original, strip=True)
    assert b"MPF" not in data
    assert native.same_coefficients(original, data)


KEPT = {
    "CMYK": pictures.cmyk_jpeg(0),
    "YCCK": pictures.cmyk_jpeg(2),
    "cut short": picture(80, 80, "4:2:0")[:-30],
    "12 bits": picture(40, 40, "4:2:0").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"),
    "lossless": picture(40, 40, "4:2:0").replace(b"\xff\xc0", b"\xff\xc3"),
    "no JPEG": b"\x89PNG",
    "nothing": b"",
}


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_be_made_ready_is_left_to_others(name: str) -> None:
    assert native.make_crop_ready(KEPT[name]) is None


# --- crops -------------------------------------------------------------------------------------------------


SIZE = (256, 128)
PART = Geometry(box=(200, 60, 30, 20), resized=(30, 20))
WHOLE = Geometry(box=(0, 0, *SIZE), resized=(64, 32))


def outcomes_of(pool: native.Pool, data: bytes, *crops: Geometry) -> list[int]:
    """The outcome of each crop of a file whose header says `SIZE`."""
    with Files([data]) as files:
        return [
            int(submit(pool, files, [SIZE], crop, np.zeros((1, *crop.size[::-1], 3), np.uint8)).wait()[0])
            for crop in crops
        ]


@settings(max_examples=300)
@given(
    st.data(),
    st.sampled_from([*SAMPLINGS, "gray"]),
    st.booleans(),
    st.integers(0, 1000),
    st.sampled_from([0, 1]),
)
def test_any_crop_is_that_of_the_plain_file(
    pool: native.Pool, data: st.DataObject, sampling: str, progressive: bool, seed: int, interval: int
) -> None:
    width, height = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 130))
    geometry = data.draw(geometries(width, height))
    original = picture(width, height, sampling, seed, progressive=progressive)
    assert np.array_equal(
        cropped(pool, ready(original, interval=interval)[0], geometry), cropped(pool, original, geometry)
    )


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "gray"])
def test_crops_of_large_pictures_are_shrunk_alike(pool: native.Pool, sampling: str, shrink: int) -> None:
    width, height = 1000, 700
    original = picture(width, height, sampling)
    data, _ = ready(original)
    for left in (0, 333, width - 8 * 30):
        geometry = Geometry(box=(left, 200, 8 * 30, 8 * 30), resized=(8 * 30 // shrink // 3, 8 * 30 // shrink // 3))
        assert np.array_equal(cropped(pool, data, geometry), cropped(pool, original, geometry))


# --- damage ------------------------------------------------------------------------------------------------


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """One fault behind the header: a byte changed, bytes gone, some repeated, zeros over some, or the end cut off."""
    start = data.index(b"\xff\xda") + 14
    at = int(generator.integers(start, len(data)))
    length = int(generator.integers(1, 400))
    kind = int(generator.integers(6))
    if kind == 0:
        return data[:at] + bytes([int(generator.integers(256))]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + length :]
    if kind == 2:
        return data[:at] + data[max(start, at - length) :]
    if kind == 3:
        return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
    if kind == 4:
        return data[:at] + b"\xff" + bytes([0xD0 + int(generator.integers(8))]) + data[at + 2 :]
    return data[:at] + b"\xff\xd9"


def test_of_damaged_files_a_part_is_bad_only_where_the_whole_is(pool: native.Pool) -> None:
    generator = np.random.Generator(np.random.Philox(key=5))
    data, _ = ready(picture(*SIZE, "4:2:0", 7))
    found = {tuple(outcomes_of(pool, damaged(data, generator), WHOLE, PART)) for _ in range(600)}
    # A fault may lie outside of the part.
    assert found == {(native.UNFIT, native.UNFIT), (native.UNFIT, native.DONE), (native.DONE, native.DONE)}


def places_of_markers(data: bytes) -> list[int]:
    start = data.index(b"\xff\xda")
    return [at for at in range(start, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]


@pytest.mark.parametrize("change", ["another number", "one lost", "eight lost", "one more", "swapped"])
def test_markers_out_of_order_are_left_to_the_whole_file(pool: native.Pool, change: str) -> None:
    data, _ = ready(picture(*SIZE, "4:2:0", 3))
    places = places_of_markers(data)
    changed = bytearray(data)
    first = places[5]
    if change == "another number":
        changed[first + 1] ^= 1
    elif change == "one lost":
        del changed[first : places[6]]
    elif change == "eight lost":
        del changed[first : places[13]]
    elif change == "one more":
        changed[first:first] = changed[first : first + 2]
    else:
        changed[first + 1], changed[places[6] + 1] = changed[places[6] + 1], changed[first + 1]
    assert native.crop_interval(bytes(changed)) == 0
    # Far behind the fault, so that the whole file is decoded through it.
    assert outcomes_of(pool, bytes(changed), Geometry(box=(200, 100, 30, 20), resized=(30, 20))) == [native.UNFIT]


def test_a_fault_in_a_segment_of_the_crop_is_found_and_one_beside_it_is_not(pool: native.Pool) -> None:
    data, _ = ready(picture(*SIZE, "4:2:0", 3))
    places = places_of_markers(data)
    # The first segment of the second row of MCUs, emptied.
    bad = data[: places[7] + 2] + data[places[8] :]
    left = Geometry(box=(0, 20, 20, 10), resized=(20, 10))
    right = Geometry(box=(200, 20, 20, 10), resized=(20, 10))
    assert outcomes_of(pool, bad, left, right) == [native.UNFIT, native.DONE]


def test_bytes_behind_the_end_do_not_matter(pool: native.Pool) -> None:
    original = picture(*SIZE, "4:2:0")
    data = ready(original)[0]
    assert np.array_equal(cropped(pool, data + bytes(500), PART), cropped(pool, original, PART))
    assert native.crop_interval(data + b"\xff\xd0" * 9) > 0


# --- resized at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [80, 95])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_resized_picture_is_written_ready_at_once(quality: int, mode: str) -> None:
    original = pictures.jpeg(mode)
    options = {"from_size": (160, 120), "quality": quality}
    plain = native.resize_jpeg(original, (120, 90), **options)
    data = native.resize_jpeg(original, (120, 90), crop_ready=True, **options)
    assert plain is not None
    assert data == ready(plain)[0]
