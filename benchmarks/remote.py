"""A dataset in an object store -> rates of loaders in the first epoch, with nothing on this machine, and in the next.

Beside imgdata: webdataset, MosaicML Streaming and LitData, each with its own cache and in its own layout.
`python -m benchmarks.remote` prints a table, and with `--save` writes `benchmarks/results/remote.json`. The server is
SeaweedFS on this machine, behind a proxy by which each request comes 20 ms later. Loaders take turns, each in a process
of its own with two cores, which server and proxy use as well. The first epoch counts from before the loader is made,
without imports; ratios are medians of pairs of the same round.
"""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks import loader_data
from benchmarks.processes import run_json
from benchmarks.remote_run import BATCH
from benchmarks.remote_server import served
from benchmarks.report import machine, save
from benchmarks.tables import remote as remote_table
from imgdata.measure.bench.rounds import in_turns, median_ratio

OURS, LOCAL = "imgdata", "imgdata, from a folder"
LAYOUTS = {OURS: "shards", "webdataset": "shards", "Streaming": "mds", "LitData": "litdata"}
_FIGURES = ("first_images_per_s", "first_cpu_ms", "first_batch_s", "second_images_per_s", "second_cpu_ms")
_IMAGE_BYTES = 80_000
_TIMEOUT_S = 200
Runs = Mapping[str, Sequence[Mapping[str, float]]]


@click.command()
@click.option("--images", default=3000, show_default=True)
@click.option("--latency", default=0.02, show_default=True, help="Seconds by which each request comes later.")
@click.option("--bandwidth", default=0.0, help="MB/s of the line; 0 for no limit.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(LAYOUTS)), help="May be repeated.")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Build the data here, and keep it.")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(
    images: int, latency: float, bandwidth: float, rounds: int, only: tuple[str, ...], folder: Path | None, keep: bool
) -> None:
    """Compare loaders that read from an object store."""
    names, missing = list(only or LAYOUTS), {}
    with tempfile.TemporaryDirectory(prefix="imgdata-remote-") as temporary:
        data = folder or Path(temporary, "data")
        if not loader_data.PEERS_PYTHON.exists():
            missing = {name: "`make bench-peers` was not run" for name in names if name != OURS}
        layouts = {"shards", *(LAYOUTS[name] for name in names if name not in missing)}
        # Shards of about the size of ours in every layout: eight or so.
        os.environ["SHARD_BYTES"] = str(images * _IMAGE_BYTES // 8)
        loader_data.build(data, images, layouts)
        able = [name for name in [*names, *([LOCAL] if OURS in names else [])] if name not in missing]
        runs: dict[str, list[dict[str, float]]] = {}
        with served([data / one for one in sorted(layouts)], Path(temporary, "server"), latency, bandwidth) as address:
            for name in in_turns(able, rounds):
                if name not in missing:
                    try:
                        found = _run(name, address, data, Path(temporary, "kept"))
                        runs.setdefault(name, []).append(found)
                        click.echo(f"{name}: {found}", err=True)
                    except click.ClickException as error:
                        missing[name] = error.message.rstrip().rpartition("\n")[2]
                        runs.pop(name, None)
    figures = figures_of(runs)
    click.echo(remote_table(figures))
    for name, reason in missing.items():
        click.echo(f"not run: {name}: {reason}")
    if keep:
        command = f"python -m benchmarks.remote --images {images} --rounds {rounds} --latency {latency:g}"
        command += f" --bandwidth {bandwidth:g} --save"
        settings = {"images": images, "batch": BATCH, "latency_ms": 1000 * latency, "mb_per_s": bandwidth}
        report = {"command": command, **machine(), **settings, "rounds": rounds}
        save("remote", {**report, "results": figures, "missing": missing})


def _run(name: str, address: str, data: Path, kept: Path) -> dict[str, float]:
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    of_peer = name not in (OURS, LOCAL)
    python = str(loader_data.PEERS_PYTHON) if of_peer else sys.executable
    where = "" if name == LOCAL else address
    return run_json(
        "benchmarks.remote_run", name if of_peer else OURS, where, kept, data, python=python, timeout_s=_TIMEOUT_S
    )


def figures_of(runs: Runs) -> dict[str, dict[str, float]]:
    """Return medians by loader, and our rates over its: above 1 where ours are higher."""
    figures: dict[str, dict[str, float]] = {}
    for name, found in runs.items():
        row = {figure: round(statistics.median(one[figure] for one in found), 4) for figure in _FIGURES}
        if name != OURS and OURS in runs:
            for which in ("first", "second"):
                rate = f"{which}_images_per_s"
                pairs = [(own[rate], its[rate]) for own, its in zip(runs[OURS], found, strict=True)]
                row[f"our_{which}_against_it"] = round(median_ratio(pairs) or 0.0, 3)
        figures[name] = row
    return figures


if __name__ == "__main__":
    main()
