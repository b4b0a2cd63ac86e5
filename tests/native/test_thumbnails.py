"""imgdata.native.thumbnails: one scaled decode, beside NumPy on the planes that simplejpeg decodes."""

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from imgdata import native
from support.pictures import cmyk_jpeg, encode, jpeg, photo

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")

OPTIONS = {"side": 64, "colour_side": 16, "shortest": 20}


def made(*files: bytes, sizes: list[tuple[int, int]] | None = None, **options: object) -> native.Thumbnails:
    size_B2 = np.array(sizes or [simplejpeg.decode_jpeg_header(file)[1::-1] for file in files], np.int32).reshape(-1, 2)
    return native.thumbnails(files, size_B2, **{**OPTIONS, **options})  # type: ignore[arg-type]


def halved(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    even = np.pad(plane, [(0, side % 2) for side in plane.shape], mode="edge").astype(int)
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2).astype(np.uint8)


def scaled_luma(data: bytes, shortest: int) -> NDArray[np.uint8]:
    """The plane of luma, its sides halved as long as the shorter one keeps `shortest` samples."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    shrink = 1
    while min(width, height) // (2 * shrink) >= shortest:
        shrink *= 2
    by_dct = min(shrink, 8)
    sides = {"min_height": -(-height // by_dct), "min_width": -(-width // by_dct), "min_factor": by_dct}
    plane = simplejpeg.decode_jpeg(data, "GRAY", **sides)[:, :, 0]
    for _ in range((shrink // by_dct).bit_length() - 1):
        plane = halved(plane)
    return np.asarray(plane)


def edges(plane: NDArray[np.uint8]) -> NDArray[np.int64]:
    value = plane.astype(int)
    inner = value[1:-1, 1:-1]
    strength = abs(4 * inner - value[:-2, 1:-1] - value[2:, 1:-1] - value[1:-1, :-2] - value[1:-1, 2:]) // 2
    return np.bincount(np.minimum(strength, 255).reshape(-1), minlength=256)


def assert_counts_are_those_of_the_plane(data: bytes, shortest: int) -> None:
    found = made(data, shortest=shortest)
    plane = scaled_luma(data, shortest)
    assert found.outcome_B.tolist() == [native.DONE]
    np.testing.assert_array_equal(found.level_Bx256[0], np.bincount(plane.reshape(-1), minlength=256))
    np.testing.assert_array_equal(found.edge_Bx256[0], edges(plane))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["L", "RGB"]), st.integers(0, 2), st.integers(1, 40))
def test_levels_and_edges_are_counted_as_by_numpy(
    width: int, height: int, mode: str, subsampling: int, shortest: int
) -> None:
    options = {} if mode == "L" else {"subsampling": subsampling}
    data = encode(photo().convert(mode).resize((width, height)), "JPEG", quality=92, **options)
    assert_counts_are_those_of_the_plane(data, shortest)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(8, 150),
    st.integers(8, 150),
    st.integers(1, 100),
    st.sampled_from([("L", 0), ("RGB", 0), ("RGB", 1), ("RGB", 2)]),
    st.integers(0, 7),
    st.booleans(),
    st.integers(0, 99),
)
def test_every_code_is_read_as_by_libjpeg(
    width: int, height: int, quality: int, kind: tuple[str, int], restart: int, optimize: bool, seed: int
) -> None:
    mode, subsampling = kind
    options: dict[str, object] = {"quality": quality, "optimize": optimize, "restart_marker_blocks": restart}
    if mode == "RGB":
        options["subsampling"] = subsampling
    # Noise has long codes, and blocks without an end.
    value = np.random.Generator(np.random.Philox(key=seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.blend(photo().resize((width, height)), Image.fromarray(value), seed / 99)
    for shortest in (1, min(width, height) // 4):
        assert_counts_are_those_of_the_plane(encode(image.convert(mode), "JPEG", **options), shortest)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 3), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3), st.floats(0.2, 1))
def test_a_damaged_file_is_judged_as_by_libjpeg(kind: int, damage: list[tuple[float, int]], kept: float) -> None:
    options = {"restart_marker_blocks": 3} if kind == 1 else {"optimize": True} if kind == 2 else {}
    data = bytearray(jpeg("L" if kind == 3 else "RGB", quality=90, **options))
    first = data.index(b"\xff\xda") + 12
    for place, value in damage:
        data[first + int(place * (len(data) - first - 1))] = value
    file = bytes(data[: first + int(kept * (len(data) - first))] if kept < 0.5 else data)
    found = made(file, sizes=[(160, 120)], shortest=30)
    as_libjpeg = native.resize_jpeg(file, (16, 16), from_size=(160, 120), quality=90, shrink=4)
    # Damage that leaves no trace changes pixels, beyond black and white in ways that differ.
    assert (found.outcome_B[0] == native.DONE) == (as_libjpeg is not None)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 1), (1, 500), (2000, 7), (1283, 961)])
def test_unusual_sizes_are_counted_as_by_numpy(size: tuple[int, int]) -> None:
    assert_counts_are_those_of_the_plane(encode(photo().resize(size), "JPEG"), 20)


@pytest.mark.parametrize("size", [(160, 120), (41, 300), (500, 375), (1283, 961), (90, 60)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_thumbnails_are_those_of_pillow(size: tuple[int, int], subsampling: int) -> None:
    image = photo().resize(size, Image.Resampling.BICUBIC)
    found = made(encode(image, "JPEG", quality=97, subsampling=subsampling), shortest=80)
    gray = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BICUBIC), float)
    colour = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC), float)
    assert np.abs(found.luma_BxHxW[0] - gray).mean() < 1.5
    assert np.abs(found.colour_BxHxWx3[0] - colour).mean() < 2.5


def test_a_gray_jpeg_has_gray_colours() -> None:
    found = made(jpeg("L"))
    assert (found.colour_BxHxWx3 == found.colour_BxHxWx3[..., :1]).all()
    assert np.ptp(found.colour_BxHxWx3) > 100


def test_colours_have_their_places() -> None:
    image = Image.new("RGB", (96, 64), (250, 10, 20))
    image.paste((10, 20, 240), (48, 0, 96, 64))
    colour = made(encode(image, "JPEG", quality=98, subsampling=0)).colour_BxHxWx3[0].astype(int)
    assert np.abs(colour[:, :7] - (250, 10, 20)).max() < 8
    assert np.abs(colour[:, 9:] - (10, 20, 240)).max() < 8


def test_all_ways_to_add_up_make_the_same_bytes() -> None:
    ways = [made(jpeg(), jpeg("L"), simd=simd) for simd in native.SIMD]
    for way in ways[1:]:
        for one, other in zip(ways[0], way, strict=True):
            np.testing.assert_array_equal(one, other)


def test_files_for_another_decoder_are_said_and_the_rest_is_made() -> None:
    good, cut = jpeg(), jpeg()[:-40]
    found = made(cut, good, cmyk_jpeg(2), b"no image", sizes=[(160, 120)] * 4)
    assert found.outcome_B.tolist() == [native.UNFIT, native.DONE, native.UNFIT, native.UNFIT]
    np.testing.assert_array_equal(found.luma_BxHxW[1], made(good).luma_BxHxW[0])


def test_a_header_of_another_size_is_unfit() -> None:
    assert made(jpeg(), sizes=[(160, 121)]).outcome_B.tolist() == [native.UNFIT]


def test_no_files_are_no_thumbnails() -> None:
    assert made(sizes=[]).luma_BxHxW.shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([(160, 120)] * 2, {}, "array 0 must have 1 rows"),
        ([(0, 120)], {}, "sides must be 1 to"),
        ([(160, -1)], {}, "sides must be 1 to"),
        ([(160, 120)], {"shortest": 0}, "out of range"),
        ([(160, 120)], {"side": 2000}, "out of range"),
        ([(160, 120)], {"colour_side": 0}, "out of range"),
        ([(160, 120)], {"simd": "mmx"}, "must be one of SIMD"),
    ],
)
def test_wrong_arguments_are_refused(sizes: list[tuple[int, int]], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(jpeg(), sizes=sizes, **options)


def test_files_must_be_bytes() -> None:
    with pytest.raises(TypeError, match="file 0 must be bytes"):
        made(bytearray(jpeg()), sizes=[(160, 120)])  # type: ignore[arg-type]
