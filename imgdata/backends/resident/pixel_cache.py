"""A split and what is kept of each picture -> its pixels, from a file of an earlier run, or decoded and put into one.

`KEY.npy` is an array of NumPy's, uint8 `(N, height, width, C)`; `KEY.json` has its checksum and the pictures that are
bad. Either is whole or not there, and the pixels come last: who finds them finds both, and needs no lock. One process
makes them while others wait.
"""

import hashlib
import io
import json
import math
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray

from imgdata import native
from imgdata.backends.protocol import BackendSetup
from imgdata.backends.resident.decoding import Bad, Put, decode, parts
from imgdata.backends.resident.window import Kept, num_bytes
from imgdata.dataset.index import content_id
from imgdata.errors import ImageError, OutputError
from imgdata.storage.atomic import output_error, whole_file, write_atomic
from imgdata.storage.cache_folder import CacheWarning, cache_folder, cache_limit, make_room
from imgdata.storage.locks import locked
from imgdata.storage.reading import open_regular, read_json
from imgdata.version import __version__

FORMAT_VERSION = 2


class _Facts(NamedTuple):
    """What `KEY.json` says of the pixels."""

    crc32: int
    bad: Bad


def resident_folder() -> Path:
    """Return the folder of the decoded pixels of all splits."""
    return cache_folder() / "resident"


def cache_file(setup: BackendSetup, window: Kept) -> Path:
    """Return the file of the pixels, named by the pictures, what is done to them, and what decodes them."""
    libjpeg = native.libjpeg_version() if native.AVAILABLE else None
    decoders = f"{libjpeg}, {simplejpeg.__version__}, {PIL.__version__}, {__version__}"
    index = setup.split.index
    # An index may say what is not so, and then the picture is bad.
    sizes = hashlib.sha256(np.stack([index.width_N, index.height_N]).astype("<i4").tobytes()).hexdigest()
    content: list[object] = [
        FORMAT_VERSION,
        content_id(index),
        sizes,
        window.recipe.to_dict(),
        setup.max_pixels,
        decoders,
    ]
    if window.channels != 3:
        content.append(window.channels)
    return resident_folder() / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.npy"


def fill(setup: BackendSetup, window: Kept, put: Put, check: Callable[[], None]) -> Bad:
    """Give all pictures to `put`, in order, bad ones black; returns those.

    `check` is called now and then, and raises where no batch is waited for any more. Raises `ShardError`; warns with
    `CacheWarning` where the cache can't be used, and does without.
    """

    def checked(first: int, pixels: NDArray[np.uint8]) -> None:
        check()
        put(first, pixels)

    path = cache_file(setup, window)
    try:
        count = len(setup.split)
        bad = _read(path, count, window, checked)
        if bad is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock"), wait_s=math.inf, while_waiting=check, mode=0o666):
                # Another process may have made it by now.
                bad = _read(path, count, window, checked)
                if bad is None:
                    _make_room(path, setup, window)
                    bad = _make(path, setup, window, checked)
        return bad
    except (OSError, OutputError) as error:
        reason = error if isinstance(error, OutputError) else output_error(error, path)
        warnings.warn(
            f"{reason}; the decoded pictures are kept in memory alone: set IMGDATA_CACHE to a folder for them",
            CacheWarning,
            stacklevel=2,
        )
    return decode(setup, window, checked)


def _make_room(path: Path, setup: BackendSetup, window: Kept) -> None:
    """Remove what was cached first, so far as it is needed. Raises `OutputError` where the limit is too low."""
    needed = num_bytes(setup, window)
    if not make_room(needed):
        raise OutputError(
            f"{path.parent}: the decoded pictures take {needed / 1e9:.2f} GB, and the cache may hold "
            f"{cache_limit() / 1e9:.2f} GB (IMGDATA_CACHE_GB)"
        )


def _make(path: Path, setup: BackendSetup, window: Kept, put: Put) -> Bad:
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        # Left by a process that was killed: no other process writes here now.
        left_over.unlink(missing_ok=True)
    crc32 = 0
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(_header(len(setup.split), window))

        def put_and_write(first: int, pixels: NDArray[np.uint8]) -> None:
            nonlocal crc32
            put(first, pixels)
            file.write(pixels.data)
            crc32 = zlib.crc32(pixels.data, crc32)

        bad = decode(setup, window, put_and_write)
        file.flush()
        rows = [[position, error.reason, error.detail] for position, error in sorted(bad.items())]
        content = {"version": FORMAT_VERSION, "crc32": crc32, "bad": rows}
        write_atomic(path.with_suffix(".json"), json.dumps(content).encode())
    return bad


def _read(path: Path, count: int, window: Kept, put: Put) -> Bad | None:
    """Do what `fill` does from the files; return None where a file is missing, or is not what it has to be."""
    crc32 = 0
    try:
        facts = _facts(path.with_suffix(".json"), count)
        with open(path, "rb", opener=open_regular) as file:
            header = _header(count, window)
            if file.read(len(header)) != header:
                return None
            for first, last in parts(count, window):
                pixels = np.empty((last - first, window.height, window.width, window.channels), np.uint8)
                if file.readinto(pixels.data.cast("B")) != pixels.nbytes:
                    return None
                crc32 = zlib.crc32(pixels.data, crc32)
                put(first, pixels)
            at_end = not file.read(1)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return facts.bad if at_end and crc32 == facts.crc32 else None


def _header(count: int, window: Kept) -> bytes:
    """Return the header of such an array in a file."""
    file = io.BytesIO()
    shape = (count, window.height, window.width, window.channels)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _facts(path: Path, count: int) -> _Facts:
    """Read `KEY.json`. Raises `ValueError`, `KeyError` or `TypeError` for what `_make` does not write."""
    content = read_json(path)
    if content["version"] != FORMAT_VERSION:
        raise ValueError("of another version")
    bad = {int(position): ImageError(str(reason), str(detail)) for position, reason, detail in content["bad"]}
    if not all(0 <= position < count for position in bad):
        raise ValueError("of another split")
    return _Facts(content["crc32"], bad)
