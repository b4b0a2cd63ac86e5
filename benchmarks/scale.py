"""What ImageNet's number of samples costs, in time and memory: `python -m benchmarks.scale`.

Lists and plans 1,281,167 files, opens an index of as many rows, and writes ever more samples to see that
memory stays flat. Each figure comes from a process of its own; `benchmarks/results/scale.json` keeps them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.report import ROOT, machine, save

LIST_AND_PLAN = """
import json, sys, time
from pathlib import Path
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import make_plan
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions

def resident_mb(which="VmRSS"):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if which in line) / 1024

before, started = resident_mb(), time.perf_counter()
listing = list_source(sys.argv[1], SourceOptions())
listed, listed_mb = time.perf_counter(), resident_mb()
plan = make_plan(listing, ShardOptions())
planned, planned_mb = time.perf_counter(), resident_mb()
columns = (listing.split_N, listing.label_N, listing.size_N, listing.container_N, listing.offset_N)
texts = listing.name_N.nbytes + listing.key_N.nbytes
rows = sum(split.row_N.nbytes + split.start_K.nbytes for split in plan.splits)
print(json.dumps({
    "samples": len(listing),
    "list_s": round(listed - started, 2),
    "plan_s": round(planned - listed, 2),
    "plan_bytes_per_sample": round((sum(c.nbytes for c in columns) + texts + rows) / len(listing), 1),
    "peak_mb": round(resident_mb("VmHWM")),
    "peak_mb_above_start": round(resident_mb("VmHWM") - before),
}))
"""

WRITE = """
import json, sys
import imgdata

imgdata.shard(sys.argv[1], sys.argv[2], imgdata.ShardOptions(shard_samples=1000), workers=1)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line) / 1024
print(json.dumps({"peak_mb": round(peak, 1)}))
"""


@click.command()
@click.option("--samples", default=1_281_167, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work.  [default: a temporary folder]")
def main(samples: int, folder: Path | None) -> None:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source = Path(work) / "source"
        plant(source, samples)
        listing = run(LIST_AND_PLAN, source)
        writing = {
            str(count): run(WRITE, f"synthetic:samples={count},width=32,height=32", Path(work) / f"out{count}")
            for count in (8_000, 32_000, 128_000)
        }
    report = {
        "command": f"python -m benchmarks.scale --samples {samples}",
        **machine(),
        "listing_and_plan": listing,
        "peak_memory_by_samples_written": writing,
    }
    save("scale", report)
    show(report)


def plant(root: Path, samples: int) -> None:
    """Class folders with so many files in all, 1,000 classes; only the first file holds anything."""
    from benchmarks import data

    picture = data.jpeg(next(iter(data.photo_crops(1, size=(64, 48)))))
    for label in range(1000):
        place = root / "train" / f"n{label:08d}"
        place.mkdir(parents=True)
        for number in range(label, samples, 1000):
            (place / f"n{label:08d}_{number}.JPEG").touch()
        (place / f"n{label:08d}_{label}.JPEG").write_bytes(picture)


def run(script: str, *arguments: object) -> dict[str, Any]:
    """Run a script in a fresh process, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def show(report: dict[str, Any]) -> None:
    """Show a table of the figures."""
    table = Table(box=None, header_style="bold")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in report["listing_and_plan"].items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    for count, figures in report["peak_memory_by_samples_written"].items():
        table.add_row(f"peak MB after writing {int(count):,} samples", f"{figures['peak_mb']:,}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
