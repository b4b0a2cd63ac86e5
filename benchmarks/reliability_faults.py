"""Seeds of faults -> how often work that meets them ends in the same result, in one error, or loses something.

`python -m benchmarks.reliability_faults --save` writes `benchmarks/results/reliability_faults.json`. What is tried, and
what is asserted of it, is that of `tests/storage/test_faults.py`. 64 processes over one cache of shards are counted as
well. Temporary folders are made where `TMPDIR` says.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.recorded import recorded
from benchmarks.report import ROOT, machine, save

sys.path.insert(0, str(ROOT / "tests"))

from imgdata.storage.atomic import pread
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache
from imgdata.storage.shard_parts import RemoteShard
from imgdata.storage.shard_state import CacheSettings, Need

PROCESSES, KILLED, SHARDS, SHARD_BYTES, READS = 64, 8, 12, 300_000, 60
_NAMES = {
    "half of the bytes at read": "half of the bytes are read",
    "half of the bytes at write": "half of the bytes are written",
    "EIO": "EIO",
    "ENOSPC": "ENOSPC, mostly to stay",
    "EACCES": "EACCES",
    "EMFILE": "EMFILE, ESTALE",
    "ESTALE": "EMFILE, ESTALE",
    "+": "a clock jumps",
    "-": "a clock jumps",
    "500": "500, 503",
    "503": "500, 503",
    "reset": "a reset",
    "lost": "the answer is lost",
    "cut": "the body is cut off",
    "stall": "the body stops",
    "etag": "another ETag",
}
"""How a fault begins -> its kind."""


def main() -> int:
    """Try the seeds of all work, let many processes share a cache, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/reliability_faults.json")
    parser.add_argument("--seeds", type=int, default=60, help="seeds of each work")
    parser.add_argument("--only", nargs="*", help="names of work; the counts of others stay")
    arguments = parser.parse_args()
    from support.faulty_work import ALL

    tried = {name: list(tries(name, arguments.seeds)) for name in ALL if not arguments.only or name in arguments.only}
    report = {
        "work": [{"work": name, **counted(rows)} for name, rows in tried.items()],
        "kinds": kinds_of([row for rows in tried.values() for row in rows]),
        "ranks": ranks(),
    }
    print(*report["kinds"], report["ranks"], sep="\n")
    if arguments.save:
        if arguments.only:
            before = recorded()["reliability_faults"]
            rows = {row["work"]: row for row in [*before["work"], *report["work"]]}
            report |= {"work": [rows[name] for name in ALL if name in rows], "kinds": before["kinds"]}
        save("reliability_faults", {**machine(), **report})
    return int(any(row["lost"] for row in report["work"]) or report["ranks"]["wrong"])


def tries(name: str, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield what came of each seed."""
    from support.faulty_runs import Runner
    from support.faulty_work import ON_S3
    from support.remote_servers import s3_environment

    runner = Runner(**(s3_environment() if name == ON_S3 else {}))
    try:
        # A run takes seconds; of stores there are more kinds of faults.
        for seed in range(seeds // 4 if name == "a run" else 3 * seeds if "store" in name else seeds):
            said = runner.run(name, seed)
            if said["outcome"] == "wrong":
                print(said, flush=True)
            yield said
    finally:
        runner.close()
    print(name, flush=True)


def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return tries, faults that were made, and outcomes."""
    outcomes = Counter(row["outcome"] for row in rows)
    return {
        "tries": len(rows),
        "faults": sum(len(row["made"]) for row in rows),
        "same": outcomes["same"],
        "error": outcomes["error"],
        "lost": outcomes["wrong"],
    }


def kinds_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how the tries ended in which a fault of each kind was made."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _NAMES.values()}
    for row in rows:
        for fault in row["made"]:
            found[next(kind for start, kind in _NAMES.items() if fault.startswith(start))].append(row)
    return [
        {
            "kind": kind,
            "faults": len(some),
            **{name: sum(row["outcome"] == outcome for row in some) for name, outcome in _OUTCOMES.items()},
        }
        for kind, some in found.items()
    ]


_OUTCOMES = {"same": "same", "error": "error", "lost": "wrong"}


def ranks() -> dict[str, int]:
    """Return what many processes read by one cache that holds a third of the shards, while some of them are killed."""
    from support.patience import PATIENCE_S
    from support.remote_servers import web_server

    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, IMGDATA_CACHE=f"{place}/cache"):
        site = Path(place, "site")
        site.mkdir()
        for number in range(SHARDS):
            data = np.random.Philox(key=[0, number]).random_raw(SHARD_BYTES // 8).tobytes()
            (site / f"{number}.tar").write_bytes(data)
        with web_server(site) as address:
            results: Any = context.Queue()
            processes: list[ForkProcess] = [
                context.Process(target=_rank, args=(site, address, rank, results)) for rank in range(PROCESSES)
            ]
            for process in processes:
                process.start()
            for process in processes[:: PROCESSES // KILLED]:
                time.sleep(0.05)
                process.kill()
            for process in processes:
                process.join(PATIENCE_S)
            ended = sum(process.exitcode == 0 for process in processes)
            found = [results.get(timeout=PATIENCE_S) for _ in range(ended)]
            # The next process that makes room removes what the killed ones left.
            last = context.Process(target=_rank, args=(site, address, PROCESSES, results))
            last.start()
            last.join(PATIENCE_S)
        left = [path for path in Path(place, "cache", "shards").iterdir() if path.suffix == ".tmp"]
        held = sum(path.stat().st_size for path in Path(place, "cache", "shards").glob("*.tar"))
    return {
        "processes": PROCESSES,
        "killed": sum(process.exitcode == -signal.SIGKILL for process in processes),
        "reads": sum(reads for reads, _, _ in found),
        "wrong": sum(wrong for _, wrong, _ in found),
        "from_the_cache": sum(cached for _, _, cached in found),
        "unfinished": len(left),
        "over_the_limit": int(held > SHARDS // 3 * SHARD_BYTES),
    }


def _rank(site: Path, address: str, rank: int, results: Any) -> None:
    about = [RemoteShard(name=f"{number}.tar", size=SHARD_BYTES) for number in range(SHARDS)]
    cache = ShardCache(RemoteFolder(address), about, CacheSettings(limit=SHARDS // 3 * SHARD_BYTES))
    order = [(at // 5 + rank) % SHARDS for at in range(READS)]
    cache.plan(iter([[Need(f"{number}.tar", at * 5, at * 5 + 4) for at, number in enumerate(order[::5])]]))
    wrong = cached = 0
    for at, number in enumerate(order):
        name, offset = f"{number}.tar", 4000 * (rank + at) % (SHARD_BYTES - 4000)
        cache.passed(at)
        files, tasks = cache.lend({name: [(offset, 4000)]})
        for task in tasks:
            task()
        data = pread(files[name], 4000, offset) if files else cache.folder.read(name, offset, 4000)
        cached += bool(files)
        wrong += data != (site / name).read_bytes()[offset : offset + 4000]
        for file in files.values():
            cache.release(file)
        cache.lent(0.0, 0)
    cache.close()
    results.put((READS, wrong, cached))
    # Not what the parent registered for its own end.
    results.close()
    results.join_thread()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
