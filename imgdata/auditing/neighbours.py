"""Vectors -> the nearest neighbours of each; pairs of samples that look alike to a network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.finding import Finding
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.vectors import Vectors
from imgdata.errors import MissingExtraError

WHAT = ("same features", "looks alike")
EXACT_ROWS = 200_000
"""Vectors up to which all pairs are compared, each with each, in blocks."""
MOST = 1000
"""Findings at most; how many pairs there are stands in the figures."""
SAME = 1e-5
"""Distance of vectors that differ by rounding alone."""
ALIKE = 0.2
"""A pair looks alike where its distance is at most this share of the median distance to a nearest neighbour."""
_BLOCK = 2048
_COUNT = 4


def unit(vector_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors about their mean, each of length 1: what all pictures have in common tells none apart."""
    vector_ND = np.asarray(vector_ND - vector_ND.mean(0, dtype=np.float64), np.float32)
    return np.asarray(vector_ND / (np.linalg.norm(vector_ND, axis=1, keepdims=True) + np.float32(1e-12)), np.float32)


def nearest(
    unit_ND: NDArray[np.float32],
    query_Q: NDArray[np.int64],
    count: int,
    progress: Progress = lambda done, total: None,
    exact_rows: int = EXACT_ROWS,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest others of some vectors: rows int64 `(Q, K)`, nearest first, and 1 - cosine float32 `(Q, K)`.

    All are compared where there are at most `exact_rows` vectors; beyond that usearch finds nearly all of the nearest.
    Raises `MissingExtraError` where usearch is needed.
    """
    count = min(count, len(unit_ND) - 1)
    row_QK = np.empty((len(query_Q), count), np.int64)
    distance_QK = np.empty((len(query_Q), count), np.float32)
    graph = _graph(unit_ND) if len(unit_ND) > exact_rows else None
    for start in range(0, len(query_Q), _BLOCK):
        query_B = query_Q[start : start + _BLOCK]
        found = _compared(unit_ND, query_B, count) if graph is None else _searched(graph, unit_ND, query_B, count)
        row_QK[start : start + _BLOCK], distance_QK[start : start + _BLOCK] = found
        progress(start + len(query_B), len(query_Q))
    return row_QK, distance_QK


def find(
    samples: Samples,
    vectors: Vectors,
    progress: Progress = lambda done, total: None,
    *,
    exact_rows: int = EXACT_ROWS,
) -> Outcome:
    """Return the pairs of samples that look alike to the network, the nearest first: what pixels can't tell.

    Whether a pair is one picture or two of one thing is for people to see: the proposal is `look`.
    """
    number_K = vectors.number_K
    if len(number_K) < 3:
        return Outcome(findings=(), notes=("Neighbours by features need at least 3 pictures that can be decoded.",))
    unit_KD = unit(vectors.vector_KD)
    row_KN, distance_KN = nearest(unit_KD, np.arange(len(unit_KD)), _COUNT, progress, exact_rows)
    usual = float(np.median(distance_KN[:, 0]))
    limit = max(ALIKE * usual, SAME)
    one_P, which_P = np.nonzero(distance_KN <= limit)
    other_P, distance_P = row_KN[one_P, which_P], distance_KN[one_P, which_P].clip(0)
    pair_P2 = np.sort(np.stack([one_P, other_P], 1), 1)
    pair_U2, first_U = np.unique(pair_P2, axis=0, return_index=True)
    distance_U = distance_P[first_U]
    order_U = np.argsort(distance_U, kind="stable")[:MOST]
    places_one = samples.places(number_K[pair_U2[order_U, 0]])
    places_other = samples.places(number_K[pair_U2[order_U, 1]])
    findings = []
    for one, other, distance in zip(places_one, places_other, distance_U[order_U].tolist(), strict=True):
        what = WHAT[0] if distance <= SAME else WHAT[1]
        # Half of it is surely no duplicate: a picture's usual neighbour has the score 0.
        score = 1.0 if what == WHAT[0] else max(0.0, 1 - distance / max(usual, SAME))
        findings.append(
            Finding(
                kind="near-duplicate",
                what=what,
                place=other,
                other=one,
                score=score,
                message=f"{other.source} and {one.source} look alike to the network: "
                f"{distance:.4f} apart, where a picture's nearest neighbour usually is {usual:.3f} away.",
                evidence={"distance": distance, "usual distance": usual},
            )
        )
    figures: dict[str, Any] = {
        "pairs": len(pair_U2),
        "usual distance": usual,
        "limit": limit,
        "features": vectors.what,
        "exact": len(unit_KD) <= exact_rows,
    }
    notes = (f"Only the {MOST:,} nearest of {len(pair_U2):,} pairs that look alike are listed.",)
    return Outcome(findings=tuple(findings), figures=figures, notes=notes if len(pair_U2) > MOST else ())


def _compared(
    unit_ND: NDArray[np.float32], query_B: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    likeness_BN = unit_ND[query_B] @ unit_ND.T
    likeness_BN[np.arange(len(query_B)), query_B] = -2
    row_BK = np.argpartition(-likeness_BN, count - 1, axis=1)[:, :count]
    likeness_BK = np.take_along_axis(likeness_BN, row_BK, 1)
    order_BK = np.lexsort((row_BK, -likeness_BK), axis=1)
    return np.take_along_axis(row_BK, order_BK, 1), 1 - np.take_along_axis(likeness_BK, order_BK, 1)


def _graph(unit_ND: NDArray[np.float32]) -> Any:
    try:
        from usearch.index import Index
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"neighbours of {len(unit_ND):,} pictures need usearch: pip install 'imgdata[audit]'"
        ) from error
    graph = Index(ndim=unit_ND.shape[1], metric="cos", dtype="f16")
    graph.add(np.arange(len(unit_ND), dtype=np.uint64), unit_ND)
    return graph


def _searched(
    graph: Any, unit_ND: NDArray[np.float32], query_B: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest of a graph, with distances from the vectors themselves: the graph has 16 bits."""
    found = graph.search(unit_ND[query_B], count + 1)
    key_BK = np.asarray(found.keys).reshape(len(query_B), -1).astype(np.int64)
    row_BK = np.empty((len(query_B), count), np.int64)
    distance_BK = np.empty((len(query_B), count), np.float32)
    for number, (query, keys) in enumerate(zip(query_B.tolist(), key_BK, strict=True)):
        # The query itself is among the nearest, but for copies of it.
        others = keys[keys != query][:count]
        distance = 1 - unit_ND[others] @ unit_ND[query]
        order = np.argsort(distance, kind="stable")
        row_BK[number], distance_BK[number] = others[order], distance[order]
    return row_BK, distance_BK
