"""The same conversion by one run, in parts, and by Ray -> what each costs beside one run, for a shard.

One worker each, in a process that has started, with Ray's processes started as well: what remains of parts is the
frozen plan, folders of attempts, and renames. Of Ray the clock counts: its processes are not this one's children.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click

import imgdata


@click.command()
@click.option("--shards", default=64, show_default=True)
@click.option("--samples", default=64, show_default=True, help="Samples of a shard.")
@click.option("--parts", default=4, show_default=True, help="Parts, one after the other.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--ray/--no-ray", default=True, show_default=True)
def main(shards: int, samples: int, parts: int, rounds: int, ray: bool) -> None:
    """Print seconds of each way, and what it costs beside one run, for a shard."""
    source = f"synthetic:samples={shards * samples},classes=10,width=160,height=120"

    def one_run(out: Path) -> None:
        imgdata.shard(source, out, shard_samples=samples, workers=1)

    def in_parts(out: Path) -> None:
        imgdata.begin_parts(source, out, shard_samples=samples)
        for part in range(parts):
            imgdata.write_part(out, part, parts, workers=1)
        imgdata.finish_parts(out)

    def by_ray(out: Path) -> None:
        imgdata.shard(source, out, shard_samples=samples, engine="ray")

    ways: dict[str, Callable[[Path], None]] = {"one run": one_run, f"{parts} parts": in_parts}
    if ray:
        _start_ray()
        ways["ray"] = by_ray
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                cpu_s, clock_s = time.process_time(), time.perf_counter()
                run(Path(folder, "out"))
                if number:  # The first round warms up.
                    taken[way].append((time.process_time() - cpu_s, time.perf_counter() - clock_s))
    base = [median(column) for column in zip(*taken["one run"], strict=True)]
    for way, rows in taken.items():
        cpu_s, clock_s = (median(column) for column in zip(*rows, strict=True))
        more = [(one - other) / shards * 1000 for one, other in zip((cpu_s, clock_s), base, strict=True)]
        own = "" if way == "ray" else f"{cpu_s:6.2f} s of the processor ({more[0]:+.1f} ms a shard), "
        click.echo(f"{way:8} {own}{clock_s:6.2f} s of the clock ({more[1]:+.1f} ms a shard)")


def _start_ray() -> None:
    """Start Ray with one processor, so that it does one shard at a time, as the others do."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)


if __name__ == "__main__":
    main()
