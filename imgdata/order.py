"""Which sample comes when: (number of samples, seed, stream) -> positions."""

import numpy as np
from numpy.typing import NDArray


def permutation(num_samples: int, *, seed: int, stream: int) -> NDArray[np.int64]:
    """A random order of `range(num_samples)`, int64 `(N,)`, that depends on the arguments alone.

    Ranks of the raw 64-bit outputs of Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as
    1, 2, 3", 2011). NumPy keeps the raw stream the same in all versions; what `Generator.permutation`
    makes of it may change, and with it the bytes of every shard.
    """
    # As an array: of a list with numbers from 2**63 on NumPy would make floats, and lose bits.
    raw_N = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(num_samples)
    return np.argsort(raw_N, kind="stable").astype(np.int64)
