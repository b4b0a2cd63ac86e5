"""Labels, fractions and a seed -> which sample goes into which split, each class by the fractions.

    x[c, s] = n[c] * f[s]     what class c should give to split s, seldom whole

`split_counts` rounds all x at once so that both the classes and the splits come out right (a controlled rounding):
start with the largest remainders of each class, then move single samples along paths of splits until the totals fit.
"""

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError

_NAME = re.compile(r"[a-z0-9_]+")
_SUM_TOLERANCE = 1e-6
_WHOLE_TOLERANCE = 1e-6
"""0.29 * 100 is a little less than 29; nearer than this to a whole number counts as whole."""
_STREAM = 0x73706C6974
"""Keeps these random numbers apart from those that shuffle with the same seed."""


def parse_fractions(text: str) -> dict[str, float]:
    """Parse `train=0.9,val=0.1` into `{"train": 0.9, "val": 0.1}`, in that order.

    Raises `OptionError` unless names are `[a-z0-9_]+`, fractions positive, and their sum 1.
    """
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or _NAME.fullmatch(name) is None:
            raise OptionError(f"--split must be like train=0.9,val=0.1 (names of a-z, 0-9 and _), got {part!r}")
        if name in fractions:
            raise OptionError(f"--split names {name} twice")
        try:
            fractions[name] = float(number)
        except ValueError as error:
            raise OptionError(f"--split {name} must be a number such as 0.1, got {number!r}") from error
    _check(fractions)
    return fractions


def stratified_split(label_N: NDArray[np.integer], fractions: Mapping[str, float], seed: int) -> NDArray[np.uint8]:
    """Return the position in `fractions` of each sample's split: a pure function of the three arguments.

    `split_counts` says how many samples of each class go where; which ones is drawn from Philox keyed by `seed`.
    """
    _check(fractions)
    if not 0 <= seed < 2**63:
        raise OptionError(f"--seed must be 0 to 2^63-1, got {seed}")
    label_N = np.asarray(label_N)
    _, class_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    count_CS = split_counts(count_C, list(fractions.values()))
    draw_N = np.random.Philox(key=np.array([seed, _STREAM], np.uint64)).random_raw(len(label_N))
    # By class, and at random within; the draw is unique but for 1 in 2^64, where the row decides.
    order_N = np.lexsort((draw_N, class_N))
    num_classes, num_splits = count_CS.shape
    split_N = np.empty(len(label_N), np.uint8)
    split_N[order_N] = np.repeat(np.tile(np.arange(num_splits, dtype=np.uint8), num_classes), count_CS.ravel())
    return split_N


def split_counts(count_C: Sequence[int] | NDArray[np.integer], fractions: Sequence[float]) -> NDArray[np.int64]:
    """Return how many samples of each class go to each split, int64 `(C, S)`; rows sum to `count_C`.

    Guaranteed: each entry is its exact share n[c] * f[s] rounded down or up; each total over the classes is its exact
    share N * f[s] rounded down or up, so exact where that is whole, and the largest-remainder rounding wherever the
    entries admit it. One exception: a split that would stay empty though there are as many samples as splits takes
    one from the largest class of the largest split.
    """
    count_C = np.asarray(count_C, np.int64)
    share_S = np.asarray(fractions, np.float64) / math.fsum(fractions)
    exact_CS = _snap(count_C[:, None] * share_S)
    floor_CS = np.floor(exact_CS).astype(np.int64)
    rest_CS = exact_CS - floor_CS
    up_CS = _largest(rest_CS, count_C - floor_CS.sum(axis=1))
    total = int(count_C.sum())
    exact_S = _snap(total * share_S)
    low_S = np.floor(exact_S).astype(np.int64)
    high_S = np.ceil(exact_S).astype(np.int64)
    target_S = low_S + _largest((exact_S - low_S)[None], np.array([total - low_S.sum()]))[0]
    base_S = floor_CS.sum(axis=0)
    # First into the bounds, which is always possible; then to the best totals within them.
    for take_S, give_S in ((high_S, high_S), (low_S, low_S), (target_S, target_S)):
        _move(up_CS, rest_CS, base_S, take_S, give_S)
    count_CS = floor_CS + up_CS
    _fill_empty(count_CS, total)
    return count_CS


def _check(fractions: Mapping[str, float]) -> None:
    total = math.fsum(fractions.values())
    if not fractions or len(fractions) > 255 or not all(value > 0 for value in fractions.values()):
        raise OptionError(f"--split fractions must be positive numbers, got {_text(fractions)}")
    if not abs(total - 1) <= _SUM_TOLERANCE:
        raise OptionError(f"--split fractions must sum to 1, got {_text(fractions)} = {total:g}")


def _text(fractions: Mapping[str, float]) -> str:
    return ",".join(f"{name}={value:g}" for name, value in fractions.items())


def _snap(exact: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.rint(exact)
    return np.where(np.abs(exact - whole) <= _WHOLE_TOLERANCE, whole, exact)


def _largest(rest_CS: NDArray[np.float64], left_C: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 1 for the `left_C` largest remainders of each row, 0 for the others; the first of equals wins."""
    place_CS = np.argsort(np.argsort(-rest_CS, axis=1, kind="stable"), axis=1, kind="stable")
    return (place_CS < left_C[:, None]).astype(np.int64)


def _move(
    up_CS: NDArray[np.int64],
    rest_CS: NDArray[np.float64],
    base_S: NDArray[np.int64],
    above_S: NDArray[np.int64],
    below_S: NDArray[np.int64],
) -> None:
    """Move rounded-up units, in place, from splits above `above_S` to splits below `below_S`, over others if need be.

    A class can move its unit from split a to split b when it was rounded up in a, down in b, and isn't whole in b.
    """
    num_splits = len(base_S)
    stuck: set[int] = set()
    while True:
        total_S = base_S + up_CS.sum(axis=0)
        sources = [s for s in range(num_splits) if total_S[s] > above_S[s] and s not in stuck]
        if not sources:
            return
        can_SS = np.array(
            [[bool(_movable(up_CS, rest_CS, a, b).any()) for b in range(num_splits)] for a in range(num_splits)]
        )
        path = _path(can_SS, sources[0], [s for s in range(num_splits) if total_S[s] < below_S[s]])
        if path is None:
            stuck.add(sources[0])
            continue
        spare = int(min(total_S[path[0]] - above_S[path[0]], below_S[path[-1]] - total_S[path[-1]]))
        steps = list(pairwise(path))
        # A long path moves one unit: its steps may need the same class.
        units = spare if len(steps) == 1 else 1
        for a, b in steps:
            class_K = np.flatnonzero(_movable(up_CS, rest_CS, a, b))
            dearness_K = rest_CS[class_K, a] - rest_CS[class_K, b]
            chosen = class_K[np.argsort(dearness_K, kind="stable")[:units]]
            up_CS[chosen, a] -= 1
            up_CS[chosen, b] += 1


def _movable(up_CS: NDArray[np.int64], rest_CS: NDArray[np.float64], a: int, b: int) -> NDArray[np.bool_]:
    movable_C: NDArray[np.bool_] = (up_CS[:, a] == 1) & (up_CS[:, b] == 0) & (rest_CS[:, b] > 0)
    return movable_C


def _path(can_SS: NDArray[np.bool_], start: int, ends: Sequence[int]) -> list[int] | None:
    """Return the shortest path over allowed moves from `start` to one of `ends`."""
    before = {start: start}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if here in ends:
            path = [here]
            while path[-1] != start:
                path.append(before[path[-1]])
            return path[::-1]
        for following in np.flatnonzero(can_SS[here]).tolist():
            if following not in before:
                before[following] = here
                queue.append(following)
    return None


def _fill_empty(count_CS: NDArray[np.int64], total: int) -> None:
    num_splits = count_CS.shape[1]
    for split in range(num_splits if total >= num_splits else 0):
        if count_CS[:, split].sum() == 0:
            giver = int(np.argmax(count_CS.sum(axis=0)))
            richest = int(np.argmax(count_CS[:, giver]))
            count_CS[richest, giver] -= 1
            count_CS[richest, split] += 1
