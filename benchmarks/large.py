"""Millions to two billion samples, 64 to 4,096 ranks -> what planning costs a rank: `python -m benchmarks.large`.

The series `large` and `large_ranks` of `benchmarks.growth`, each figure from a process of its own:
`python -m benchmarks.large FOLDER RANKS` prints one line.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth_index import check_parts
from benchmarks.large_index import plant
from benchmarks.processes import run_json

SAMPLES = 2_000_000_000
BATCH = 256
_BATCHES = 60
_CHECKED_BATCHES = 2

Rows = list[dict[str, Any]]


def by_large(folder: Path, quick: bool) -> Rows:
    """Measure one of 64 ranks on 1e6 to 2e9 samples, with the index in parts and the order that no memory holds."""
    counts = (10**6, 10**7) if quick else (10**6, 10**7, 10**8, 10**9, SAMPLES)
    rows = []
    for samples in counts:
        data = plant(folder / f"large{samples}", samples)
        shards = -(-samples // 10_000)
        rows.append({"samples": samples, "shards": shards, **run_json("benchmarks.large", data, 64)})
        for path in data.iterdir():
            path.unlink()
    return rows


def by_ranks(folder: Path, quick: bool) -> Rows:
    """Measure one of 64 to 4,096 ranks on 2e9 samples; a step of all of them holds each of its samples once."""
    data = plant(folder / "ranks", 10**7 if quick else SAMPLES)
    return [
        {"ranks": ranks, **run_json("benchmarks.large", data, ranks)}
        for ranks in ((64, 256) if quick else (64, 256, 1024, 4096))
    ]


def measure(data: Path, world_size: int) -> dict[str, Any]:
    """Return CPU milliseconds to open and to plan a batch, and the peak of memory in MB, of one rank.

    Batches are from all over the epoch, of ranks from all over the world.
    """
    # Imports are no part of it.
    import torch  # noqa: F401

    import imgdata
    from benchmarks.stage import peak_rss_mb
    from imgdata import recipes
    from imgdata.loader.planner import Planner
    from imgdata.order.epoch_order import Order
    from imgdata.views import view as views
    from imgdata.views.view import whole

    # As of two billion, whatever the number.
    views.MAX_WHOLE = 0
    before = peak_rss_mb()
    open_s, dataset = _timed(lambda: imgdata.open(data))
    split = dataset["train"]
    view_s, view = _timed(lambda: whole(dataset, "train"))
    settings: dict[str, Any] = {
        "num_samples": len(view),
        "global_batch": min(BATCH, len(view) // world_size) * world_size,
        "drop_last": True,
        "max_sorted": 0,
    }
    orders = {
        "global": Order(**settings),
        "window": Order(**settings, shuffle="window", shard_sizes=split.index.shard_sizes),
    }
    figures: dict[str, Any] = {"open_cpu_ms": round(1000 * (open_s + view_s), 1)}
    for name, order in orders.items():
        plan_s, place_s = [], []
        first_s, _ = _timed(lambda order=order: order.batch(0, 0, 0, world_size))  # type: ignore[misc]
        for number in range(_BATCHES):
            rank, batch = number * 977 % world_size, number * 7919 % len(order)
            planner = Planner(
                index=split.index,
                view=view,
                order=order,
                recipe=recipes.imagenet_train(224),
                rank=rank,
                world_size=world_size,
            )
            at = batch * order.global_batch
            place_s.append(_timed(lambda: order.batch_at(0, at, rank, world_size))[0])  # noqa: B023
            plan_s.append(_timed(lambda: planner.work(planner.draft(0, at)))[0])  # noqa: B023
        if name == "window":
            # The random order of the shards, once an epoch.
            figures["window_first_cpu_ms"] = round(1000 * first_s, 2)
        figures |= {
            f"{name}_positions_cpu_ms": round(1000 * statistics.median(place_s), 3),
            f"{name}_plan_cpu_ms": round(1000 * statistics.median(plan_s), 2),
            f"{name}_peak_mb": peak_rss_mb() - before,
        }
    for order in orders.values():
        _check_ranks(order, world_size)
    return {**figures, "steps_of_epoch": len(orders["global"])}


def _check_ranks(order: Any, world_size: int) -> None:
    """Check that the ranks' parts of a few steps are disjoint, and together the global batch."""
    for number in np.linspace(0, len(order) - 1, _CHECKED_BATCHES).astype(int).tolist():
        whole_N = order.batch(0, number)[0]
        parts = [order.batch(0, number, rank, world_size)[0] for rank in range(world_size)]
        check_parts(number, parts, whole_N)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
