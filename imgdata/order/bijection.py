"""Places of a sequence -> values of a keyed bijection: a random order of which any part can be made by itself.

An order of N samples that is sorted from random numbers takes 8 N bytes. A cipher on the numbers 0 to N - 1 takes none:
place p has the sample `E(p)`, whatever N is, and no two places have the same one.

The cipher is the generalised Feistel network of Black and Rogaway ("Ciphers with arbitrary finite domains", CT-RSA
2002, method 3). A number below `a b` is a pair (left, right) of `Z_a x Z_b`, and each round adds to one half a function
of the other:

    left  = (left + F_j(right)) mod a
    right = (right + F_k(left)) mod b

Each step can be undone, whatever F is, so all of them are a permutation of the `a b` pairs. With a = ceil(sqrt N) and
b = ceil(N / a), at most a - 1 numbers are N or more; a number that gets there is encrypted again until it is below N
("cycle walking"), which keeps the permutation one of 0 to N - 1. F is the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) of the half plus the key of the round; keys are
raw outputs of Philox. Four rounds are enough for random functions (Luby and Rackoff, 1988); these are `_ROUNDS`.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
"""An even number."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1, _MULTIPLY_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


def scatter(
    place_K: NDArray[np.int64],
    count: "int | NDArray[np.int64]",
    *,
    seed: int,
    stream: int,
    tweak_K: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the values of a random bijection of `range(count)` at `place_K`, int64 `(K,)`.

    It depends on `count`, `seed` and `stream` (0 to 2^64 - 1) alone, and on `tweak_K`, which gives each place a
    bijection of its own; then `count` may be an array of as many lengths. Places must be 0 to `count` - 1, and `count`
    at most 2^40.
    """
    key_R = _keys(seed, stream)
    count_K = np.broadcast_to(np.asarray(count, np.uint64), place_K.shape)
    # Any pair of sides would do that has room: the root of up to 2^40 is the same on every processor.
    left_K = np.ceil(np.sqrt(count_K.astype(np.float64))).astype(np.uint64)
    right_K = (count_K + left_K - np.uint64(1)) // np.maximum(left_K, np.uint64(1))
    found_K = place_K.astype(np.uint64)
    tweak_UK = None if tweak_K is None else tweak_K.astype(np.uint64) * _GOLDEN
    todo_T = np.arange(len(place_K))
    while len(todo_T):
        tweak_UT = None if tweak_UK is None else tweak_UK[todo_T]
        value_T = _network(found_K[todo_T], left_K[todo_T], right_K[todo_T], key_R, tweak_UT)
        found_K[todo_T] = value_T
        todo_T = todo_T[value_T >= count_K[todo_T]]
    return found_K.astype(np.int64)


def _network(
    value_T: NDArray[np.uint64],
    left_side_T: NDArray[np.uint64],
    right_side_T: NDArray[np.uint64],
    key_R: NDArray[np.uint64],
    tweak_T: NDArray[np.uint64] | None,
) -> NDArray[np.uint64]:
    """Return each number of `Z_a x Z_b` encrypted once; `(T,)`."""
    right_T, left_T = np.divmod(value_T, left_side_T)
    for key_1, key_2 in key_R.reshape(-1, 2):
        left_T = (left_T + _mixed(right_T, key_1, tweak_T) % left_side_T) % left_side_T
        right_T = (right_T + _mixed(left_T, key_2, tweak_T) % right_side_T) % right_side_T
    return right_T * left_side_T + left_T


def _mixed(half_T: NDArray[np.uint64], key: np.uint64, tweak_T: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
    """Return 64 bits of each half and the key of the round: SplitMix64's finaliser. Overflow is arithmetic mod 2^64."""
    if tweak_T is not None:
        key_T = _finalised(tweak_T + key)
        return _finalised(half_T * _GOLDEN + key_T)
    return _finalised(half_T * _GOLDEN + key)


def _finalised(bits_T: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits_T = (bits_T ^ (bits_T >> _SHIFT_1)) * _MULTIPLY_1
    bits_T = (bits_T ^ (bits_T >> _SHIFT_2)) * _MULTIPLY_2
    return bits_T ^ (bits_T >> _SHIFT_3)


@lru_cache(maxsize=16)
def _keys(seed: int, stream: int) -> NDArray[np.uint64]:
    """Return the keys of the rounds; of the last few sequences they are kept, since a Philox takes 20 us to make."""
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(_ROUNDS)
