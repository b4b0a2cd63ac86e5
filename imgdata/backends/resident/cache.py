"""A split and what is kept of each picture -> its pixels, from a file of an earlier run, or decoded and put into one.

`KEY.npy` is an array of NumPy's, uint8 `(N, height, width, 3)`, and `KEY.json` the pictures that are bad. Either is
whole or not there, and the pixels come last: who finds them finds both. One process makes them while others wait.
"""

import fcntl
import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import PIL

from imgdata import native
from imgdata.backends.resident.decoding import Bad, Put, decode, parts
from imgdata.backends.resident.kept import Kept
from imgdata.backends.work import Setup
from imgdata.cache import CacheWarning, cache_folder
from imgdata.dataset.views import index_id
from imgdata.errors import ImageError, OutputError
from imgdata.files import output_error, whole_file, write_atomic
from imgdata.version import __version__

FORMAT_VERSION = 1
_POLL_S = 0.05
"""How often a process that waits for another one looks."""


def resident_folder() -> Path:
    """Where the pixels of all splits lie."""
    return cache_folder() / "resident"


def cache_file(setup: Setup, window: Kept) -> Path:
    """Where the pixels lie: named by the pictures, what is done to them, and what decodes them."""
    decoders = f"{native.libjpeg_version() if native.AVAILABLE else None}, {PIL.__version__}, {__version__}"
    index = setup.split.index
    # An index may say what is not so, and then the picture is bad.
    sizes = hashlib.sha256(np.stack([index.width_N, index.height_N]).astype("<i4").tobytes()).hexdigest()
    content = [FORMAT_VERSION, index_id(index), sizes, window.recipe.to_dict(), setup.max_pixels, decoders]
    return resident_folder() / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.npy"


def fill(setup: Setup, window: Kept, put: Put, check: Callable[[], None]) -> Bad:
    """Give all pictures to `put`, in order, bad ones black; returns those.

    `check` is called now and then, and raises where nobody wants them any more. Raises `ShardError`; warns with
    `CacheWarning` where the cache can't be used, and does without.
    """

    def checked(first: int, pixels: "np.typing.NDArray[np.uint8]") -> None:
        check()
        put(first, pixels)

    path = cache_file(setup, window)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock"), check):
            bad = _read(path, len(setup.split), window, checked)
            return _make(path, setup, window, checked) if bad is None else bad
    except (OSError, OutputError) as error:
        reason = error if isinstance(error, OutputError) else output_error(error, path)
        warnings.warn(
            f"{reason}; the decoded pictures are kept in memory alone: set IMGDATA_CACHE to a folder for them",
            CacheWarning,
            stacklevel=2,
        )
    return decode(setup, window, checked)


@contextmanager
def _alone(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """One process, and one thread of it, at a time. The system unlocks when a process ends, however it does."""
    with open(path, "wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(_POLL_S)
        yield


def _make(path: Path, setup: Setup, window: Kept, put: Put) -> Bad:
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        # Of a process that was killed: nobody else writes here now.
        left_over.unlink(missing_ok=True)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        shape = (len(setup.split), window.height, window.width, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})

        def put_and_write(first: int, pixels: "np.typing.NDArray[np.uint8]") -> None:
            put(first, pixels)
            file.write(pixels.data)

        bad = decode(setup, window, put_and_write)
        file.flush()
        rows = [[position, error.reason, error.detail] for position, error in sorted(bad.items())]
        write_atomic(path.with_suffix(".json"), json.dumps({"version": FORMAT_VERSION, "bad": rows}).encode())
    return bad


def _read(path: Path, count: int, window: Kept, put: Put) -> Bad | None:
    """As `fill`, from the files; None where they are not there or not what they have to be."""
    try:
        bad = _bad_in(path.with_suffix(".json"))
        with open(path, "rb") as file:
            if not _fits(file, count, window):
                return None
            for first, last in parts(count, window):
                pixels = np.empty((last - first, window.height, window.width, 3), np.uint8)
                if file.readinto(pixels.data.cast("B")) != pixels.nbytes:
                    return None
                put(first, pixels)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return bad


def _fits(file: IO[bytes], count: int, window: Kept) -> bool:
    """Whether the header and the size are those of such an array; leaves the file behind the header."""
    shape = (count, window.height, window.width, 3)
    if np.lib.format.read_magic(file) != (1, 0):
        return False
    if np.lib.format.read_array_header_1_0(file) != (shape, False, np.dtype(np.uint8)):
        return False
    return os.fstat(file.fileno()).st_size == file.tell() + math.prod(shape)


def _bad_in(path: Path) -> Bad:
    content = json.loads(path.read_bytes())
    if content["version"] != FORMAT_VERSION:
        raise ValueError("of another version")
    return {int(position): ImageError(str(reason), str(detail)) for position, reason, detail in content["bad"]}
