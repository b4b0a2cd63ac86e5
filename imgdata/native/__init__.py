"""JPEG bytes -> other JPEG bytes, or thumbnails; files, places and crops -> a batch of pixels; files -> a tar.

Compiled, and optional.

RGB is made as late as can be: planes are decoded, resized and encoded at the resolution that their chroma has, in YCbCr
or gray. Where the compiled module was not built (`AVAILABLE` is false), Pillow and simplejpeg do all.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    from imgdata.native import _compiled
except ImportError:
    AVAILABLE = False
    SIMD: tuple[str, ...] = ()
else:
    AVAILABLE = True
    SIMD = _compiled.SIMD
"""Names of the ways in which this machine can add up samples, the fastest last; all give the same bytes."""

DONE, UNFIT, NO_MEMORY, CUT_SHORT, GIVEN_UP = range(5)
"""Outcome of a picture: made; left to another decoder; no memory; the file ends before it; not made, since the job was
cancelled or the pool closed."""
IO_ERROR = 100
"""First outcome of failed reads: the `errno` of the read is added to this number."""

_KINDS = {"uint8": 0, "float16": 1, "float32": 2}


def libjpeg_version() -> str:
    """Return the version of libjpeg-turbo in the compiled module, such as `2.1.5`; only where `AVAILABLE`."""
    return _compiled.LIBJPEG_TURBO


def resize_jpeg(
    data: bytes,
    size: tuple[int, int],
    *,
    from_size: tuple[int, int],
    quality: int,
    shrink: int = 1,
    crop_ready: bool = False,
    simd: str | None = None,
) -> bytes | None:
    """Return a baseline JPEG of `size` (width, height); None for a JPEG that another decoder has to judge.

    Antialiased bicubic of each plane. Gray stays gray; chroma becomes 4:2:0 up to quality 90, 4:4:4 above. The
    DCT divides the sides by `shrink` (1, 2, 4, 8) before the resize. EXIF orientation is not looked at, and
    metadata is dropped. `crop_ready` writes what `make_crop_ready` would make of the result. The GIL is free for the
    whole work.

    None unless the file is an 8-bit Huffman-coded JPEG of `from_size`, in gray, or in YCbCr with 4:2:0,
    4:2:2, 4:4:0 or 4:4:4 chroma, and decodes without any warning. `simd` is one of `SIMD`.
    """
    return _compiled.resize_jpeg(data, from_size, size, quality, shrink, simd or SIMD[-1], crop_ready)


def resize_plane(
    samples_HW: bytes, size: tuple[int, int], *, from_size: tuple[int, int], simd: str | None = None
) -> bytes:
    """Resize as `resize_jpeg` does, alone: uint8 rows of `from_size` (width, height) -> rows of `size`."""
    return _compiled.resize_plane(samples_HW, from_size, size, simd or SIMD[-1])


class Thumbnails(NamedTuple):
    """What `thumbnails` makes of B pictures, as they are stored: no EXIF orientation."""

    luma_BxHxW: NDArray[np.uint8]
    """The whole pictures in gray, squashed to squares, uint8 `(B, side, side)`."""
    colour_BxHxWx3: NDArray[np.uint8]
    """The same in red, green and blue, uint8 `(B, colour_side, colour_side, 3)`."""
    level_Bx256: NDArray[np.int32]
    """How many samples of the scaled luma have each value, int32 `(B, 256)`."""
    edge_Bx256: NDArray[np.int32]
    """How many samples inside its frame have each strength, int32 `(B, 256)`: half of |4 * centre - its 4 neighbours|,
    255 at most."""
    outcome_B: NDArray[np.uint8]
    """`DONE`, `UNFIT`, `NO_MEMORY`; rows of pictures that are not done are undefined."""


def thumbnails(
    files: Sequence[bytes],
    size_B2: NDArray[np.int32],
    *,
    side: int,
    colour_side: int,
    shortest: int,
    simd: str | None = None,
) -> Thumbnails:
    """Return thumbnails of JPEGs whose headers have to say the sizes `size_B2` (width, height).

    Each is decoded once, its sides divided by the largest power of 2 with which the shorter one keeps `shortest`
    samples: up to 8 by the DCT, the rest by means. `UNFIT` are the JPEGs for which `resize_jpeg` returns None. The GIL
    is free for the whole work.
    """
    count = len(files)
    found = Thumbnails(
        np.empty((count, side, side), np.uint8),
        np.empty((count, colour_side, colour_side, 3), np.uint8),
        np.empty((count, 256), np.int32),
        np.empty((count, 256), np.int32),
        np.empty(count, np.uint8),
    )
    arrays = (np.ascontiguousarray(size_B2, np.int32), *found)
    _compiled.thumbnails(tuple(files), arrays, side, colour_side, shortest, simd or SIMD[-1])
    return found


def nearest(
    *,
    target_T4: NDArray[np.uint64],
    number_T: NDArray[np.int32],
    start_V: NDArray[np.int32],
    query_R4: NDArray[np.uint64],
    limit_R: NDArray[np.int32],
    found_RK: NDArray[np.int32],
    distance_RK: NDArray[np.uint8],
    count_R: NDArray[np.int32],
    row_P: NDArray[np.int32],
    chunk: int,
    bits: int,
    radius: int,
) -> None:
    """Add to what the rows `row_P` of `query_R4` have found: hashes whose `chunk` is the same but for one bit at most.

    `target_T4` are sorted by the lowest `bits` of their 16-bit chunk, then by `number_T`; those of value v start at
    `start_V[v]`. A row keeps, ascending in `found_RK`, the first K numbers that are below its `limit_R` and whose hash
    differs in at most `radius` bits; `count_R` says how many those are. The GIL is free for the whole work; calls in
    other threads must have other rows. Arrays are C-contiguous and have exactly these types.
    """
    most = found_RK.shape[1]
    arrays = (target_T4, number_T, start_V, query_R4, limit_R, found_RK, distance_RK, count_R, row_P)
    _compiled.nearest(*arrays, chunk, bits, radius, most)


def make_crop_ready(
    data: bytes, *, strip: bool = False, orientation: int = 1, interval: int = 0
) -> tuple[bytes, int] | None:
    """Return the JPEG with a restart marker every few MCUs, and how many MCUs; None for a JPEG that stays as it is.

    The result is baseline, with the same coefficients and tables for them, and optimised Huffman codes. Segments
    besides the picture and bytes behind its end are kept; with `strip` only JFIF's, Adobe's and the ICC profile, and
    EXIF's `orientation`. The interval is the smallest number of MCUs that are 32 pixels or more and divide a row of
    them, the row itself where none do (a prime number of MCUs); `interval` takes another one.
    The GIL is free for the whole work.

    None for JPEGs that have not 8 bits, are lossless, or have other than one or three components; that libjpeg warns
    of; and without `strip` for one with a directory of more pictures behind it.
    """
    return _compiled.make_crop_ready(data, strip, orientation, interval)


def crop_interval(data: bytes) -> int:
    """Return the MCUs between two restart markers where `Pool` reads the segments of a crop alone; 0 elsewhere."""
    return _compiled.crop_interval(data)


def slice_jpeg(data: bytes, size: tuple[int, int], part: tuple[int, int, int, int]) -> tuple[bytes, int, int] | None:
    """Return a small JPEG of the segments that cover `part`, and the pixel of the picture where it begins: left, top.

    `size` is (width, height), which the header has to say, `part` (left, top, right, bottom) in pixels; pixels that
    interpolated chroma needs around it are in the small JPEG as well. Nothing is decoded. None where the whole file has
    to be: it is not crop-ready, is damaged, or the part needs all of it.
    """
    return _compiled.slice_jpeg(data, size, part)


def same_coefficients(left: bytes, right: bytes) -> bool:
    """Return whether two JPEGs have the same coefficients and tables, so that every decoder makes the same pixels.

    Raises `ValueError` for files that libjpeg does not read, or not without a warning.
    """
    return _compiled.same_coefficients(left, right)


def is_tar_of(descriptor: int, names: bytes, place_M2: NDArray[np.int64]) -> bool:
    """Return whether an open file is a tar of exactly M regular files, one behind the other, and an end marker.

    `names` has a zero behind each; `place_M2`, int64, says first data byte and size. Headers and end are read, with the
    GIL free.
    """
    return _compiled.is_tar_of(descriptor, names, place_M2)


def stat_files(paths: Sequence[str]) -> NDArray[np.int64] | None:
    """Return for each path: errno, mode, size, mtime, ctime, inode, device; int64 `(N, 7)`, times in nanoseconds.

    Links are followed; where the errno is not 0, all else is. None where a path has a zero in it. The GIL is free for
    the work.
    """
    names = zero_ended(paths)
    facts_N7 = np.empty((len(paths), 7), np.int64)
    if names.count(b"\0") != len(paths):
        return None
    _compiled.stat_files(names, facts_N7)
    return facts_N7


def philox4x64(counter_K4: NDArray[np.uint64], key: tuple[int, int]) -> None:
    """Put Philox 4x64-10 of each counter in its place, uint64 `(K, 4)`, C-contiguous; the key is two 64-bit words."""
    _compiled.philox4x64(counter_K4, *key)


def read_records(
    files: Sequence[int] | NDArray[np.int64], offset_K: NDArray[np.int64], kind: np.dtype[Any]
) -> NDArray[Any] | None:
    """Return the record at each offset of its open file, `(K,)`; None where a file ends before. Raises `OSError`.

    The system is told all places that are not in memory before the first of them is read: a disk is asked for them
    together. The GIL is free.
    """
    record_K = np.empty(len(offset_K), kind)
    outcome = _compiled.read_records(
        np.ascontiguousarray(files, np.int64), np.ascontiguousarray(offset_K), record_K.view(np.uint8)
    )
    if outcome > 0:
        raise OSError(outcome, os.strerror(outcome))
    return record_K if outcome == 0 else None


def zero_ended(paths: Sequence[str]) -> bytes:
    """Return the paths as the system wants them, a zero behind each."""
    return os.fsencode("".join([f"{path}\0" for path in paths]))


class Crops(NamedTuple):
    """One crop of each of M pictures, and where they go: all of `Pool.submit` that differs from crop to crop."""

    images: NDArray[Any]
    planar: bool
    box_N4: NDArray[np.int64]
    resized_N2: NDArray[np.int64]
    offset_N2: NDArray[np.int64]
    flip_N: NDArray[np.bool_]
    vflip_N: NDArray[np.bool_]
    bicubic: bool = False
    mirrored_margins: bool = False
    scale_3: NDArray[np.float32] | None = None
    """Factor of each channel; one for all where `images` has one."""
    shift_3: NDArray[np.float32] | None = None


class Job:
    """Pictures that the threads of a `Pool` are making. Dropping the job cancels it."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def wait(self) -> NDArray[np.uint8]:
        """Return the outcome of each picture, uint8 `(M,)`, once all are done: `DONE`, ...

        Other Python threads run meanwhile.
        """
        return np.frombuffer(self._job.wait(), np.uint8)

    def done(self) -> bool:
        """Return whether `wait` would return at once."""
        return bool(self._job.done())

    def cancel(self) -> None:
        """Cancel the pictures that were not begun, and return when no thread writes any more."""
        self._job.cancel()


class Pool:
    """Threads, outside Python, that make pictures of JPEGs in files. A forked child can't use its parent's."""

    def __init__(self, threads: int) -> None:
        """Start the threads. Raises `OSError` where the system can't start that many."""
        self._pool = _compiled.Pool(threads)

    def submit(
        self,
        images: NDArray[Any],
        *,
        planar: bool,
        row_M: NDArray[np.int64],
        target_M: NDArray[np.int64],
        file_M: NDArray[np.int64],
        byte_M: NDArray[np.int64],
        size_M: NDArray[np.int64],
        source_M2: NDArray[np.int64],
        box_N4: NDArray[np.int64],
        resized_N2: NDArray[np.int64],
        offset_N2: NDArray[np.int64],
        flip_N: NDArray[np.bool_],
        vflip_N: NDArray[np.bool_],
        bicubic: bool = False,
        mirrored_margins: bool = False,
        scale_3: NDArray[np.float32] | None = None,
        shift_3: NDArray[np.float32] | None = None,
        simd: str | None = None,
        more: Sequence[Crops] = (),
    ) -> Job:
        """Begin M pictures; returns at once. Pictures of earlier jobs come first.

        Picture `target_M[i]` of `images` is made of the JPEG of `size_M[i]` bytes at byte `byte_M[i]` of the open file
        `file_M[i]`, whose header has to say `source_M2[i]` (width, height), by row `row_M[i]` of the geometry: the five
        arrays from `box_N4` on, as `imgdata.augment.params.BatchParams` explains them. Files are read by `pread` and
        have to stay open until the end. Arrays are C-contiguous and have exactly these types.

        `images` is uint8, float16 or float32, `(B, C, H, W)` when `planar`, else `(B, H, W, C)`. C is 3 for red, green
        and blue, or 1 for luma: then chroma is read, and no samples are made of it. Floats become
        `value * scale + shift`. Margins are black, or mirrored. Resizes are antialiased, `bicubic` or bilinear.

        `more`: further crops of the same pictures, up to 63. Each file is read once, and decoded once for all crops
        that the DCT shrinks alike; every crop has the pixels that it has alone. An outcome is that of all crops.

        `UNFIT` are the JPEGs for which `resize_jpeg` returns None, as far as they had to be read, and those without an
        end marker: data after a crop is not decoded, and of crop-ready files (`crop_interval`) nothing but the segments
        that cover it. The pixels of such a picture are undefined.
        """
        first = Crops(
            images,
            planar,
            box_N4,
            resized_N2,
            offset_N2,
            flip_N,
            vflip_N,
            bicubic,
            mirrored_margins,
            scale_3,
            shift_3,
        )
        places = (row_M, target_M, file_M, byte_M, size_M, source_M2)
        way = SIMD.index(simd or SIMD[-1])
        return Job(self._pool.submit(*(_said(crops, places, way) for crops in (first, *more))))

    def close(self) -> None:
        """End the threads, and cancel the pictures that were not begun; may be called twice."""
        self._pool.close()


def _said(crops: Crops, places: tuple[NDArray[np.int64], ...], simd: int) -> tuple[Any, ...]:
    """Return what the compiled pool is given for one crop of each picture."""
    images, planar, scale_3, shift_3 = crops.images, crops.planar, crops.scale_3, crops.shift_3
    scale_23 = np.empty((2, 3), np.float32)
    scale_23[0], scale_23[1] = 1.0 if scale_3 is None else scale_3, 0.0 if shift_3 is None else shift_3
    geometry = (crops.box_N4, crops.resized_N2, crops.offset_N2, crops.flip_N, crops.vflip_N)
    return (
        (*places, *geometry, scale_23, images),
        (*images.shape[2:], images.shape[1]) if planar else images.shape[1:],
        _KINDS[images.dtype.name],
        planar,
        crops.bicubic,
        crops.mirrored_margins,
        simd,
    )
