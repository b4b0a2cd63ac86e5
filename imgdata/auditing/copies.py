"""Samples and what their pixels say -> pairs of copies, from the surest to the least sure.

The same bytes, by the index alone; the same pixels, for which few pictures are decoded whole: those whose hashes and
sizes are equal; near hashes, confirmed by the correlation of the aligned thumbnails.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.facts import Facts, pixel_hashes
from imgdata.auditing.groups import Links, join
from imgdata.auditing.hashes import CLEAR, FLAT, QUERIES, WHOLE
from imgdata.auditing.matching import (
    ALIKE,
    ALIKE_IN_DETAIL,
    COARSE,
    COARSELY_ALIKE,
    FLAT_ALIKE_IN_DETAIL,
    correlations,
    details,
)
from imgdata.auditing.near import Pairs, find_pairs
from imgdata.auditing.outcome import Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.workers import Threads, Workers
from imgdata.devices import own_cores

WHATS = ("same bytes", "same pixels", "near", "mirrored", "cropped")
"""How two samples are alike, the surest first."""
EXACT = 2
"""The first `EXACT` of `WHATS` are copies to the pixel."""

_OTHER_COLOUR = 0.1  # Difference of the means of red less green, or blue less green, as a part of the range.
_UNLIKE = 8  # Pictures with equal hashes that may be unlike each other; more are not compared.
_FLAT_LEVELS = 4  # Levels, of 255, between means of flat pictures that are compared; decoders differ by one.
PLAIN_ENTROPY = 3.0
"""Bits a pixel: below that, as in digits and other shapes on one colour, different pictures correlate as copies do."""
SYMMETRIC = tuple(query.box == WHOLE for query in QUERIES)
_WHAT_Q = np.array([4 if query.cropped else 3 if query.mirrored else 2 for query in QUERIES], np.int8)


def can_be_told_apart(facts: Facts) -> NDArray[np.bool_]:
    """Return which pictures have structure and levels enough for near copies to be looked for, bool `(M,)`."""
    return facts.decoded_M & (facts.gate_M >= FLAT) & (facts.entropy_M >= PLAIN_ENTROPY)


def find_links(
    samples: Samples,
    facts: Facts,
    place_M: NDArray[np.int64],
    *,
    threads: int | None = None,
    workers: Workers | None = None,
    progress: Progress = lambda done, total: None,
) -> Links:
    """Return all pairs of copies. Of many that are equal, each is linked with the one that is kept alone.

    Hashes are compared by `threads`; `workers` decode pictures, by default as many threads.
    """
    byte_M = samples.byte_hashes(*facts.hash_MQ4[:, 0].T)
    same_bytes = _equal(np.arange(len(samples)), [byte_M, samples.array("size")], place_M)
    found = [_links(*same_bytes, 0)]
    left_M = facts.decoded_M.copy()
    left_M[same_bytes[1]] = False
    side_M2 = _upright_sides(samples)
    hash_M4 = np.ascontiguousarray(facts.hash_MQ4[:, 0])
    decoded = _Decoded(samples, workers or Threads(threads or len(own_cores())))

    number_K = _perhaps_equal(facts, hash_M4, side_M2, np.flatnonzero(left_M))
    pixel_K = decoded.hashes(number_K)
    number_K, pixel_K = number_K[pixel_K != 0], pixel_K[pixel_K != 0]
    same_pixels = _equal(number_K, [pixel_K, side_M2[number_K, 0], side_M2[number_K, 1]], place_M)
    found.append(_links(*same_pixels, 1))
    left_M[same_pixels[1]] = False

    number_K = np.flatnonzero(left_M & can_be_told_apart(facts))
    number_K = number_K[np.argsort(place_M[number_K])]
    number_K, near = _equal_hashes(facts, hash_M4, number_K)
    others = _near(facts, number_K, place_M, threads, progress)
    found.append(_pixels_again(_once(join([near, *others]), place_M), side_M2, decoded))
    return join(found)


def _perhaps_equal(
    facts: Facts, hash_M4: NDArray[np.uint64], side_M2: NDArray[np.int64], number_K: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the samples worth decoding whole: another one of the same size has the same hash, or both are flat.

    The thumbnail of a JPEG differs a little from that of its pixels saved as PNG. Hashes that are near show it later;
    flat pictures have none, so that they are decoded where their mean levels are near.
    """
    anyone_M = np.zeros(len(hash_M4), np.int64)
    side_2K = [side_M2[number_K, 0], side_M2[number_K, 1]]
    found = [*_equal(number_K, [*side_2K, *hash_M4[number_K].T], anyone_M)]
    flat_K = facts.gate_M[number_K] < FLAT
    level_K = facts.brightness_M[number_K] * 255 / _FLAT_LEVELS
    for shift in (0.0, 0.5):
        keys = [*side_2K, np.floor(level_K + shift)]
        found += _equal(number_K[flat_K], [key[flat_K] for key in keys], anyone_M)
    return np.unique(np.concatenate(found))


def _equal(
    number_K: NDArray[np.int64], keys: Sequence[NDArray[Any]], place_M: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, of samples whose keys `(K,)` are all equal, the one that is kept, for each of the others, and these."""
    if not len(number_K):
        return number_K, number_K
    order_K = np.lexsort((place_M[number_K], *keys))
    first_K = np.zeros(len(order_K), np.bool_)
    first_K[0] = True
    for key in keys:
        first_K[1:] |= key[order_K][1:] != key[order_K][:-1]
    kept_K = number_K[order_K[np.flatnonzero(first_K)[np.cumsum(first_K) - 1]]]
    return kept_K[~first_K], number_K[order_K[~first_K]]


def _equal_hashes(
    facts: Facts, hash_M4: NDArray[np.uint64], number_K: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Links]:
    """Return the samples to compare with all others, in their order, and links of those with the same hash to them.

    Equal hashes are nearly always one picture: all are compared with the first, those that are unlike it with the first
    of these, and so on.
    """
    compared, found = [], []
    left_K = number_K
    for _ in range(_UNLIKE):
        # `number_K` is in the order of places, so that its ranks can stand for them.
        rank_M = np.zeros(len(hash_M4), np.int64)
        rank_M[left_K] = np.arange(len(left_K))
        kept_L, other_L = _equal(left_K, list(hash_M4[left_K].T), rank_M)
        score_L = correlations(facts.luma_M64x64, kept_L, other_L, np.zeros(len(kept_L), np.int64))
        like_L = (score_L >= ALIKE) & _same_colours(facts, kept_L, other_L)
        found.append(_links(kept_L[like_L], other_L[like_L], 2, score_L[like_L]))
        compared.append(left_K[~np.isin(left_K, other_L)])
        left_K = left_K[np.isin(left_K, other_L[~like_L])]
        if not len(left_K):
            break
    chosen = np.concatenate(compared)
    return number_K[np.isin(number_K, chosen)], join(found)


def _near(
    facts: Facts,
    number_C: NDArray[np.int64],
    place_M: NDArray[np.int64],
    threads: int | None,
    progress: Progress,
) -> Iterator[Links]:
    """Yield links of pictures of which one, or what a copy may show of it, has a hash near the other's."""
    search = partial(find_pairs, facts.hash_MQ4, number_C, symmetric=SYMMETRIC, threads=threads)
    for part in search(coarse=True):
        yield _confirmed(facts, number_C, part, place_M, COARSELY_ALIKE, COARSE)
    for part in search(progress=progress):
        yield _confirmed(facts, number_C, part, place_M, ALIKE)


def _confirmed(
    facts: Facts,
    number_C: NDArray[np.int64],
    pairs: Pairs,
    place_M: NDArray[np.int64],
    least: float,
    *cells: int,
) -> Links:
    """Return links of the pairs whose thumbnails correlate, and whose colours are about the same."""
    owner_P, target_P = number_C[pairs.owner_P], number_C[pairs.target_P]
    score_P = correlations(facts.luma_M64x64, owner_P, target_P, pairs.query_P, *cells)
    like_P = (score_P >= least) & _same_colours(facts, owner_P, target_P)
    owner_L, target_L = owner_P[like_P], target_P[like_P]
    clear_L = np.maximum(facts.gate_M[owner_L], facts.gate_M[target_L]) >= CLEAR
    detail_L = details(facts.luma_M64x64, owner_L, target_L, pairs.query_P[like_P])
    like_P[like_P] = detail_L >= np.where(clear_L, ALIKE_IN_DETAIL, FLAT_ALIKE_IN_DETAIL)
    owner_P, target_P = owner_P[like_P], target_P[like_P]
    first_P = place_M[owner_P] < place_M[target_P]
    return Links(
        kept_L=np.where(first_P, owner_P, target_P),
        other_L=np.where(first_P, target_P, owner_P),
        what_L=_WHAT_Q[pairs.query_P[like_P]],
        score_L=score_P[like_P],
        distance_L=pairs.distance_P[like_P].astype(np.int16),
    )


def _same_colours(facts: Facts, one_P: NDArray[np.int64], other_P: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether the pictures have about the same colour in the mean, or one of them has none."""
    hue_MxC = np.stack([facts.red_M - facts.green_M, facts.blue_M - facts.green_M], axis=1)
    one_PxC, other_PxC = hue_MxC[one_P], hue_MxC[other_P]
    gray_P = np.minimum(abs(one_PxC).max(1, initial=0), abs(other_PxC).max(1, initial=0)) < 0.5 / 255
    return np.asarray(gray_P | (abs(one_PxC - other_PxC).max(1, initial=0) < _OTHER_COLOUR))


def _once(links: Links, place_M: NDArray[np.int64]) -> Links:
    """Return one link of each pair: of the surest relation, then the highest score."""
    order_L = np.lexsort((-links.score_L, links.what_L, place_M[links.kept_L], place_M[links.other_L]))
    links = links.take(order_L)
    first_L = np.ones(len(links), np.bool_)
    first_L[1:] = (links.kept_L[1:] != links.kept_L[:-1]) | (links.other_L[1:] != links.other_L[:-1])
    return links.take(first_L)


def _pixels_again(links: Links, side_M2: NDArray[np.int64], decoded: "_Decoded") -> Links:
    """Return the links with those that are equal to the pixel after all: a JPEG saved as PNG has another thumbnail."""
    likely_L = (links.what_L == 2) & (links.score_L > 0.995) & (links.distance_L <= 8)
    likely_L &= np.all(side_M2[links.kept_L] == side_M2[links.other_L], axis=1)
    row_K = np.flatnonzero(likely_L)
    both_2K = decoded.hashes(np.concatenate([links.kept_L[row_K], links.other_L[row_K]])).reshape(2, -1)
    equal_K = (both_2K[0] == both_2K[1]) & (both_2K[0] != 0)
    what_L, score_L = links.what_L.copy(), links.score_L.copy()
    what_L[row_K[equal_K]], score_L[row_K[equal_K]] = 1, 1
    return Links(
        kept_L=links.kept_L, other_L=links.other_L, what_L=what_L, score_L=score_L, distance_L=links.distance_L
    )


class _Decoded:
    """Hashes of all pixels of the samples that were asked for, each decoded once."""

    def __init__(self, samples: Samples, workers: Workers) -> None:
        self._samples = samples
        self._workers = workers
        self._known: dict[int, int] = {}

    def hashes(self, number_K: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the hashes, uint64 `(K,)`, 0 for bad images. Raises `ShardError`."""
        new = [number for number in np.unique(number_K).tolist() if number not in self._known]
        self._known.update(zip(new, pixel_hashes(self._samples, new, self._workers).tolist(), strict=True))
        return np.array([self._known[number] for number in number_K.tolist()], np.uint64)


def _upright_sides(samples: Samples) -> NDArray[np.int64]:
    side_M2 = np.stack([samples.array("width"), samples.array("height")], axis=1).astype(np.int64)
    turned_M = samples.array("orientation").astype(np.int64) >= 5
    return np.where(turned_M[:, None], side_M2[:, ::-1], side_M2)


def _links(
    kept_L: NDArray[np.int64],
    other_L: NDArray[np.int64],
    what: int,
    score_L: NDArray[np.float32] | None = None,
) -> Links:
    return Links(
        kept_L=kept_L,
        other_L=other_L,
        what_L=np.full(len(kept_L), what, np.int8),
        score_L=np.ones(len(kept_L), np.float32) if score_L is None else score_L,
        distance_L=np.full(len(kept_L), -1, np.int16),
    )
