"""The same conversion by one run, in parts, and by Ray -> seconds of the processor and of the clock for each shard.

One machine, one worker each: what parts cost beside one run is the start of a process, the reading of the plan and the
renames.
Of Ray the clock counts: its processes belong to nobody who could ask for their time.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import click

_MAIN = [sys.executable, "-m", "imgdata_cli.main", "shard"]


@click.command()
@click.option("--shards", default=32, show_default=True)
@click.option("--samples", default=64, show_default=True, help="Samples of a shard.")
@click.option("--parts", default=4, show_default=True, help="Parts, one after the other.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--ray/--no-ray", default=True, show_default=True)
def main(shards: int, samples: int, parts: int, rounds: int, ray: bool) -> None:
    """Print seconds of each way, and what it costs beside one run, for a shard."""
    source = f"synthetic:samples={shards * samples},classes=10,width=160,height=120"
    ways: dict[str, Callable[[Path], None]] = {
        "one run": lambda out: _run([source, out, "--shard-samples", samples, "--workers", 1]),
        f"{parts} parts": lambda out: _in_parts(source, out, samples, parts),
    }
    if ray:
        ways["ray"] = lambda out: _run([source, out, "--shard-samples", samples, "--engine", "ray"])
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                before, begun = os.times(), time.perf_counter()
                run(Path(folder, "out"))
                seconds, after = time.perf_counter() - begun, os.times()
            own = sum(after[2:4]) - sum(before[2:4])
            taken[way].append((own, seconds))
    base = [median(column) for column in zip(*taken["one run"], strict=True)]
    for way, rows in taken.items():
        cpu_s, clock_s = (median(column) for column in zip(*rows, strict=True))
        click.echo(
            f"{way:10} {cpu_s:7.2f} s of the processor, {clock_s:7.2f} s; beside one run "
            f"{(cpu_s - base[0]) / shards * 1000:+7.1f} ms and {(clock_s - base[1]) / shards * 1000:+7.1f} ms a shard"
        )


def _in_parts(source: str, out: Path, samples: int, parts: int) -> None:
    _run([source, out, "--shard-samples", samples, "--plan"])
    for part in range(parts):
        _run([source, out, "--part", f"{part}/{parts}", "--workers", 1])
    _run([source, out, "--finish"])


def _run(arguments: Sequence[object]) -> None:
    subprocess.run([*_MAIN, *map(str, arguments), "--quiet"], check=True)


if __name__ == "__main__":
    main()
