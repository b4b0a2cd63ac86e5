"""Plain and crop-ready JPEGs -> the processor time of a random crop over libjpeg-turbo's on the plain file, and bytes.

One thread; all take turns, and the least time of each counts. libjpeg-turbo decodes the crop of the plain file and
nothing else, and once more after the segments of the crop were cut out; the extension also resizes and mirrors. In the
end: how fast files become crop-ready shards.
"""

import gc
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any, TypeVar

import click

from benchmarks.crop_ready_sharding import sharding
from benchmarks.crops import Crops, bare_library
from benchmarks.report import machine, save
from imgdata import native

INTERVALS = (0, 1, 4, 8, 32)
"""MCUs between markers; 0: what the extension chooses."""
_Name = TypeVar("_Name", bound=Hashable)
QUALITIES = (90, 95, 98)


@click.command()
@click.option("--images", default=32, show_default=True, help="Pictures of 500x375.")
@click.option("--rounds", default=20, show_default=True)
@click.option("--dtype", "dtypes", multiple=True, default=("uint8", "float32"), show_default=True)
@click.option("--shard-images", default=3000, show_default=True, help="Pictures that are sharded; 0: none.")
@click.option("--shard-rounds", default=3, show_default=True)
@click.option("--save", "record", is_flag=True, help="Record the figures for the documentation.")
def main(images: int, rounds: int, dtypes: tuple[str, ...], shard_images: int, shard_rounds: int, record: bool) -> None:
    """Measure each quality; the usual interval for all, the others for the last."""
    rows = []
    for quality in QUALITIES:
        for row in _measure(images, quality, rounds, dtypes, INTERVALS if quality == QUALITIES[-1] else (0,)):
            click.echo("  ".join(f"{name} {value}" for name, value in row.items()))
            rows.append(row)
    sharded = sharding(shard_images, shard_rounds) if shard_images else []
    for row in sharded:
        click.echo("  ".join(f"{name} {value}" for name, value in row.items()))
    if record:
        command = "python -m benchmarks.crop_ready --save"
        report = {**machine(), "command": command, "libjpeg_turbo": native.libjpeg_version(), "rows": rows}
        save("crop_ready", {**report, "shard_images": shard_images, "sharding": sharded})


def _measure(
    images: int, quality: int, rounds: int, dtypes: tuple[str, ...], intervals: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return a row of the plain files, and one of each interval."""
    with ExitStack() as stack:
        library = stack.enter_context(bare_library())
        pool = native.Pool(1)
        stack.callback(pool.close)
        plain = stack.enter_context(Crops(images, quality))
        files = {"plain": plain}
        for interval in intervals:
            ready = stack.enter_context(Crops(images, quality, crop_ready=True, interval=interval))
            files[f"{native.crop_interval(ready.pictures[0])}"] = ready
        runs: dict[tuple[str, str], Callable[[], object]] = {("bare", ""): plain.bare(library, "crop")}
        for name, crops in files.items():
            for dtype in dtypes:
                runs[name, dtype] = crops.ours(pool, dtype)
            runs[name, "sliced"] = crops.bare_on_slices(library)
        cost = least_costs(runs, rounds)
        return [
            {
                "quality": quality,
                "interval": name,
                "kb": round(crops.num_bytes / images / 1000, 1),
                "bytes_of_plain": round(crops.num_bytes / plain.num_bytes, 4),
                "bare_ms": round(cost["bare", ""] / images * 1000, 3),
                "sliced_of_bare": round(cost[name, "sliced"] / cost["bare", ""], 3),
                **{f"{dtype}_ms": round(cost[name, dtype] / images * 1000, 3) for dtype in dtypes},
                **{f"{dtype}_of_bare": round(cost[name, dtype] / cost["bare", ""], 3) for dtype in dtypes},
            }
            for name, crops in files.items()
        ]


def least_costs(runs: dict[_Name, Callable[[], object]], rounds: int) -> dict[_Name, float]:
    """Return the least processor time of each, in seconds; they take turns."""
    least = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()
    gc.collect()
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - begun)
    return least


if __name__ == "__main__":
    main()
