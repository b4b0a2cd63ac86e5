"""The header of a JPEG -> the quality that it was probably saved with, from its quantisation table of luma.

The scale is that of the Independent JPEG Group's libjpeg (`jpeg_quality_scaling` and `jpeg_add_quant_table` in
jcparam.c), which nearly all programs follow: the table of ITU-T T.81, annex K.1, times a factor. Where a camera or an
editor has tables of its own, the nearest quality is an estimate.
"""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ImageError
from imgdata.images.jpeg import FRAME_MARKERS, jpeg_segments

_DQT = 0xDB
# In the order of a file, which is the zigzag of T.81, figure A.6.
# fmt: off
_LUMA = (
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
)
# fmt: on


def jpeg_quality(data: bytes) -> int:
    """Return the estimated quality of a JPEG, 1 to 100; 0 for other bytes, and for a header without tables."""
    if data[:2] != b"\xff\xd8":
        return 0
    tables: dict[int, bytes] = {}
    try:
        for marker, start, end in jpeg_segments(data):
            if marker == _DQT:
                _add_tables(tables, data[start:end])
            elif marker in FRAME_MARKERS and end >= start + 9:
                # Tables may come behind the frame as well, but no encoder is known to write them there.
                return _nearest(tables.get(data[start + 8] & 3, b""))
    except ImageError:
        pass
    return 0


def _add_tables(tables: dict[int, bytes], payload: bytes) -> None:
    """Add the tables of a DQT segment, by their number; one of 16 bits has 128 bytes."""
    while payload:
        size = 128 if payload[0] >> 4 else 64
        tables[payload[0] & 3] = payload[1 : 1 + size]
        payload = payload[1 + size :]


@lru_cache(maxsize=1024)
def _nearest(table: bytes) -> int:
    """Return the quality whose table is nearest, by the sum of the differences; the highest where several are."""
    if len(table) not in (64, 128):
        return 0
    value_64 = np.frombuffer(table, np.uint8 if len(table) == 64 else ">u2").astype(np.int64)
    distance_100 = np.abs(_tables() - value_64).sum(axis=1)
    return 100 - int(np.argmin(distance_100[::-1]))


@cache
def _tables() -> NDArray[np.int64]:
    """Return the tables of qualities 1 to 100, int64 `(100, 64)`, values 1 to 255 as in baseline JPEG."""
    quality_100x1 = np.arange(1, 101)[:, None]
    factor_100x1 = np.where(quality_100x1 < 50, 5000 // quality_100x1, 200 - 2 * quality_100x1)
    return np.asarray(np.clip((np.array(_LUMA) * factor_100x1 + 50) // 100, 1, 255))
