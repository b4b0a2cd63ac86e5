"""Numbers of samples, shards and ranks -> what opening, ordering and planning cost: `python -m benchmarks.growth`.

Each figure comes from a process of its own: `python -m benchmarks.growth_index FOLDER WORLD_SIZE` prints one line.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import run_json
from benchmarks.synthetic_index import plant

IMAGENET_TRAIN = 1_281_167
BATCH = 256
_BATCHES = 20
_CHECKED_BATCHES = 3

Rows = list[dict[str, Any]]


def by_shards(folder: Path, quick: bool) -> Rows:
    """Measure the same 20,000 samples in 1 to 10,000 tars, which are read."""
    rows = []
    for shards in (1, 100, 1000) if quick else (1, 10, 100, 1000, 10_000):
        data = folder / f"shards{shards}"
        plant(data, 20_000, shards)
        settings = ["--batch", 64, "--images", 512 if quick else 3000]
        runs = [run_json("benchmarks.loader_run", "imgdata", data, *settings) for _ in range(1 if quick else 3)]
        costs = run_json("benchmarks.growth_index", data, 1)
        rows.append(
            {
                "shards": shards,
                "images_per_s": round(statistics.median(run["images_per_s"] for run in runs), 1),
                "cpu_ms_per_image": round(statistics.median(run["cpu_ms_per_image"] for run in runs), 4),
                **{name: costs[name] for name in ("open_ms", "window_order_ms", "plan_batch_ms")},
            }
        )
    return rows


def by_samples(folder: Path, quick: bool) -> Rows:
    """Measure an index of 1,000 to 10,000,000 rows in 600 tars; of the pictures only the first is read."""
    rows = []
    for power in range(3, 6 if quick else 8):
        data = folder / f"samples{power}"
        shards = plant(data, 10**power, min(600, 10**power))
        index_mb = sum(path.stat().st_size for path in shards.glob("*.parquet")) / 1e6
        rows.append(
            {"samples": 10**power, "index_mb": round(index_mb, 2), **run_json("benchmarks.growth_index", data, 1)}
        )
    return rows


def by_ranks(folder: Path, quick: bool) -> Rows:
    """One of 1 to 64 ranks, with ImageNet's number of samples; all ranks together have each sample once."""
    data = folder / "ranks"
    plant(data, 100_000 if quick else IMAGENET_TRAIN, 600)
    return [
        {"ranks": ranks, **run_json("benchmarks.growth_index", data, ranks)}
        for ranks in ((1, 8) if quick else (1, 2, 4, 8, 16, 32, 64))
    ]


def measure(data: Path, world_size: int) -> dict[str, Any]:
    """Milliseconds to open, to order and to plan a batch of the last rank, the peak of memory in MB."""
    # Imports are no part of it.
    import torch  # noqa: F401

    import imgdata
    from benchmarks.stage import peak_rss_mb
    from imgdata import recipes
    from imgdata.loader.planner import Planner
    from imgdata.order.epoch_order import Order
    from imgdata.views.view import whole

    before = peak_rss_mb()
    open_s, dataset = _timed(lambda: imgdata.open(data / "shards"))
    split = dataset["train"]
    sample_s, _ = _timed(lambda: split[len(split) // 2])
    view = whole(dataset, "train")
    settings: dict[str, Any] = {
        "num_samples": len(view),
        "global_batch": min(BATCH, len(view) // world_size) * world_size,
    }
    order, window = Order(**settings, drop_last=True), Order(**settings, shuffle="window", shard_sizes=view.shard_sizes)
    window_s, _ = _timed(lambda: window.epoch_positions(0))
    order_s, _ = _timed(lambda: order.epoch_positions(0))
    ranks = [
        Planner(
            index=split.index,
            view=view,
            order=order,
            recipe=recipes.imagenet_train(224),
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    batches = min(_BATCHES, len(order))
    _check_ranks(ranks, order, min(_CHECKED_BATCHES, batches))
    plan_s = [
        _timed(lambda at=number * order.global_batch: ranks[-1].work(ranks[-1].draft(0, at)))[0]  # type: ignore[misc]
        for number in range(batches)
    ]
    return {
        "open_ms": round(1000 * open_s, 2),
        "first_sample_ms": round(1000 * sample_s, 2),
        "global_order_ms": round(1000 * order_s, 2),
        "window_order_ms": round(1000 * window_s, 2),
        "plan_batch_ms": round(1000 * statistics.median(plan_s), 2),
        "peak_mb_above_start": peak_rss_mb() - before,
    }


def _check_ranks(ranks: list[Any], order: Any, batches: int) -> None:
    """Check that the ranks' parts are disjoint, and together the global batch."""
    for number in range(batches):
        at = number * order.global_batch
        parts = [rank.draft(0, at).position_N for rank in ranks]
        whole_N = order.epoch_positions(0)[at : at + order.global_batch]
        check_parts(number, parts, whole_N)


def check_parts(number: int, parts: list[Any], whole_N: Any) -> None:
    """Check that the parts of a batch are disjoint, and together the global batch."""
    if not np.array_equal(np.concatenate(parts), whole_N) or len(np.unique(whole_N)) != len(whole_N):
        raise RuntimeError(f"batch {number}: ranks must share out the global batch, each sample once")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
