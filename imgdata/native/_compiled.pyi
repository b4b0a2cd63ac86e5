"""The compiled part of `imgdata.native`, which says what the arguments mean."""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

LIBJPEG_TURBO: str
TAR_HASH_BYTES: int
SHA256_IS_FAST: int
SIMD: tuple[str, ...]

def resize_jpeg(
    data: bytes,
    from_size: tuple[int, int],
    size: tuple[int, int],
    quality: int,
    shrink: int,
    simd: str,
    crop_ready: bool,
    /,
) -> bytes | None: ...
def copy_samples(
    paths: bytes,
    keys: bytes,
    wanted: NDArray[np.int64],
    found: NDArray[np.int64],
    block: memoryview,
    first: int,
    used: int,
    block_at: int,
    tar: int,
    kind: int,
    hash: NDArray[np.uint64],
    extension: str,
    max_pixels: int,
    steady: NDArray[np.uint64],
    /,
) -> tuple[int, int, int, int, int]: ...
def philox4x64(counters: NDArray[np.uint64], key_0: int, key_1: int, /) -> None: ...
def read_records(files: NDArray[np.int64], offsets: NDArray[np.int64], records: NDArray[Any], /) -> int: ...
def tar_hash_update(kind: int, hash: NDArray[np.uint64], data: bytes | bytearray | memoryview, /) -> None: ...
def tar_hash_digest(kind: int, hash: NDArray[np.uint64], /) -> bytes: ...
def is_tar_of(descriptor: int, names: bytes, places: NDArray[np.int64], /) -> bool: ...
def stat_files(paths: bytes, facts: NDArray[np.int64], /) -> None: ...
def nearest(
    targets: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    starts: NDArray[np.int32],
    queries: NDArray[np.uint64],
    limits: NDArray[np.int32],
    found: NDArray[np.int32],
    distances: NDArray[np.uint8],
    counts: NDArray[np.int32],
    rows: NDArray[np.int32],
    chunk: int,
    bits: int,
    radius: int,
    most: int,
    /,
) -> None: ...
def resize_plane(samples: bytes, from_size: tuple[int, int], size: tuple[int, int], simd: str, /) -> bytes: ...
def thumbnails(
    files: tuple[bytes, ...],
    arrays: tuple[NDArray[Any], ...],
    luma_side: int,
    colour_side: int,
    shortest: int,
    simd: str,
    /,
) -> None: ...
def make_crop_ready(data: bytes, strip: bool, orientation: int, interval: int, /) -> tuple[bytes, int] | None: ...
def crop_interval(data: bytes, /) -> int: ...
def slice_jpeg(
    data: bytes, size: tuple[int, int], part: tuple[int, int, int, int], /
) -> tuple[bytes, int, int] | None: ...
def same_coefficients(left: bytes, right: bytes, /) -> bool: ...
def planes(
    data: bytes, size: tuple[int, int], shrink: int, part: tuple[int, int, int, int], simd: int, own: bool, /
) -> list[tuple[int, int, bytes]] | None: ...

@final
class Job:
    def wait(self) -> bytes: ...
    def done(self) -> bool: ...
    def cancel(self) -> None: ...

@final
class Pool:
    def __init__(self, threads: int, /) -> None: ...
    def submit(self, *crops: tuple[Any, ...]) -> Job: ...
    def close(self) -> None: ...
