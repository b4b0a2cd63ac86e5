"""Numbers of made-up hashes -> what the search for near ones costs: `python -m benchmarks.growth --only hashes`.

Each figure comes from a process of its own: `python -m benchmarks.growth_hashes COUNT` prints one line.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import run_json
from benchmarks.stage import peak_rss_mb

_SHARE = 0.01
"""Hashes that are copies of others: up to 31 bits are flipped."""


def by_hashes(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Measure 10,000 to 1,000,000 pictures with all their queries; nothing is decoded."""
    counts = (10_000, 30_000) if quick else (10_000, 30_000, 100_000, 300_000, 1_000_000)
    return [
        {"hashes": count, **run_json("benchmarks.growth_hashes", count, env={"OMP_NUM_THREADS": "1"}, timeout_s=3600)}
        for count in counts
    ]


def made_up(count: int) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Return random hashes of `count` pictures, uint64 `(count, Q, 4)`; of a hundredth a query is near another."""
    from imgdata.auditing.hashes import QUERIES

    generator = np.random.default_rng(0)
    hash_MQ4 = generator.integers(0, 2**64, (count, len(QUERIES), 4), dtype=np.uint64)
    copies = generator.permutation(count)[: round(_SHARE * count)]
    for copy, original in zip(copies.tolist(), generator.integers(0, count, len(copies)).tolist(), strict=True):
        bit_256 = np.unpackbits(hash_MQ4[original, 0].view(np.uint8))
        bit_256[generator.permutation(256)[: generator.integers(0, 32)]] ^= 1
        hash_MQ4[copy, generator.integers(len(QUERIES))] = np.packbits(bit_256).view(np.uint64)
    return hash_MQ4


def measure(count: int) -> dict[str, Any]:
    """Return seconds and memory of both searches, by coarse hashes and by whole ones."""
    from imgdata.auditing.copies import SYMMETRIC
    from imgdata.auditing.near import find_pairs

    hash_MQ4 = made_up(count)
    before = peak_rss_mb()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    pairs = 0
    for coarse in (True, False):
        found = find_pairs(hash_MQ4, np.arange(count), symmetric=SYMMETRIC, coarse=coarse)
        pairs += sum(len(part.owner_P) for part in found)
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "cpu_seconds": round(time.process_time() - begun_cpu, 2),
        "pairs": pairs,
        "peak_mb_above_start": peak_rss_mb() - before,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
