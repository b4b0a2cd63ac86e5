"""How fast images reach a training loop, beside peers on the same images: `python -m benchmarks.loaders`.

Random resized crop 224, antialiased, and flip. The loaders take turns, each in a process of its own on the same two
cores, so that a machine that slows down slows all of them; figures are medians over the rounds, and ratios medians of
pairs of the same round. Loaders that can't run here are named with the reason. Prints tables, and with `--save` writes
`benchmarks/results/loaders.json`.
"""

import shlex
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import loader_data
from benchmarks.loader_peers.registry import DTYPES, OURS, PEERS, Peer
from benchmarks.loader_run import WARM_BATCHES
from benchmarks.processes import run_json
from benchmarks.report import ROOT, machine, save
from imgdata.measure.bench.rounds import in_turns, median_ratio

_AHEAD_BATCHES = 8
"""Batches that loaders may prefetch, so that no measured batch comes from the end of the epoch."""
_TIMEOUT_S = 300
_SIMD = sorted((ROOT / ".venv").glob("pillow-simd-*"))
_console = Console(highlight=False)

Figures = dict[str, dict[str, Any]]
"""Figures by name of the loader."""


@click.command()
@click.option("--images", default=2000, show_default=True, help="Images of one measurement, at least.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--batch", default=256, show_default=True)
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), default=DTYPES, show_default=True)
@click.option("--threads", multiple=True, type=int, default=(2,), show_default=True, help="May be repeated.")
@click.option("--only", help="Names of loaders, with commas between.")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Build the data here, and keep it.")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(
    images: int,
    rounds: int,
    batch: int,
    dtypes: tuple[str, ...],
    threads: tuple[int, ...],
    only: str | None,
    folder: Path | None,
    keep: bool,
) -> None:
    """Measure, print, save."""
    peers = _chosen(only)
    samples = images + batch * (WARM_BATCHES + _AHEAD_BATCHES)
    # In memory, where there is such a place: the disk is not measured.
    shm = Path("/dev/shm")
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="imgdata-loaders-", dir=shm if shm.is_dir() else None) as temporary:
        data = folder or Path(temporary)
        missing = _prepare(data, samples, peers)
        sizes = [path.stat().st_size for path in (data / "folders").rglob("*.jpg")]
        for dtype in dtypes:
            for count in threads:
                settings = ["--dtype", dtype, "--threads", str(count), "--batch", str(batch), "--images", str(images)]
                able = [peer for peer in peers if dtype in peer.dtypes]
                results[f"{dtype}_{count}"] = _measure(able, data, settings, rounds, missing)
                _print(f"{dtype}, {count} threads", results[f"{dtype}_{count}"])
        ours_runs = any(OURS in rows for rows in results.values())
        costs = run_json("benchmarks.loader_costs", data) if ours_runs else {}
    for name, reason in missing.items():
        _console.print(f"not run: {name}: {reason}")
    _console.print_json(data={"scaling": _scaling(results), "ours": costs})
    if keep:
        chosen = [f"--images {images}", f"--rounds {rounds}", f"--batch {batch}"]
        chosen += [f"--threads {count}" for count in threads] + [f"--dtype {dtype}" for dtype in dtypes]
        chosen += [f"--only {shlex.quote(only)}"] if only else []
        report = {"command": " ".join(["python -m benchmarks.loaders", *chosen, "--save"]), **machine()}
        report |= {"images": images, "mean_bytes": sum(sizes) // len(sizes), "rounds": rounds, "batch": batch}
        report |= {"results": results, "scaling": _scaling(results), "ours": costs, "missing": missing}
        save("loaders", report)


def _chosen(only: str | None) -> list[Peer]:
    names = [name.strip() for name in only.split(",")] if only else list(PEERS)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise click.BadParameter(f"must be of {', '.join(PEERS)}; got {', '.join(unknown)}", param_hint="--only")
    return [PEERS[name] for name in names]


def _prepare(data: Path, samples: int, peers: list[Peer]) -> dict[str, str]:
    """Build what the peers read; who can't run, and why."""
    missing = {}
    for peer in peers:
        if peer.peers and not loader_data.PEERS_PYTHON.exists():
            missing[peer.name] = "`make bench-peers` was not run"
        elif peer.simd and not (_SIMD and (_SIMD[-1] / "PIL").is_dir()):
            missing[peer.name] = "Pillow-SIMD was not built"
        else:
            try:
                loader_data.build(data, samples, {"folders", peer.layout})
            except ImportError as error:
                missing[peer.name] = str(error)
                shutil.rmtree(data / f"{peer.layout}.partial", ignore_errors=True)
    return missing


def _measure(peers: list[Peer], data: Path, settings: list[str], rounds: int, missing: dict[str, str]) -> Figures:
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in in_turns([peer.name for peer in peers], rounds):
        if name not in missing:
            found = _run_peer(PEERS[name], data, settings)
            if "missing" in found:
                missing[name] = found["missing"]
            else:
                runs.setdefault(name, []).append(found)
    whole = {name: found for name, found in runs.items() if len(found) == rounds}
    return {name: _figures(PEERS[name], found, whole.get(OURS)) for name, found in whole.items()}


def _figures(peer: Peer, runs: list[dict[str, Any]], ours: list[dict[str, Any]] | None) -> dict[str, Any]:
    figures = {
        "images_per_s": round(statistics.median(run["images_per_s"] for run in runs), 1),
        "cpu_ms_per_image": round(statistics.median(run["cpu_ms_per_image"] for run in runs), 4),
        "start_s": round(statistics.median(run["start_s"] for run in runs), 3),
        "memory_mb": round(max(run["memory_mb"] for run in runs)),
        "antialias": peer.antialias,
        "version": runs[0]["version"],
    }
    if ours is not None:
        # Above 1 and below 1 is where ours is better.
        for name, figure in (("our_rate_against_it", "images_per_s"), ("our_cpu_against_it", "cpu_ms_per_image")):
            pairs = [(own[figure], run[figure]) for own, run in zip(ours, runs, strict=True)]
            figures[name] = round(median_ratio(pairs) or 0.0, 3)
    return figures


def _run_peer(peer: Peer, data: Path, settings: list[str]) -> dict[str, Any]:
    python = loader_data.PEERS_PYTHON if peer.peers else sys.executable
    # Pillow-SIMD is for those that ask for it.
    env = {"PYTHONPATH": str(_SIMD[-1])} if peer.simd else {"IMGDATA_PILLOW": "plain"}
    try:
        return run_json(
            "benchmarks.loader_run", peer.name, data, *settings, python=python, env=env, timeout_s=_TIMEOUT_S
        )
    except click.ClickException as error:
        if peer.name == OURS:
            raise
        # A peer that breaks must not cost the figures of the others; it is named at the end.
        return {"missing": f"failed: {error.message.rstrip().splitlines()[-1]}"}


def _scaling(results: dict[str, Figures]) -> dict[str, dict[str, float]]:
    """How many times the rate of one thread two threads have, where both were measured."""
    return {
        dtype: {
            name: round(row["images_per_s"] / results[f"{dtype}_1"][name]["images_per_s"], 3)
            for name, row in results[f"{dtype}_2"].items()
            if name in results[f"{dtype}_1"]
        }
        for dtype in DTYPES
        if f"{dtype}_1" in results and f"{dtype}_2" in results
    }


def _print(title: str, figures: Figures) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("loader")
    for column in ("images/s", "CPU-ms/image", "start s", "MB", "our rate / its", "our CPU / its"):
        table.add_column(column, justify="right")
    for name, row in sorted(figures.items(), key=lambda item: item[1]["cpu_ms_per_image"]):
        ratios = (row.get("our_rate_against_it"), row.get("our_cpu_against_it"))
        table.add_row(
            name if row["antialias"] else f"{name} *",
            f"{row['images_per_s']:,.0f}",
            f"{row['cpu_ms_per_image']:.3f}",
            f"{row['start_s']:.2f}",
            f"{row['memory_mb']:,}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    _console.print(table)
    _console.print("* does not antialias, or makes no batches")


if __name__ == "__main__":
    main()
