"""Samples -> what their pixels say, as columns in files: made once, kept in the cache folder.

Each image is decoded once, at a reduced size, by threads. The columns lie in files of a folder, which are mapped into
memory when they are whole. A pass that was interrupted or killed is resumed where `KEY.json` says.

1,000,000 samples take 5.3 GB on the disk, of which thumbnails in gray are 4.1 GB, and 60 MB of memory beside the
columns of the index. What is decoded at the time comes on top: for each thread 32 MB of encoded files, or one larger
file, and the pixels of one image.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.fact_files import FORMAT_VERSION, ROW_BYTES, Part, Writer, read_columns, read_journal
from imgdata.auditing.hashes import QUERIES, hashes
from imgdata.auditing.outcome import Progress
from imgdata.auditing.pixels import FIGURES, Pixels, look, pixel_hash
from imgdata.auditing.samples import Samples
from imgdata.auditing.workers import Piece, Threads, Workers
from imgdata.dataset.dataset import reopen
from imgdata.dataset.index import content_id
from imgdata.devices import own_cores
from imgdata.errors import ImageError, ImgdataError, OutputError
from imgdata.images.encode import encoder
from imgdata.storage.atomic import output_error
from imgdata.storage.cache_folder import cache_folder, cache_limit, make_room
from imgdata.storage.locks import locked

PART = 64
"""Samples that a thread gets at a time."""
_DECODED = 16
"""Pictures that a thread decodes whole before the next look at Ctrl-C."""
_PART_BYTES = 2**24
"""Encoded bytes of a part, unless a single image has more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """What the pixels of M samples say. Numbers of bad images are 0; those of pixels count upright pictures."""

    decoded_M: NDArray[np.bool_]
    """Whether the image can be used."""
    bad: Mapping[int, str]
    """Number -> why an image can't be used: a reason code, a colon, words for people."""
    luma_M64x64: NDArray[np.uint8]
    """The whole pictures in gray, squashed to squares, uint8 `(M, 64, 64)`; mapped into memory."""
    colour_M16x16x3: NDArray[np.uint8]
    """The same in red, green, blue, uint8 `(M, 16, 16, 3)`; mapped into memory."""
    hash_MQ4: NDArray[np.uint64]
    """Hashes of each of `hashes.QUERIES`, uint64 `(M, Q, 4)`, the whole picture first; mapped into memory."""
    gate_M: NDArray[np.uint8]
    """How much structure the picture has, 0 to 100: below `hashes.FLAT` its hash says nothing."""
    brightness_M: NDArray[np.float32]
    """Mean luma, 0 to 1."""
    dark_M: NDArray[np.float32]
    """Luma that 5 % of the picture don't exceed, 0 to 1: high where nothing is dark."""
    bright_M: NDArray[np.float32]
    """Luma that 99 % of the picture don't exceed, 0 to 1: low where nothing is bright."""
    contrast_M: NDArray[np.float32]
    """Standard deviation of luma, 0 to 0.5."""
    sharpness_M: NDArray[np.float32]
    """Edges of the sharpest hundredth of the picture over its range of luma: 1 or more for a step between two pixels,
    0.5 and more in most photographs, below 0.1 where nothing is in focus."""
    entropy_M: NDArray[np.float32]
    """Bits of information in a pixel's luma by itself, 0 to 8."""
    colourfulness_M: NDArray[np.float32]
    """Hasler and Süsstrunk's measure, over 255: 0 is gray, 0.06 slightly, 0.2 moderately, 0.4 extremely colourful."""
    red_M: NDArray[np.float32]
    """Mean red, 0 to 1."""
    green_M: NDArray[np.float32]
    """Mean green, 0 to 1."""
    blue_M: NDArray[np.float32]
    """Mean blue, 0 to 1."""
    border_M: NDArray[np.float32]
    """How uniform the frame is, 0 to 1: each of its four sides, of one level, counts a quarter."""
    jpeg_quality_M: NDArray[np.float32]
    """Estimated quality of JPEGs, 1 to 100; 0 for other formats."""

    def __len__(self) -> int:
        return len(self.decoded_M)


def facts(
    samples: Samples,
    folder: Path | None = None,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
    workers: Workers | None = None,
) -> Facts:
    """Return what the pixels of the samples say, from files of an earlier pass where there are such.

    Files lie in `folder`, by default `audit` in the cache folder, whose limit holds. As many `threads` as cores look at
    the pictures by default, or other `workers`. `progress` gets numbers of samples. Another process that makes the same
    facts is waited for.

    Raises `OutputError` where the folder can't be written or is full, `ShardError`, and `OptionError` for a
    limit of the cache that is no number. After it, and after Ctrl-C, the next call resumes the pass.
    """
    path = (folder or audit_folder()) / _key(samples)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), wait_s=math.inf, mode=0o666):
            chosen = workers or Threads(threads or len(own_cores()))
            _make(samples, path, in_cache=folder is None, workers=chosen, progress=progress)
            return _open(path, len(samples))
    except OSError as error:
        raise output_error(error, path) from error


def pixel_hashes(samples: Samples, numbers: Sequence[int], workers: Workers | None = None) -> NDArray[np.uint64]:
    """Return xxh64 of all pixels of some samples, upright and in RGB, with their size; 0 for bad images.

    Each is decoded whole: five times as slow as a thumbnail. The numbers ascend; `workers` look at them, by default
    this thread. Raises `ShardError`.
    """
    if not len(numbers):
        return np.empty(0, np.uint64)
    pieces = [numbers[start : start + _DECODED] for start in range(0, len(numbers), _DECODED)]
    hash_of: dict[int, int] = {}
    for piece, found in (workers or Threads(1)).run(samples, partial(_hasher, _max_pixels(samples)), pieces):
        hash_of.update(zip(piece, found, strict=True))
    return np.array([hash_of[number] for number in numbers], np.uint64)


def _hasher(max_pixels: int, samples: Samples) -> Callable[[Piece], list[int]]:
    """Return the function that hashes all pixels of some of the samples, one image at a time."""

    def find(numbers: Piece) -> list[int]:
        found = [0] * len(numbers)
        for row, number in enumerate(numbers):
            with suppress(ImageError):
                found[row] = pixel_hash(samples.read([number])[0], max_pixels=max_pixels)
        return found

    return find


def audit_folder() -> Path:
    """Return the folder of the facts in the cache folder."""
    return cache_folder() / "audit"


def _max_pixels(samples: Samples) -> int:
    folders = {str(view.folder): view.folder for view in samples.views}
    return max(reopen(folder).manifest.max_pixels for folder in folders.values())


def _key(samples: Samples) -> str:
    """Return the name of the facts: by the images, what is measured, and what decodes them."""
    digests = []
    for view in samples.views:
        index = view.index
        digest = hashlib.sha256(view.position_N.astype("<i8").tobytes())
        # An index may say what is not so, and then the picture is bad.
        for column in ("width", "height", "orientation", "format"):
            digest.update(index.array(column).astype("<i4").tobytes())
        digest.update(repr(index.words("format")).encode())
        digests.append([content_id(index), digest.hexdigest()])
    content = [FORMAT_VERSION, FIGURES, repr(QUERIES), ROW_BYTES, encoder(), _max_pixels(samples), digests]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _open(path: Path, count: int) -> Facts:
    arrays, bad = read_columns(path, count)
    figure_FxM = np.ascontiguousarray(arrays["figure"].T)
    return Facts(
        decoded_M=arrays["state"][:, 0] != 0,
        bad=bad,
        luma_M64x64=arrays["luma"],
        colour_M16x16x3=arrays["colour"],
        hash_MQ4=arrays["hash"],
        gate_M=np.array(arrays["state"][:, 1]),
        **{f"{name}_M": column_M for name, column_M in zip(FIGURES, figure_FxM, strict=True)},
    )


# --- The pass -------------------------------------------------------------------------------------------


def _make(samples: Samples, path: Path, *, in_cache: bool, workers: Workers, progress: Progress) -> None:
    """Look at the samples that no earlier pass has looked at."""
    journal, count = read_journal(path), len(samples)
    if journal.done < count:
        _check_room(path, (count - journal.done) * ROW_BYTES, count * ROW_BYTES, in_cache=in_cache)
        pieces = _cuts(samples.array("size"), journal.done)
        seen = journal.done
        with Writer(path, journal) as writer:
            for numbers, part in workers.run(samples, partial(_looker, _max_pixels(samples)), pieces):
                writer.add(numbers[0], part)
                seen += len(numbers)
                progress(seen, count)
    progress(count, count)


def _check_room(path: Path, missing: int, total: int, *, in_cache: bool) -> None:
    """Make room in the cache. Raises `OutputError` where the facts don't fit into it, or on the disk."""
    if in_cache:
        if total > cache_limit():
            raise OutputError(
                f"{path.parent}: what is measured of the images takes {total / 1e9:.2f} GB, and the cache may hold "
                f"{cache_limit() / 1e9:.2f} GB; set IMGDATA_CACHE_GB, or IMGDATA_CACHE to a folder on another disk"
            )
        for file in path.parent.glob(f"{path.name}.*"):
            # The entries that were written first go first: not what is being resumed.
            os.utime(file)
        make_room(missing)
    free = shutil.disk_usage(path.parent).free
    if free < missing:
        raise OutputError(
            f"{path.parent}: what is measured of the images takes {missing / 1e9:.2f} GB more, and {free / 1e9:.2f} GB "
            "are free; free some, or set IMGDATA_CACHE to a folder on another disk"
        )


class _IndexColumns:
    """What the indices say of the samples."""

    def __init__(self, samples: Samples) -> None:
        self.side_M2 = np.stack([samples.array("width"), samples.array("height")], axis=1).astype(np.int32)
        self.orientation_M = samples.array("orientation").astype(np.uint8)
        self.formats, self.format_M = samples.words("format")


def _cuts(size_M: NDArray[Any], start: int) -> Iterator[range]:
    """Yield the numbers of each part: at most `PART` samples of `_PART_BYTES`."""
    before_M1 = np.concatenate([[0], np.cumsum(size_M, dtype=np.int64)])
    while start < len(size_M):
        fits = int(np.searchsorted(before_M1, before_M1[start] + _PART_BYTES, "right")) - 1
        end = max(start + 1, min(start + PART, fits, len(size_M)))
        yield range(start, end)
        start = end


def _looker(max_pixels: int, samples: Samples) -> Callable[[Piece], Part]:
    """Return the function that looks at some of the samples."""
    columns = _IndexColumns(samples)
    return lambda numbers: _look(samples, columns, numbers, max_pixels)


def _look(samples: Samples, columns: _IndexColumns, numbers: Piece, max_pixels: int) -> Part:
    files = samples.read(numbers)
    rows = np.asarray(numbers)
    pixels: Pixels | None = None
    with suppress(MemoryError):
        pixels = look(
            files,
            formats=[columns.formats[code] for code in columns.format_M[rows].tolist()],
            size_B2=columns.side_M2[rows],
            orientation_B=columns.orientation_M[rows],
            max_pixels=max_pixels,
        )
    if pixels is None:
        # Not inside the handler, whose traceback holds what was decoded so far.
        keys = samples.texts("key", [numbers[0], numbers[-1]])
        raise ImgdataError(
            f"not enough memory to decode one of the images {keys[0]} to {keys[1]}; use fewer threads, or set "
            "IMGDATA_MAX_PIXELS to leave large images out"
        )
    return _with_hashes(pixels)


def _with_hashes(pixels: Pixels) -> Part:
    hash_BQ4, gate_B = hashes(pixels.luma_BxHxW)
    decoded_B = np.ones(len(gate_B), np.uint8)
    for row in pixels.bad:
        hash_BQ4[row], gate_B[row], decoded_B[row] = 0, 0, 0
    arrays: dict[str, NDArray[Any]] = {
        "luma": pixels.luma_BxHxW,
        "colour": pixels.colour_BxHxWx3,
        "hash": hash_BQ4,
        "figure": pixels.figure_BxF,
        "state": np.stack([decoded_B, gate_B], axis=1),
    }
    return Part(arrays, pixels.bad)
