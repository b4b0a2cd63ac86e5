"""imgdata.native.Pool: crops of JPEGs made by compiled threads, beside simplejpeg and Pillow."""

import errno
import math
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from imgdata import native
from support.native_crops import (
    SAMPLINGS,
    Files,
    Geometry,
    cropped,
    decoded,
    encode,
    gentle,
    geometries,
    outcome,
    submit,
)
from support.patience import PATIENCE_S
from support.pictures import cmyk_jpeg, jpeg, photo_file
from support.places import REPOSITORY, TESTS

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")


@pytest.fixture(scope="module")
def pool() -> Iterator[native.Pool]:
    pool = native.Pool(2)
    yield pool
    pool.close()


def by_pillow(pixels_HWC: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """The same crop of decoded pixels, step by step."""
    left, top, width, height = geometry.box
    part = Image.fromarray(pixels_HWC).crop((left, top, left + width, top + height))
    filter = Image.Resampling.BICUBIC if geometry.bicubic else Image.Resampling.BILINEAR
    resized = np.asarray(part.resize(geometry.resized, filter))
    # Margins wider than the picture, so that any window lies inside.
    margin = max(map(abs, geometry.offset)) + max(geometry.size)
    mode: Any = "reflect" if geometry.mirrored_margins else "constant"
    padded = np.pad(resized, ((margin, margin), (margin, margin), (0, 0)), mode)
    x, y = geometry.offset[0] + margin, geometry.offset[1] + margin
    window = padded[y : y + geometry.size[1], x : x + geometry.size[0]]
    return window[:: -1 if geometry.vflip else 1, :: -1 if geometry.flip else 1]


def difference(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int64]:
    return np.abs(one.astype(np.int64) - other.astype(np.int64))


# --- pixels ---------------------------------------------------------------------------------------------


@settings(max_examples=400)
@given(st.data(), st.sampled_from([*SAMPLINGS, "gray"]), st.booleans(), st.integers(0, 1000))
def test_any_crop_of_any_sampling_is_that_of_the_decoded_picture(
    pool: native.Pool, data: st.DataObject, sampling: str, progressive: bool, seed: int
) -> None:
    width, height = data.draw(st.integers(1, 130)), data.draw(st.integers(1, 130))
    geometry = data.draw(geometries(width, height))
    image = gentle(width, height, seed)
    encoded = encode(image if sampling != "gray" else image.convert("L"), sampling, progressive=progressive)
    scale = min(geometry.box[2] / geometry.resized[0], geometry.box[3] / geometry.resized[1])
    own = cropped(pool, encoded, geometry)
    error = difference(own, by_pillow(decoded(encoded), geometry))
    # Two roundings of each colour plane, and the decoder's own of the interpolated chroma. With a scaled DCT the filter
    # is another one.
    assert error.max() <= (5 if scale < 4 else 25)
    # A mean over the few pixels of a small picture is nothing but those.
    if min(math.prod(geometry.box[2:]), math.prod(geometry.resized), math.prod(geometry.size)) >= 500:
        assert error.mean() <= (1 if scale < 4 else 4)


PHOTO_CROPS = {
    "random resized crop": (Geometry(box=(101, 53, 301, 217), resized=(224, 224), flip=True), 0.5),
    "the same, bicubic": (Geometry(box=(101, 53, 301, 217), resized=(224, 224), bicubic=True), 0.5),
    # Of a flower beyond red: colours are clipped after the resize here, before it by Pillow.
    "enlarged": (Geometry(box=(300, 200, 57, 71), resized=(224, 224), vflip=True), 1.0),
    "shorter side": (Geometry(box=(0, 0, 640, 427), resized=(383, 256), offset=(79, 16), output=(224, 224)), 0.5),
    "nothing but decoded": (Geometry(box=(0, 0, 640, 427), resized=(640, 427)), 0.3),
    "margins": (Geometry(box=(0, 0, 640, 427), resized=(640, 427), offset=(-9, -7), output=(658, 441)), 0.3),
    "DCT at 1/2": (Geometry(box=(0, 0, 640, 427), resized=(150, 100)), 0.8),
    "DCT at 1/4": (Geometry(box=(3, 1, 637, 426), resized=(75, 50)), 1.0),
    "DCT at 1/8": (Geometry(box=(3, 1, 637, 426), resized=(32, 24)), 1.3),
}
"""Name -> crop of a 640 x 427 photograph, and the largest mean difference from Pillow, of 255."""


@pytest.mark.parametrize("name", PHOTO_CROPS)
@pytest.mark.parametrize("file", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4"])
def test_photographs_are_cropped_as_by_pillow(pool: native.Pool, file: str, sampling: str, name: str) -> None:
    geometry, most = PHOTO_CROPS[name]
    data = encode(Image.open(photo_file("sklearn", f"datasets/images/{file}")), sampling)
    error = difference(cropped(pool, data, geometry), by_pillow(decoded(data), geometry))
    assert error.mean() < most
    assert (error <= 2).mean() > (0.85 if "DCT" in name else 0.9)


@pytest.mark.parametrize(("axis", "step"), [(0, 1), (1, 1), (0, -1), (1, -1)])
def test_half_a_pixel_of_shift_would_be_found(pool: native.Pool, axis: int, step: int) -> None:
    # A ramp of 4 a pixel of the output: half a pixel beside it is a mean difference of 2.
    ramp = np.repeat(np.linspace(20, 235, 200)[:, None], 200, axis=1)
    ramp = (ramp if axis == 0 else ramp.T).round().astype(np.uint8)
    data = encode(Image.fromarray(np.repeat(ramp[..., None], 3, axis=2)), "4:2:0", 100)
    geometry = Geometry(box=(20, 20, 160, 160), resized=(50, 50))
    own = cropped(pool, data, geometry).astype(int)
    right = by_pillow(decoded(data), geometry)
    shifted = by_pillow(
        decoded(data), replace(geometry, box=(20 + 2 * step * axis, 20 + 2 * step * (1 - axis), 160, 160))
    )
    assert difference(own, right).mean() < 0.5
    assert difference(own, shifted).mean() > 1.5


def test_channels_keep_their_places(pool: native.Pool) -> None:
    for channel in range(3):
        pixels = np.full((64, 64, 3), 60, np.uint8)
        pixels[..., channel] = 200
        own = cropped(
            pool, encode(Image.fromarray(pixels), "4:2:0", 98), Geometry(box=(5, 7, 50, 40), resized=(33, 33))
        )
        assert own.mean((0, 1)).argmax() == channel


@pytest.mark.parametrize("simd", native.SIMD)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "gray"])
def test_one_channel_is_the_luma_that_a_file_stores(
    pool: native.Pool, sampling: str, progressive: bool, simd: str
) -> None:
    image = gentle(161, 123, seed=4)
    data = encode(image.convert("L") if sampling == "gray" else image, sampling, 90, progressive=progressive)
    luma = simplejpeg.decode_jpeg(data, "GRAY", fastdct=False)
    for left, top, width, height in (0, 0, 161, 123), (40, 31, 33, 50), (120, 100, 41, 23):
        geometry = Geometry(box=(left, top, width, height), resized=(width, height))
        own = cropped(pool, data, geometry, channels=1, simd=simd)
        assert np.array_equal(own, luma[top : top + height, left : left + width])
    geometry = Geometry(box=(3, 5, 150, 110), resized=(90, 70), offset=(7, 9), output=(64, 48), flip=True, bicubic=True)
    own, expected = cropped(pool, data, geometry, channels=1, simd=simd), by_pillow(luma.repeat(3, axis=2), geometry)
    assert difference(own, expected[..., :1]).max() <= 1


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("crop_ready", [False, True])
def test_of_a_gray_picture_in_colour_one_channel_is_any_of_three(
    pool: native.Pool, sampling: str, crop_ready: bool
) -> None:
    data = encode(gentle(401, 303, seed=5).convert("L").convert("RGB"), sampling, 85)
    if crop_ready:
        ready = native.make_crop_ready(data)
        assert ready is not None
        data = ready[0]
    for size in (200, 50, 20, 9):
        geometry = Geometry(box=(31, 20, 340, 260), resized=(size, size), offset=(-1, 1), output=(size, size))
        three = cropped(pool, data, geometry)
        assert np.array_equal(cropped(pool, data, geometry, channels=1), three[..., :1])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("planar", [False, True])
def test_luma_is_scaled_and_shifted(pool: native.Pool, planar: bool, dtype: str) -> None:
    geometry = Geometry(box=(10, 10, 100, 90), resized=(64, 48), offset=(-2, -2), output=(70, 50))
    scale, shift = np.float32([0.0171]), np.float32([-2.1])
    expected = (cropped(pool, jpeg(), geometry, channels=1) * scale + shift).astype(dtype)
    images = np.zeros((1, 1, 50, 70) if planar else (1, 50, 70, 1), dtype)
    with Files([jpeg()]) as files:
        submit(pool, files, [(160, 120)], geometry, images, planar=planar, scale_3=scale, shift_3=shift).wait()
    assert np.allclose(images.reshape(50, 70, 1), expected, atol=1e-6)


def test_crops_of_one_picture_have_as_many_channels(pool: native.Pool) -> None:
    geometry = Geometry(box=(10, 10, 100, 90), resized=(64, 48))
    one, three = np.zeros((1, 48, 64, 1), np.uint8), np.zeros((1, 48, 64, 3), np.uint8)
    arrays = (np.array([geometry.box]), np.array([geometry.resized]), np.array([geometry.offset]))
    more = [native.Crops(three, False, *arrays, np.array([False]), np.array([False]))]
    with Files([jpeg()]) as files, pytest.raises(ValueError, match=r"all crops must be .* with as many channels"):
        submit(pool, files, [(160, 120)], geometry, one, more=more)
    with Files([jpeg()]) as files, pytest.raises(ValueError, match="channels, kind or simd is out of range"):
        submit(pool, files, [(160, 120)], geometry, np.zeros((1, 48, 64, 4), np.uint8))


def test_fine_patterns_become_gray_instead_of_moire(pool: native.Pool) -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    own = cropped(pool, encode(Image.fromarray(stripes), "4:4:4", 98), Geometry(box=(1, 1, 254, 254), resized=(64, 64)))
    assert difference(own, np.full_like(own, 127)).max() < 20


@pytest.mark.parametrize("sampling", [*SAMPLINGS, "gray"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("planar", [False, True])
def test_all_ways_to_add_up_give_the_same_bytes(pool: native.Pool, sampling: str, dtype: str, planar: bool) -> None:
    image = Image.open(photo_file("sklearn", "datasets/images/flower.jpg"))
    data = encode(image if sampling != "gray" else image.convert("L"), sampling)
    # 101 pixels across: no multiple of what is made at once.
    for geometry in (
        Geometry(box=(40, 30, 333, 222), resized=(101, 90)),
        Geometry(box=(40, 30, 333, 222), resized=(240, 201), offset=(-3, 5), output=(101, 90), bicubic=True, flip=True),
    ):
        results = []
        for simd in native.SIMD:
            images = np.zeros((1, 3, 90, 101) if planar else (1, 90, 101, 3), dtype)
            with Files([data]) as files:
                options = {"planar": planar, "scale_3": np.float32([0.1, 0.2, 0.3]), "shift_3": np.float32([-1, 0, 1])}
                submit(pool, files, [(640, 427)], geometry, images, simd=simd, **options).wait()
            results.append(images.tobytes())
        assert len(set(results)) == 1


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_are_scaled_and_shifted_bytes(pool: native.Pool, planar: bool, dtype: str) -> None:
    geometry = Geometry(box=(10, 10, 100, 90), resized=(64, 48), offset=(-2, -2), output=(70, 50), flip=True)
    scale, shift = np.float32([0.0171, 0.0175, 0.0174]), np.float32([-2.1, -2.03, -1.8])
    data = jpeg()
    expected = (cropped(pool, data, geometry) * scale + shift).astype(dtype)
    images = np.zeros((1, 3, 50, 70) if planar else (1, 50, 70, 3), dtype)
    with Files([data]) as files:
        submit(pool, files, [(160, 120)], geometry, images, planar=planar, scale_3=scale, shift_3=shift).wait()
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0) if planar else images[0], expected)


def test_halves_are_rounded_as_by_numpy(pool: native.Pool) -> None:
    # Scales at both ends of what a half can hold, and beyond.
    data, geometry = jpeg(), Geometry(box=(0, 0, 160, 120), resized=(160, 120))
    for scale in (3e-8, 1e-5, 0.3, 257.0, 3e5, -1e-7):
        scales, shifts = np.full(3, scale, np.float32), np.zeros(3, np.float32)
        with np.errstate(over="ignore"):
            expected = (cropped(pool, data, geometry) * scales + shifts).astype(np.float16)
        for simd in native.SIMD:
            images = np.zeros((1, 120, 160, 3), np.float16)
            with Files([data]) as files:
                submit(pool, files, [(160, 120)], geometry, images, scale_3=scales, shift_3=shifts, simd=simd).wait()
            np.testing.assert_array_equal(images[0], expected)


# --- files that others have to judge --------------------------------------------------------------------


def arithmetic(data: bytes) -> bytes:
    """The header of an arithmetic-coded JPEG."""
    return data.replace(b"\xff\xc0", b"\xff\xc9", 1)


UNFIT = {
    "no JPEG": lambda: b"GIF89a" + bytes(100),
    "nothing": lambda: b"",
    "CMYK": lambda: cmyk_jpeg(None),
    "YCCK": lambda: cmyk_jpeg(2),
    "a header alone": lambda: jpeg()[:300],
    "arithmetic coding": lambda: arithmetic(jpeg()),
    "lossless": lambda: jpeg().replace(b"\xff\xc0", b"\xff\xc3", 1),
    "12 bits": lambda: jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1),
    "cut in the crop": lambda: jpeg()[:3000],
    "of another size": lambda: encode(gentle(161, 120, 0), "4:2:0"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_odd_or_damaged_is_left_to_others(pool: native.Pool, name: str) -> None:
    assert outcome(pool, UNFIT[name]()) == native.UNFIT


def test_of_what_lies_behind_the_crop_only_the_end_is_looked_at(pool: native.Pool) -> None:
    data, end = jpeg(), b"\xff\xd9"
    top = Geometry(box=(0, 0, 160, 30), resized=(80, 15))
    half = data[: len(data) // 2]
    assert outcome(pool, half + end, top) == native.DONE
    assert outcome(pool, half + end) == native.UNFIT
    assert outcome(pool, data + b"\0" * 100, top) == native.DONE
    for cut_off in (half, data[:-2], data[:-1], data + b"\0" * 2000):
        assert outcome(pool, cut_off, top) == native.UNFIT


@pytest.mark.parametrize(
    "box",
    [(0, 0, 161, 120), (0, 0, 160, 121), (-1, 0, 10, 10), (0, -1, 10, 10), (150, 0, 11, 9), (0, 0, 0, 5), (0, 0, 5, 0)],
)
def test_boxes_outside_the_picture_are_refused(pool: native.Pool, box: tuple[int, int, int, int]) -> None:
    assert outcome(pool, jpeg(), Geometry(box=box, resized=(16, 16))) == native.UNFIT


@pytest.mark.parametrize("size", [(1 << 40, 5), (5, -(1 << 40)), (1 << 24, 1 << 25)])
def test_sizes_beyond_all_reason_are_left_to_others(pool: native.Pool, size: tuple[int, int]) -> None:
    # One picture of a batch, whose other pictures are fine.
    options = {"resized_N2": np.array([size, (16, 16)]), "box_N4": np.array([(0, 0, 160, 120)] * 2)}
    options |= {"offset_N2": np.zeros((2, 2), np.int64), "flip_N": np.zeros(2, bool), "vflip_N": np.zeros(2, bool)}
    images, geometry = np.zeros((2, 16, 16, 3), np.uint8), Geometry(box=(0, 0, 160, 120), resized=(16, 16))
    with Files([jpeg(), jpeg()]) as files:
        got = submit(pool, files, [(160, 120)] * 2, geometry, images, row_M=np.array([0, 1]), **options).wait()
    assert got.tolist() == [native.UNFIT, native.DONE]


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize(
    ("box", "resized"), [((3000, 0, 3000, 30), (3, 8)), ((0, 3, 5999, 20), (2, 5)), ((100, 0, 256, 8), (9, 3))]
)
def test_long_pictures_become_a_few_pixels(
    pool: native.Pool, box: tuple[int, int, int, int], resized: tuple[int, int], bicubic: bool
) -> None:
    # Windows of a thousand samples, cut off at the box; `make sanitize` sees every read behind them.
    geometry = Geometry(box=box, resized=resized, bicubic=bicubic)
    data = encode(gentle(6000, 40, 1), "4:2:0")
    assert difference(cropped(pool, data, geometry), by_pillow(decoded(data), geometry)).max() <= 8
    turned = replace(geometry, box=(box[1], box[0], box[3], box[2]), resized=resized[::-1])
    data = encode(gentle(40, 6000, 1), "4:2:0")
    assert difference(cropped(pool, data, turned), by_pillow(decoded(data), turned)).max() <= 8


def test_what_the_caller_changes_afterwards_changes_nothing(pool: native.Pool) -> None:
    files, sizes, geometry, images = many(60)
    targets, expected = np.arange(60), np.zeros_like(images)
    with files:
        submit(pool, files, sizes, geometry, expected).wait()
        job = submit(pool, files, sizes, geometry, images, target_M=targets)
        targets[:] = 1 << 40
        assert (job.wait() == native.DONE).all()
    np.testing.assert_array_equal(images, expected)


def test_a_file_that_ends_too_early_is_told_from_one_that_cannot_be_read(pool: native.Pool) -> None:
    geometry = Geometry(box=(0, 0, 160, 120), resized=(16, 16))
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with Files([jpeg(), jpeg()]) as files:
        os.ftruncate(files.descriptor, int(files.byte_M[1]) + 10)
        got = submit(pool, files, [(160, 120)] * 2, geometry, images).wait()
        assert got.tolist() == [native.DONE, native.CUT_SHORT]
        closed = os.dup(files.descriptor)
        os.close(closed)
        got = submit(pool, files, [(160, 120)] * 2, geometry, images, file_M=np.full(2, closed)).wait()
        assert got.tolist() == [native.IO_ERROR + errno.EBADF] * 2


# --- jobs and threads -----------------------------------------------------------------------------------


def many(count: int) -> tuple[Files, list[tuple[int, int]], Geometry, NDArray[np.uint8]]:
    files = Files([encode(gentle(200 + i % 50, 150, i), "4:2:0") for i in range(count)])
    sizes = [(200 + i % 50, 150) for i in range(count)]
    return files, sizes, Geometry(box=(3, 3, 180, 140), resized=(64, 64)), np.zeros((count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_any_number_of_threads_makes_the_same_pictures(threads: int) -> None:
    files, sizes, geometry, images = many(40)
    pool = native.Pool(threads)
    with files:
        other = np.zeros_like(images)
        jobs = [submit(pool, files, sizes, geometry, array) for array in (images, other)]
        assert [job.wait().tolist() for job in reversed(jobs)] == [[native.DONE] * 40] * 2
    pool.close()
    expected = np.stack([np.asarray(by_pillow(np.asarray(gentle(200 + i % 50, 150, i)), geometry)) for i in range(40)])
    np.testing.assert_array_equal(images, other)
    assert difference(images, expected).mean() < 2


def test_rows_and_targets_choose_parameters_and_places(pool: native.Pool) -> None:
    data = jpeg()
    crops = [Geometry(box=(10 * i, 5 * i, 60, 50), resized=(20, 20)) for i in range(4)]
    images = np.full((6, 20, 20, 3), 9, np.uint8)
    options = {
        "box_N4": np.array([crop.box for crop in crops]),
        "resized_N2": np.full((4, 2), 20),
        "offset_N2": np.zeros((4, 2), np.int64),
        "flip_N": np.zeros(4, bool),
        "vflip_N": np.zeros(4, bool),
        "row_M": np.array([3, 0]),
        "target_M": np.array([1, 4]),
    }
    with Files([data, data]) as files:
        submit(pool, files, [(160, 120)] * 2, crops[0], images, **options).wait()
    np.testing.assert_array_equal(images[1], cropped(pool, data, crops[3]))
    np.testing.assert_array_equal(images[4], cropped(pool, data, crops[0]))
    assert (images[[0, 2, 3, 5]] == 9).all()


def test_closing_gives_up_what_waits_and_may_be_repeated() -> None:
    files, sizes, geometry, images = many(300)
    pool = native.Pool(1)
    with files:
        jobs = [submit(pool, files, sizes, geometry, images) for _ in range(4)]
        pool.close()
        pool.close()
        outcomes = np.concatenate([job.wait() for job in jobs])
    assert set(outcomes.tolist()) <= {native.DONE, native.GIVEN_UP}
    assert (outcomes == native.GIVEN_UP).sum() >= 300
    with pytest.raises(RuntimeError, match="the pool is closed"):
        submit(pool, files, sizes, geometry, images)


def test_a_cancelled_or_forgotten_job_writes_no_more(pool: native.Pool) -> None:
    files, sizes, geometry, images = many(200)
    with files:
        job = submit(pool, files, sizes, geometry, images)
        job.cancel()
        before = images.copy()
        assert job.done()
        assert native.GIVEN_UP in job.wait()
        forgotten = submit(pool, files, sizes, geometry, np.zeros_like(images))
        del forgotten
        np.testing.assert_array_equal(images, before)
        assert (submit(pool, files, sizes, geometry, images).wait() == native.DONE).all()


def test_an_empty_job_is_done_at_once(pool: native.Pool) -> None:
    files, _, geometry, images = many(0)
    with files:
        assert submit(pool, files, [], geometry, images).wait().tolist() == []


def test_several_python_threads_can_wait_and_close(pool: native.Pool) -> None:
    files, sizes, geometry, images = many(100)
    own = native.Pool(2)
    with files:
        job = submit(own, files, sizes, geometry, images)
        waiting = [threading.Thread(target=job.wait) for _ in range(4)]
        for thread in waiting:
            thread.start()
        own.close()
        for thread in waiting:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in waiting)


def test_threads_end_with_their_pool() -> None:
    def threads() -> set[str]:
        return set(os.listdir("/proc/self/task"))

    before = threads()
    pool = native.Pool(5)
    own = threads() - before
    assert len(own) == 5
    pool.close()
    assert not own & threads()
    pool = native.Pool(5)
    own = threads() - before
    del pool
    assert not own & threads()


BAD_CALLS: dict[str, dict[str, Any]] = {
    "a row that is not there": {"row_M": np.array([1])},
    "a negative row": {"row_M": np.array([-1])},
    "a picture that is not there": {"target_M": np.array([1])},
    "a negative size": {"size_M": np.array([-1])},
    "an array of 32 bits": {"byte_M": np.array([0], np.int32)},
    "too few boxes": {"box_N4": np.zeros((0, 4), np.int64)},
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_arrays_that_do_not_fit_are_refused(pool: native.Pool, name: str) -> None:
    images, geometry = np.zeros((1, 16, 16, 3), np.uint8), Geometry(box=(0, 0, 160, 120), resized=(16, 16))
    with Files([jpeg()]) as files, pytest.raises(ValueError, match=r"must|out of range"):
        submit(pool, files, [(160, 120)], geometry, images, **BAD_CALLS[name])


def test_the_batch_must_be_writable_and_in_one_piece(pool: native.Pool) -> None:
    geometry = Geometry(box=(0, 0, 160, 120), resized=(16, 16))
    frozen = np.zeros((1, 16, 16, 3), np.uint8)
    frozen.flags.writeable = False
    with Files([jpeg()]) as files:
        with pytest.raises(ValueError, match="read-only"):
            submit(pool, files, [(160, 120)], geometry, frozen)
        with pytest.raises(ValueError, match="contiguous"):
            submit(pool, files, [(160, 120)], geometry, np.zeros((1, 16, 32, 3), np.uint8)[:, :, ::2])


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_the_number_of_threads_has_limits(threads: int) -> None:
    with pytest.raises(ValueError, match="threads must be 1 to 4096"):
        native.Pool(threads)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    folders = [str(Path(__file__).parent), str(TESTS), str(REPOSITORY)]
    start = f"import sys; sys.path[:0] = {folders!r}\nfrom test_native_pool import *\n"
    return subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_forked_child_is_told_and_ends(pool: native.Pool) -> None:
    done = run_python(
        """
        files, sizes, geometry, images = many(200)
        pool = native.Pool(2)
        job = submit(pool, files, sizes, geometry, images)
        child = os.fork()
        if not child:
            job.wait()
            try:
                submit(pool, files, sizes, geometry, images)
            except RuntimeError as error:
                print(error, flush=True)
            del job, pool
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (job.wait() == native.DONE).all())
        """
    )
    assert done.stdout == "the pool is closed, or another process's\n7 True\n", done.stderr


def test_a_process_ends_with_work_in_flight_and_on_an_interrupt() -> None:
    done = run_python(
        """
        import signal

        files, sizes, geometry, images = many(300)
        pool = native.Pool(1)
        jobs = [submit(pool, files, sizes, geometry, images) for _ in range(50)]
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            jobs[-1].wait()
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)
