"""How fast CIFAR reaches a training loop from memory, beside peers: `python -m benchmarks.resident`.

50,000 pictures of 32 x 32 in the official pickles, which torchvision reads, `imgdata shard` makes shards of, and FFCV's
writer its file with RAW pixels. Loaders take turns, each in a process of its own on the same two cores; figures are
medians over the rounds, and ratios medians of pairs of the same round. Prints tables, and with `--save` writes
`benchmarks/results/resident.json`.
"""

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import imgdata
from benchmarks import raw_cifar
from benchmarks.loader_data import PEERS_PYTHON
from benchmarks.processes import run_json
from benchmarks.report import machine, save
from benchmarks.resident_run import DTYPES, LOADERS
from imgdata.measure.bench.rounds import in_turns, median_ratio

OURS = "imgdata"
IMAGES = 50_000
_DIFFERENT = 2_000
"""The pictures repeat after so many: loaders take as long for any, and cutting all of photographs takes minutes."""
_ENOUGH = {"torchvision": 50_000}
"""Pictures that are measured at least, where it isn't three epochs."""
_TIMEOUT_S = 600
_console = Console(highlight=False)

Run = dict[str, Any]


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--batch", default=512, show_default=True)
@click.option("--threads", default=2, show_default=True, help="Threads, or worker processes.")
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), default=DTYPES, show_default=True)
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(rounds: int, batch: int, threads: int, dtypes: tuple[str, ...], keep: bool) -> None:
    """Measure, print, save."""
    # In memory, where there is such a place: the disk is not measured.
    shm = Path("/dev/shm")
    missing: dict[str, str] = {}
    results: dict[str, dict[str, Run]] = {}
    with tempfile.TemporaryDirectory(prefix="imgdata-resident-", dir=shm if shm.is_dir() else None) as temporary:
        data = Path(temporary)
        _build(data, missing)
        for dtype in dtypes:
            settings = ["--dtype", dtype, "--batch", str(batch), "--threads", str(threads)]
            results[dtype] = _measure(data, settings, rounds, missing)
            _print(dtype, results[dtype])
    for name, reason in missing.items():
        _console.print(f"not run: {name}: {reason}")
    if keep:
        chosen = [f"--rounds {rounds}", f"--batch {batch}", f"--threads {threads}", *(f"--dtype {d}" for d in dtypes)]
        report = {"command": " ".join(["python -m benchmarks.resident", *chosen, "--save"]), **machine()}
        save("resident", report | {"images": IMAGES, "rounds": rounds, "results": results, "missing": missing})


def _build(data: Path, missing: dict[str, str]) -> None:
    """Write the official pickles, our shards, and FFCV's file."""
    few = raw_cifar.cifar10(train=_DIFFERENT, test=10)
    times = IMAGES // _DIFFERENT
    many = replace(
        few,
        images={**few.images, "train": np.tile(few.images["train"], (times, 1, 1, 1))},
        labels={**few.labels, "train": np.tile(few.labels["train"], times)},
    )
    source = raw_cifar.write_cifar10_python(data / "cifar-10-batches-py", many)
    imgdata.shard(source, data / "shards", imgdata.ShardOptions())
    if not PEERS_PYTHON.exists():
        missing["FFCV"] = "`make bench-peers` was not run"
    elif reason := _run("write-beton", data).get("missing"):
        missing["FFCV"] = reason


def _measure(data: Path, settings: list[str], rounds: int, missing: dict[str, str]) -> dict[str, Run]:
    runs: dict[str, list[Run]] = {name: [] for name in LOADERS if name not in missing}
    for name in in_turns(list(runs), rounds):
        images = _ENOUGH.get(name, 3 * IMAGES)
        runs[name].append(_run(name, data, *settings, "--images", str(images)))
    return {name: _figures(found, runs[OURS]) for name, found in runs.items()}


def _figures(runs: list[Run], ours: list[Run]) -> Run:
    figures = {
        "images_per_s": round(statistics.median(run["images_per_s"] for run in runs)),
        "cpu_us_per_image": round(statistics.median(run["cpu_us_per_image"] for run in runs), 2),
        "first_batch_s": round(statistics.median(run["first_batch_s"] for run in runs), 2),
        "version": runs[0]["version"],
    }
    # Above 1 and below 1 is where ours is better.
    for key, figure, digits in (
        ("our_rate_against_it", "images_per_s", 2),
        ("our_cpu_against_it", "cpu_us_per_image", 3),
    ):
        pairs = [(own[figure], run[figure]) for own, run in zip(ours, runs, strict=True)]
        figures[key] = round(median_ratio(pairs) or 0.0, digits)
    return figures


def _run(name: str, data: Path, *settings: str) -> Run:
    """Return the figures of a loader, measured in a process of its own."""
    python = PEERS_PYTHON if name in ("FFCV", "write-beton") else sys.executable
    return run_json("benchmarks.resident_run", name, data, *settings, python=python, env={}, timeout_s=_TIMEOUT_S)


def _print(title: str, figures: dict[str, Run]) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("loader")
    for column in ("images/s", "CPU-us/image", "first batch s", "our rate / its", "our CPU / its"):
        table.add_column(column, justify="right")
    for name, row in figures.items():
        table.add_row(
            name,
            f"{row['images_per_s']:,}",
            f"{row['cpu_us_per_image']:.2f}",
            f"{row['first_batch_s']:.2f}",
            f"{row['our_rate_against_it']:.2f}",
            f"{row['our_cpu_against_it']:.3f}",
        )
    _console.print(table)


if __name__ == "__main__":
    main()
