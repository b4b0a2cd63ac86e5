"""Pairs of like samples -> groups, each around one representative that all its members are like."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Links:
    """Pairs of like samples, each pair once: the one that is kept rather, and the other."""

    kept_L: NDArray[np.int64]
    other_L: NDArray[np.int64]
    what_L: NDArray[np.int8]
    """How they are alike: place in `copies.WHATS`."""
    score_L: NDArray[np.float32]
    distance_L: NDArray[np.int16]
    """Bits in which their hashes differ; -1 where the samples were found by equal bytes, pixels or hashes."""

    def __len__(self) -> int:
        return len(self.kept_L)

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Links":
        """Return some of the links."""
        return Links(
            kept_L=self.kept_L[chosen],
            other_L=self.other_L[chosen],
            what_L=self.what_L[chosen],
            score_L=self.score_L[chosen],
            distance_L=self.distance_L[chosen],
        )


def join(parts: list[Links]) -> Links:
    """Return the links of all parts."""
    empty = np.zeros(0, np.int64)
    return Links(
        kept_L=np.concatenate([empty, *(part.kept_L for part in parts)]),
        other_L=np.concatenate([empty, *(part.other_L for part in parts)]),
        what_L=np.concatenate([empty.astype(np.int8), *(part.what_L for part in parts)]),
        score_L=np.concatenate([empty.astype(np.float32), *(part.score_L for part in parts)]),
        distance_L=np.concatenate([empty.astype(np.int16), *(part.distance_L for part in parts)]),
    )


def best_by_other(links: Links, place_M: NDArray[np.int64]) -> Links:
    """Return one link for each `other`: of the surest relation, then the highest score, then the first kept sample."""
    order_L = np.lexsort((place_M[links.kept_L], -links.score_L, links.what_L, links.other_L))
    other_L = links.other_L[order_L]
    first_L = np.ones(len(order_L), np.bool_)
    first_L[1:] = other_L[1:] != other_L[:-1]
    return links.take(order_L[first_L])


def around_representatives(links: Links, place_M: NDArray[np.int64]) -> Links:
    """Return the links of members to the representatives of their groups; `place_M` orders samples, kept ones first.

    Each sample, in this order, joins the representative that it is most like, or becomes one: so that two samples of
    a group are both like a third one, and no chain leads to an unlike picture. Samples with the same hash as another
    one are linked with that one alone, and follow it: what it is like, they are like.
    """
    same_L = links.distance_L < 0
    order_L = np.lexsort((place_M[links.kept_L], -links.score_L, links.what_L, place_M[links.other_L]))
    kept, other = links.kept_L[order_L].tolist(), links.other_L[order_L].tolist()
    members: set[int] = set()
    chosen = []
    for row, (one, sample, same) in enumerate(zip(kept, other, same_L[order_L].tolist(), strict=True)):
        # All links of a sample to earlier ones stand together, and whether those are members is known by then.
        if sample not in members and (same or one not in members):
            members.add(sample)
            chosen.append(row)
    return links.take(order_L[np.array(chosen, np.int64)])
