"""imgdata.native: the compiled way from JPEG to JPEG, beside Pillow, simplejpeg and plain arithmetic."""

import io
import random
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import PIL
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from imgdata import native
from imgdata.errors import ImageError
from imgdata.images.decode import check
from imgdata.images.encode import Encoding, encoder, reencode
from imgdata.images.info import ImageInfo
from imgdata.images.probe import probe
from support.pictures import cmyk_jpeg, exif, jpeg, photo, photo_file

needs_native = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
PILLOW_SIMD = ".post" in PIL.__version__

SAMPLINGS = {"444": (1, 1), "422": (2, 1), "440": (1, 2), "420": (2, 2)}
"""Name -> pixels for one chroma sample, along x and y."""


def size_of(data: bytes) -> tuple[int, int]:
    info = probe(data)
    return info.width, info.height


def resized(data: bytes, size: tuple[int, int], **options: int) -> bytes:
    """`resize_jpeg`, where it has to take the file."""
    result = native.resize_jpeg(data, size, from_size=size_of(data), **{"quality": 90, **options})
    assert result is not None
    return result


def ycbcr(data: bytes) -> NDArray[np.float64]:
    """As Pillow decodes it, chroma interpolated: float64 `(H, W, 3)`."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("YCbCr", image.size)
        return np.asarray(image.convert("YCbCr")).astype(float)


def rgb(data: bytes) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def from_planes(
    luma: NDArray[np.float64], cb: NDArray[np.float64], cr: NDArray[np.float64], quality: int = 98
) -> bytes:
    """A JPEG of exactly these samples; the chroma's size gives the subsampling."""
    y, u, v = (np.ascontiguousarray(np.clip(plane.round(), 0, 255).astype(np.uint8)) for plane in (luma, cb, cr))
    encoded: bytes = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality)
    return encoded


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The same scan under a header that says another size, of as many blocks."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def photographs() -> dict[str, Image.Image]:
    names = ("china.jpg", "flower.jpg")
    files = {name: photo_file("sklearn", f"datasets/images/{name}") for name in names}
    return {name: Image.open(path).convert("RGB") for name, path in files.items()} | {"coffee": photo()}


# --- the resize ---------------------------------------------------------------------------------------


def noise(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    generator = np.random.Generator(np.random.Philox(key=seed))
    kind = seed % 3
    if kind == 0:
        return generator.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == 1:
        # Edges between black and white: the filter overshoots and is clipped.
        return (generator.integers(0, 2, (height, width)) * 255).astype(np.uint8)
    return (np.add.outer(np.arange(height), np.arange(width)) * 3 % 256).astype(np.uint8)


def assert_resized_like_pillow(samples: NDArray[np.uint8], size: tuple[int, int]) -> None:
    height, width = samples.shape
    ways = {
        simd: native.resize_plane(samples.tobytes(), size, from_size=(width, height), simd=simd) for simd in native.SIMD
    }
    assert len(set(ways.values())) == 1, "the ways to add up differ"
    own = np.frombuffer(ways["scalar"], np.uint8).reshape(size[::-1]).astype(int)
    # Along the rows first: Pillow 13 takes the cheaper direction first, and rounds and clips between the two.
    narrow = Image.fromarray(samples).resize((size[0], height), Image.Resampling.BICUBIC)
    pillow = np.asarray(narrow.resize(size, Image.Resampling.BICUBIC)).astype(int)
    # Pillow's weights have 22 bits, these and Pillow-SIMD's 16: one step for each direction, hardly ever two.
    directions = (size[0] != width) + (size[1] != height)
    assert np.abs(own - pillow).max() <= directions


@needs_native
@settings(deadline=None, max_examples=200)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(0, 99))
def test_planes_are_resized_as_by_pillow(width: int, height: int, to_width: int, to_height: int, seed: int) -> None:
    samples = noise(width, height, seed)
    assert_resized_like_pillow(samples, (to_width, height))
    assert_resized_like_pillow(samples, (width, to_height))
    assert_resized_like_pillow(samples, (to_width, to_height))


@needs_native
@pytest.mark.parametrize(
    ("size", "to_size"),
    [
        ((500, 375), (341, 256)),
        ((250, 188), (171, 128)),
        ((1, 1), (1, 1)),
        ((1, 1), (77, 33)),
        ((5000, 3), (1, 1)),
        ((3, 40_000), (2, 1)),
        ((2, 3), (3000, 1000)),
        ((64, 64), (64, 64)),
        ((640, 2), (37, 900)),
    ],
)
def test_planes_of_unusual_sizes_are_resized_as_by_pillow(size: tuple[int, int], to_size: tuple[int, int]) -> None:
    for seed in range(3):
        assert_resized_like_pillow(noise(*size, seed), to_size)


@needs_native
@given(st.integers(0, 255), st.integers(1, 90), st.integers(1, 90))
def test_flat_planes_stay_flat(value: int, from_side: int, to_side: int) -> None:
    samples = bytes([value]) * from_side**2
    result = native.resize_plane(samples, (to_side, to_side), from_size=(from_side, from_side))
    assert result == bytes([value]) * to_side**2


# --- the whole way ------------------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("factor", [0.7, 1, 1.465, 2, 3.3, 5, 9.5])
def test_photographs_look_like_those_resized_in_rgb(
    sampling: str, factor: float, quality: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, image in photographs().items():
        pixels = np.asarray(image)[:-1, :-1]
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 95, "RGB", sampling)
        info = probe(data)
        encoding = Encoding(resize=max(1, int(min(info.width, info.height) / factor)), upscale=True, quality=quality)
        own, own_info = reencode(data, info, encoding, extension="jpg")
        with monkeypatch.context() as patch:
            patch.setattr(native, "AVAILABLE", False)
            other, other_info = reencode(data, info, encoding, extension="jpg")
        assert own != other
        assert own_info == other_info == probe(own)
        difference = rgb(own) - rgb(other)
        # Both lose far more by their own encoding: 30 to 38 dB at quality 90.
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 29, name
        assert np.abs(difference.mean(axis=(0, 1))).max() < (0.7 if difference.size > 30_000 else 2), name


@needs_native
@pytest.mark.parametrize("quality", [90, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    ("size", "to_size", "shrink"),
    [
        ((96, 80), (64, 50), 1),
        ((97, 81), (65, 51), 1),
        ((97, 83), (97, 83), 1),
        ((96, 96), (150, 140), 1),
        ((192, 160), (96, 80), 2),
        ((193, 161), (61, 47), 2),
        ((391, 325), (63, 49), 4),
        ((799, 645), (63, 51), 8),
    ],
)
def test_nothing_moves(
    size: tuple[int, int], to_size: tuple[int, int], shrink: int, sampling: str, quality: int
) -> None:
    # Planes that rise evenly from left to right, or from top to bottom: a shift is a change of level.
    for axis in (0, 1):
        width, height = size
        slope = 200 / size[axis]
        pitches = [(1, 1), SAMPLINGS[sampling], SAMPLINGS[sampling]]
        planes = []
        for pitch in pitches:
            # Of whole chroma samples, which the encoder takes for granted; the header says how much of them counts.
            chroma = SAMPLINGS[sampling]
            shape = -(-height // chroma[1]) * chroma[1] // pitch[1], -(-width // chroma[0]) * chroma[0] // pitch[0]
            centres = (np.arange(shape[1 - axis]) + 0.5) * pitch[axis]
            ramp = 28 + slope * centres
            planes.append(np.broadcast_to(ramp if axis == 0 else ramp[:, None], shape))
        planes[2] = 255 - planes[2]
        data = with_size(from_planes(*planes), *size)
        result = ycbcr(resized(data, to_size, shrink=shrink, quality=quality))
        assert result.shape == (to_size[1], to_size[0], 3)
        expected = 28 + slope * (np.arange(to_size[axis]) + 0.5) * size[axis] / to_size[axis]
        # Away from the edges, where the filter sees but one side.
        inner = slice(to_size[axis] // 6, -(to_size[axis] // 6))
        rows = result.mean(axis=axis)
        to_level = slope * size[axis] / to_size[axis]  # Levels for one pixel of the result.
        for channel, levels in enumerate((expected, expected, 255 - expected)):
            shift = (rows[inner, channel] - levels[inner]).mean() / to_level
            assert abs(shift) < 0.25, f"channel {channel} moved by {shift:.2f} pixels along axis {axis}"


@needs_native
@pytest.mark.parametrize(("quality", "sampling"), [(1, "420"), (90, "420"), (91, "444"), (100, "444")])
@pytest.mark.parametrize("to_size", [(1, 1), (2, 1), (15, 17), (16, 16), (33, 8), (255, 256), (1, 300)])
def test_the_result_is_a_jpeg_of_that_size_and_chroma(to_size: tuple[int, int], quality: int, sampling: str) -> None:
    for data, chroma in ((jpeg(), sampling), (jpeg("L"), "Gray")):
        result = resized(data, to_size, quality=quality)
        assert simplejpeg.decode_jpeg_header(result)[:2] == to_size[::-1]
        assert simplejpeg.decode_jpeg_header(result)[3] == chroma
        check(result, probe(result))


@needs_native
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_blocks_beyond_the_edge_do_not_leak_in(sampling: str) -> None:
    # Gray up to a column and a row inside the last blocks; white follows, which the header says is outside.
    for width, height in ((42, 48), (48, 42), (44, 46)):
        pitch = SAMPLINGS[sampling]
        planes = []
        for x_pitch, y_pitch in ((1, 1), pitch, pitch):
            plane = np.full((48 // y_pitch, 48 // x_pitch), 60.0)
            plane[height // y_pitch :] = 250
            plane[:, width // x_pitch :] = 250
            planes.append(plane)
        data = with_size(from_planes(*planes, quality=100), width, height)
        result = ycbcr(resized(data, (width - 7, height - 5), quality=100))
        assert np.abs(result - 60).max() <= 6


@needs_native
@pytest.mark.parametrize("quality", [10, 90, 95])
def test_flat_pictures_stay_flat_up_to_their_edges(quality: int) -> None:
    # What fills the last blocks would show in them, the more the lower the quality.
    gray = [np.full((48, 48), 56.0)] * 3
    for size in ((33, 35), (17, 9), (47, 31)):
        result = ycbcr(resized(from_planes(*gray), size, quality=quality))
        assert np.ptp(result, axis=(0, 1)).max() <= 1


@needs_native
def test_all_ways_to_add_up_and_all_threads_give_the_same_bytes() -> None:
    files = [
        simplejpeg.encode_jpeg(np.asarray(image), 95, "RGB", sampling)
        for image in photographs().values()
        for sampling in SAMPLINGS
    ]
    jobs = [(data, (width, width * 3 // 4)) for data in files for width in (41, 150, 341)]

    def work(job: tuple[bytes, tuple[int, int]], simd: str | None = None) -> bytes | None:
        return native.resize_jpeg(job[0], job[1], from_size=size_of(job[0]), quality=90, simd=simd)

    expected = [work(job) for job in jobs]
    assert None not in expected
    for simd in native.SIMD:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(partial(work, simd=simd), jobs)) == expected


@needs_native
@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 3}, {"optimize": True}])
def test_other_ways_to_write_the_same_picture_give_the_same_bytes(options: dict[str, int]) -> None:
    assert resized(jpeg(quality=92, **options), (61, 43)) == resized(jpeg(quality=92), (61, 43))


@needs_native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 5)}, "sides must be 1 to 65500 pixels, got 0"),
        ({"size": (5, 70_000)}, "sides must be 1 to 65500 pixels, got 70000"),
        ({"quality": 0}, "quality must be 1 to 100, got 0"),
        ({"shrink": 3}, "shrink must be 1, 2, 4 or 8, got 3"),
        ({"simd": "mmx"}, "simd must be one of SIMD, got 'mmx'"),
    ],
)
def test_arguments_without_meaning_are_refused(change: dict[str, object], message: str) -> None:
    arguments = {"size": (9, 9), "from_size": (160, 120), "quality": 90, **change}
    with pytest.raises(ValueError, match=message):
        native.resize_jpeg(jpeg(), **arguments)  # type: ignore[arg-type]


@needs_native
def test_the_number_of_samples_must_fit_their_size() -> None:
    with pytest.raises(ValueError, match="samples must be 3 x 3 bytes, got 8"):
        native.resize_plane(bytes(8), (2, 2), from_size=(3, 3))


# --- what is left to the other way --------------------------------------------------------------------


def frame_as(marker: int) -> bytes:
    return jpeg().replace(b"\xff\xc0", bytes((0xFF, marker)))


def twelve_bits() -> bytes:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def rotated() -> bytes:
    return jpeg(exif=exif(6))


LEFT_ALONE = {
    "CMYK": cmyk_jpeg(0),
    "YCCK": cmyk_jpeg(2),
    "RGB": jpeg(keep_rgb=True),
    "4:1:1": simplejpeg.encode_jpeg(np.asarray(photo()), 90, "RGB", "411"),
    "lossless": frame_as(0xC3),
    "arithmetic": frame_as(0xC9),
    "12 bits": twelve_bits(),
    "truncated": jpeg()[:-300],
    "a warning": jpeg().replace(b"JFIF\0\1", b"JFIF\0\7"),
    "garbage before the end": jpeg()[:-2] + b"\x12\x34" * 9 + b"\xff\xd9",
    "tables alone": jpeg()[: jpeg().index(b"\xff\xc0")] + b"\xff\xd9",
    "no JPEG": b"GIF89a" * 9,
    "nothing": b"",
}


@needs_native
@pytest.mark.parametrize("data", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_other_jpegs_are_left_alone(data: bytes) -> None:
    assert native.resize_jpeg(data, (9, 9), from_size=(160, 120), quality=90) is None


@needs_native
def test_jpegs_of_another_size_than_said_are_left_alone() -> None:
    for from_size in ((159, 120), (160, 121), (-1, 120), (160, 1 << 30)):
        assert native.resize_jpeg(jpeg(), (9, 9), from_size=from_size, quality=90) is None


Verdict = tuple[bytes, ImageInfo] | str


def verdict(data: bytes, encoding: Encoding) -> Verdict:
    """The bytes and facts, or the reason of the refusal."""
    try:
        info = probe(data)
        if info.width * info.height > 1_000_000:
            return "too-large"
        return reencode(data, info, encoding, extension="jpg")
    except ImageError as error:
        return str(error)


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, Encoding], Verdict]]:
    """`verdict` as it is where the extension was not built."""

    def judge(data: bytes, encoding: Encoding) -> Verdict:
        with monkeypatch.context() as patch:
            patch.setattr(native, "AVAILABLE", False)
            return verdict(data, encoding)

    return judge


@needs_native
@pytest.mark.parametrize("data", [*LEFT_ALONE.values(), rotated()], ids=[*LEFT_ALONE, "rotated"])
def test_what_is_left_alone_becomes_what_it_is_without_the_extension(
    data: bytes, without_native: Callable[[bytes, Encoding], Verdict]
) -> None:
    encoding = Encoding(resize=50)
    assert verdict(data, encoding) == without_native(data, encoding)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut off somewhere, or with up to four bytes changed, or both."""
    changed = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
    for _ in range(rng.randint(0, 4)):
        # Half of the changes in the header, which is a small part of the file.
        if changed:
            at = rng.randrange(len(changed) if rng.random() < 0.5 else min(len(changed), 700))
            changed[at] = rng.randrange(256)
    return bytes(changed)


def small_files() -> list[bytes]:
    pixels = np.asarray(photo().resize((83, 61)))
    files = [simplejpeg.encode_jpeg(pixels, 85, "RGB", sampling) for sampling in (*SAMPLINGS, "411")]
    image = Image.fromarray(pixels)
    for mode, options in (("RGB", {"progressive": True}), ("RGB", {"restart_marker_blocks": 2}), ("L", {})):
        file = io.BytesIO()
        image.convert(mode).save(file, "JPEG", **options)
        files.append(file.getvalue())
    return files


@needs_native
def test_damaged_files_are_refused_for_the_same_reason_as_without_the_extension(
    without_native: Callable[[bytes, Encoding], Verdict],
) -> None:
    rng = random.Random(0)
    encoding = Encoding(resize=40)
    refused = 0
    for data in small_files() * 60:
        broken = damaged(data, rng)
        own, other = verdict(broken, encoding), without_native(broken, encoding)
        refused += isinstance(own, str)
        assert own == other if isinstance(own, str) else not isinstance(other, str)
    assert refused > 100


@needs_native
def test_no_input_crashes() -> None:
    rng = random.Random(1)
    taken = 0
    for data in small_files() * 400:
        broken = damaged(data, rng)
        sides = rng.choice([(83, 61), (rng.randrange(300), rng.randrange(300))])
        size = (rng.randint(1, 120), rng.randint(1, 120))
        result = native.resize_jpeg(
            broken, size, from_size=sides, quality=rng.randint(1, 100), shrink=rng.choice([1, 2, 4, 8])
        )
        if result is not None:
            taken += 1
            assert size_of(result) == size
    assert taken > 300


# --- what made the bytes ------------------------------------------------------------------------------


def test_the_encoder_names_all_that_decides_about_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    name = "Pillow-SIMD" if PILLOW_SIMD else "Pillow"
    assert encoder() == f"simplejpeg {simplejpeg.__version__}, {name} {PIL.__version__}"


@needs_native
def test_the_encoder_begins_with_the_extension_where_that_runs() -> None:
    assert encoder().startswith(f"native libjpeg-turbo {native.libjpeg_version()}, simplejpeg ")
