"""The same conversion by one run, in parts, and by Ray -> what each costs beside one run, for a shard.

One worker each, in a process that has started, with Ray's processes started as well: what remains of parts is the
frozen plan, folders of attempts, and renames; of Ray also its messages. Processor time is that of this process and all
below it, Ray's servers and workers included, less what Ray's take in the same time when nothing runs.
"""

import contextlib
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
    idle = 0.0
    if ray:
        _start_ray()
        ways["ray"] = by_ray
        idle = _idle()
        click.echo(f"Ray's processes take {idle:.1%} of a core when nothing runs, which is not counted below")
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                cpu_s, clock_s = _family_s(), time.perf_counter()
                run(Path(folder, "out"))
                passed_s = time.perf_counter() - clock_s
                if number:  # The first round warms up.
                    taken[way].append((_family_s() - cpu_s - idle * passed_s, passed_s))
    base = [median(column) for column in zip(*taken["one run"], strict=True)]
    for way, rows in taken.items():
        cpu_s, clock_s = (median(column) for column in zip(*rows, strict=True))
        more = [(one - other) / shards * 1000 for one, other in zip((cpu_s, clock_s), base, strict=True)]
        click.echo(
            f"{way:8} {cpu_s:6.2f} s of the processor ({more[0]:+.1f} ms a shard), "
            f"{clock_s:6.2f} s of the clock ({more[1]:+.1f} ms a shard)"
        )


def _start_ray() -> None:
    """Start Ray with one processor, so that it does one shard at a time, as the others do."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)


def _idle(seconds: float = 5.0) -> float:
    """Return the part of a core that this process and all below it take when nothing runs."""
    cpu_s, clock_s = _family_s(), time.perf_counter()
    time.sleep(seconds)
    return (_family_s() - cpu_s) / (time.perf_counter() - clock_s)


def _family_s() -> float:
    """Return the processor time of this process and of all below it, those that have ended included, in seconds."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold spaces.
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
    family, more = set[int](), {os.getpid()}
    while more:
        family |= more
        more = {one for one, parent in parents.items() if parent in more} - family
    # Of this process, more exactly.
    own = os.times()
    others = sum(ticks.get(one, 0) for one in family if one != os.getpid())
    return time.process_time() + own.children_user + own.children_system + others / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
