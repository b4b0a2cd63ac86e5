"""Thumbnails -> 256-bit perceptual hashes of the whole pictures, and of what a copy of each may show of it.

The hash is PDQ's idea (Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019;
facebook/ThreatExchange): a picture's 16 x 16 lowest cosine frequencies without the zeroth ones, one bit each, set where
the frequency is stronger than their median. Copies of a picture differ in few bits, unlike pictures in about 128.

What differs from PDQ: thumbnails are made by area averaging, the cosines are integrated over the pixels so that a part
of a picture has a hash without being resized, and all sums are of integers, so that a hash has the same bits on every
processor.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 64
"""Pixels of a thumbnail's side."""
WORDS = 4
"""uint64 words of a hash."""
FLAT = 20
"""A picture whose gate is below has too little structure to be told from others: it has no hash."""
CLEAR = 50
"""A picture whose gate is this or more keeps its hash when it is encoded strongly or cropped (PDQ's recommendation);
between `FLAT` and this, some copies are missed."""

_FREQUENCIES = 16
_SCALE = 2.0**13  # Products of 8-bit luma and two weights, summed over 64 x 64 pixels, stay below 2**53: exact.
_BATCH = 64  # Thumbnails at a time: as float64 they stay in the cache, which makes it twice as fast as 512.


class Box(NamedTuple):
    """A part of a picture, as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What a copy of a picture may show of it: a part, mirrored or not."""

    box: Box
    mirrored: bool = False

    @property
    def cropped(self) -> bool:
        """Whether the part is less than the whole."""
        return self.box != WHOLE


WHOLE = Box(0.0, 0.0, 1.0, 1.0)
_FIVE_PERCENT = 1 - 0.95**0.5  # Of each side, when 5 % of the area are cut off; where is not known.
_CENTRES = tuple(Box(cut, cut, 1 - cut, 1 - cut) for cut in (_FIVE_PERCENT / 2, 0.05))
_CORNERS = tuple(
    Box(left, top, left + 1 - _FIVE_PERCENT, top + 1 - _FIVE_PERCENT)
    for left in (0.15 * _FIVE_PERCENT, 0.85 * _FIVE_PERCENT)
    for top in (0.15 * _FIVE_PERCENT, 0.85 * _FIVE_PERCENT)
)
QUERIES = (
    *(Query(box=box, mirrored=mirrored) for box in (WHOLE, *_CENTRES) for mirrored in (False, True)),
    *(Query(box=box) for box in (*_CORNERS, *(Box(cut, cut, 1 - cut, 1 - cut) for cut in (0.0625, 0.1)))),
)
"""What is hashed of each picture, in this order; the first is the picture itself.

Measured on tiles of photographs: a copy of which 5 % of the area are cut off is found at 75 % by the box in the middle
alone, at 99 % with one towards each corner.
"""


def hashes(luma_BxHxW: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return hashes of all `QUERIES`, uint64 `(B, Q, 4)`, and gates, uint8 `(B,)`, of thumbnails uint8 `(B, 64, 64)`.

    A gate is from 0 (one colour) to 100; below `FLAT` the hash is noise.
    """
    check_thumbnails(luma_BxHxW)
    hash_BQ4 = np.empty((len(luma_BxHxW), len(QUERIES), WORDS), np.uint64)
    for start in range(0, len(luma_BxHxW), _BATCH):
        part = slice(start, start + _BATCH)
        hash_BQ4[part] = _hashes(luma_BxHxW[part])
    return hash_BQ4, gates(luma_BxHxW)


def gates(luma_BxHxW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how much structure thumbnails have, uint8 `(B,)` from 0 to 100.

    PDQ's measure: the steps between neighbouring pixels, in whole hundredths of the range, over 90.
    """
    check_thumbnails(luma_BxHxW)
    gate_B = np.empty(len(luma_BxHxW), np.uint8)
    for start in range(0, len(luma_BxHxW), _BATCH):
        luma = luma_BxHxW[start : start + _BATCH]
        total_B = _steps(luma[:, 1:], luma[:, :-1]) + _steps(luma[:, :, 1:], luma[:, :, :-1])
        gate_B[start : start + _BATCH] = np.minimum(total_B // 90, 100)
    return gate_B


def coarse_hashes(hash_x4: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the bits of the 8 x 8 lowest frequencies alone, each four times, uint64 `(..., 4)` of hashes `(..., 4)`.

    They outlast what the others don't: strong encoding, and halving a picture that was small already. Four times, so
    that 31 bits of 256 are 7 of these 64.
    """
    row_x16 = np.ascontiguousarray(hash_x4[..., :2].astype("<u8")).view(np.uint8)
    # A row of frequencies is two octets, of which the first has the lower ones.
    low_x1 = np.ascontiguousarray(row_x16[..., ::2]).view("<u8").astype(np.uint64)
    return np.repeat(low_x1, WORDS, axis=-1)


def check_thumbnails(luma_BxHxW: NDArray[np.uint8]) -> None:
    """Raise `ValueError` where the array is not uint8 `(B, 64, 64)`."""
    if luma_BxHxW.dtype != np.uint8 or luma_BxHxW.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"thumbnails must be uint8 (B, 64, 64), got {luma_BxHxW.dtype} {luma_BxHxW.shape}")


def distance(one_x4: NDArray[np.uint64], other_x4: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return in how many bits hashes `(..., 4)` differ, `(...)`."""
    return np.asarray(popcount(one_x4 ^ other_x4).sum(-1), np.uint16)


def popcount(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the number of set bits of each word."""
    if hasattr(np, "bitwise_count"):  # NumPy 2.0 and later.
        return np.asarray(np.bitwise_count(words), np.uint8)
    octets = np.ascontiguousarray(words)[..., None].view(np.uint8)
    return np.asarray(np.unpackbits(octets, axis=-1).sum(-1), np.uint8)


def _steps(one_BxHxW: NDArray[np.uint8], other_BxHxW: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the sums of the differences in whole hundredths of 255, int32 `(B,)`."""
    difference = (np.maximum(one_BxHxW, other_BxHxW) - np.minimum(one_BxHxW, other_BxHxW)).astype(np.uint16)
    return np.asarray((difference * 100 // 255).sum((1, 2)), np.int32)


def _hashes(luma_BxHxW: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the hashes of all queries, uint64 `(B, Q, 4)`: two matrix products for a box, flipped signs to mirror."""
    luma = luma_BxHxW.astype(np.float64)
    down_of = {span: _cosines(*span) @ luma for span in {(query.box.top, query.box.bottom) for query in QUERIES}}
    hash_of = {}
    for box in {query.box for query in QUERIES}:
        frequency_BxFxF = down_of[box.top, box.bottom] @ _cosines(box.left, box.right).T
        hash_of[box, False] = _bits(frequency_BxFxF)
        # Columns 0, 2, 4 ... are the frequencies 1, 3, 5 ...: odd about the middle of the picture.
        frequency_BxFxF[:, :, ::2] *= -1
        hash_of[box, True] = _bits(frequency_BxFxF)
    return np.stack([hash_of[query.box, query.mirrored] for query in QUERIES], axis=1)


def _bits(frequency_BxFxF: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return uint64 `(B, 4)`: a bit for each frequency that is stronger than the lower median."""
    flat = frequency_BxFxF.reshape(len(frequency_BxFxF), -1)
    middle = flat.shape[1] // 2 - 1
    median_B = np.partition(flat, middle, axis=1)[:, middle]
    packed = np.packbits(flat > median_B[:, None], axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64)


@cache
def _cosines(start: float, end: float) -> NDArray[np.float64]:
    """Return the weights of a row's pixels in its part's frequencies 1 to 16, whole numbers, float64 `(16, 64)`.

    Frequency k is cos(pi k t), t from 0 to 1 in the part; a pixel's weight is its integral over the pixel.
    """
    edge_E = np.clip((np.arange(SIDE + 1) / SIDE - start) / (end - start), 0.0, 1.0)
    order_F1 = np.arange(1, _FREQUENCIES + 1)[:, None]
    integral_FE = np.sin(np.pi * order_F1 * edge_E) / (np.pi * order_F1)
    weights: NDArray[np.float64] = np.rint(np.diff(integral_FE, axis=1) * SIDE * (end - start) * _SCALE)
    weights.flags.writeable = False
    return weights
