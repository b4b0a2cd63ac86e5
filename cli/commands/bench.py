"""`imgdata bench`: images/s of the loader and its other figures, beside other loaders, to read or to paste."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from imgdata.measure.bench import BenchResult, Figures

_WIDTH = 100
"""Columns where there is no terminal."""
_OURS = "imgdata"
_TIMES = ("p50 ms", "p95", "p99", "first s")


@click.command(short_help="Measure images/s of a loader, beside others.")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, metavar="NAME")
@click.option(
    "--recipe",
    default="imagenet_train",
    show_default=True,
    metavar="NAME|FILE",
    help="A ready recipe, such as cifar_train, or a JSON file.",
)
@click.option("--size", type=click.IntRange(min=1), help="Side of the output in pixels.  [the recipe's]")
@click.option("--backend", default="auto", show_default=True, metavar="auto|cpu|dali|resident")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Of one rank.  [256, or all samples of a small split]")
@click.option("--threads", type=click.IntRange(min=1), help="Or worker processes.  [all cores]")
@click.option("--dtype", metavar="uint8|float16|float32", help="Of the batches.  [as the recipe suggests]")
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Be rank 0 of so many.")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Measured, of each loader and round.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--compare", default="", metavar="NAMES", help="Of torchvision,torchvision-pil,webdataset,dali, with commas."
)
@click.option("--all-gpus", is_flag=True, help="A process on every GPU at the same time.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for an issue.")
@click.option("--quiet", is_flag=True, help="Print no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def command(out: Path, compare: str, markdown: bool, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Measure how fast the loader makes batches of the dataset in OUT, and other loaders beside it.

    Each run is a process of its own; loaders take turns. Start and warm-up are not counted.

    \b
      imgdata bench out/ --compare torchvision,webdataset
      imgdata bench out/ --recipe cifar_train --backend resident --seconds 5
    """  # noqa: D301
    from imgdata.measure.bench import BenchOptions, bench

    from ..display.console import Counting, screen

    names = tuple(name.strip() for name in compare.split(",") if name.strip())
    options = BenchOptions(compare=names, **settings)
    with Counting("measuring", "runs", quiet=quiet) as counting:
        result = bench(out, options, progress=counting.progress)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    if markdown:
        click.echo(_markdown(result))
        return
    console = screen(stderr=False)
    if not console.is_terminal:
        console.width = _WIDTH
    for name, text in _head(result):
        console.print(f"{name:<9} {text}", soft_wrap=True)
    console.print()
    for table in _tables(result, console.width):
        console.print(table)
        console.print()
    for text in result.notes:
        console.print(f"- {text}", soft_wrap=not console.is_terminal)


def _head(result: "BenchResult") -> list[tuple[str, str]]:
    """What was measured, with what."""
    machine, data, recipe = result.machine, result.dataset, result.recipe
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    gpus = "".join(f", {name}" for name in machine["gpus"])
    height, width = recipe["size"]
    name = f"{recipe['name']}: " if recipe["name"] else ""
    return [
        ("command", result.command),
        ("machine", f"{machine['cpu']}, {cores}, {machine['memory_gb']:g} GB{gpus}; {machine['system']}"),
        ("versions", ", ".join(f"{package} {version}" for package, version in result.versions.items())),
        (
            "dataset",
            f"{data['name']}, {data['split']}: {data['samples']:,} images of {data['mean_bytes'] / 1e3:,.1f} kB in "
            f"{data['shards']:,} shard{'s' if data['shards'] > 1 else ''}",
        ),
        ("recipe", f"{name}{', '.join(recipe['ops'])}; {height} x {width}, {result.dtype}"),
        ("loader", f"{result.backend_description}; batches of {result.batch_size:,} on {result.device}"),
    ]


def _columns(result: "BenchResult") -> list[str]:
    gpu = ["GPU MB"] * (result.figures.gpu_mb is not None)
    ratio = ["ours/its"] * bool(result.peers)
    return ["images/s", "per core", "CPU ms", "p50 ms", "p95", "p99", "first s", "MB/s", "peak MB", *gpu, *ratio]


def _rows(result: "BenchResult") -> list[tuple[str, list[str]]]:
    """A line for each loader, and with several GPUs for each of them."""
    rows = [(f"{_OURS} ({result.backend})", [*_cells(result.figures, result), *[""] * bool(result.peers)])]
    if len(result.devices) > 1:
        empty = [""] * (len(_columns(result)) - 1)
        rows += [(f"  {device}", [f"{rate:,.0f}", *empty]) for device, rate in result.devices.items()]
    rows += [(peer.name, [*_cells(peer, result), f"{peer.ratio:.2f}"]) for peer in result.peers]
    return rows


def _cells(figures: "Figures", result: "BenchResult") -> list[str]:
    gpu = [_number(figures.gpu_mb, 0)] * (result.figures.gpu_mb is not None)
    return [
        _number(figures.images_per_s, 0),
        _number(figures.images_per_cpu_s, 0),
        _number(figures.cpu_ms_per_image, 3),
        _number(figures.p50_ms, 1),
        _number(figures.p95_ms, 1),
        _number(figures.p99_ms, 1),
        _number(figures.first_batch_s, 2),
        _number(figures.mb_per_s, 0),
        _number(figures.peak_mb, 0),
        *gpu,
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _tables(result: "BenchResult", width: int) -> list["Table"]:
    """All columns beside one another, or where `width` is too small for them the times in a table of their own."""
    lines = [("loader", _columns(result)), *_rows(result)]
    columns = [[name for name, _ in lines], *([line[at] for _, line in lines] for at in range(len(lines[0][1])))]
    if sum(max(map(len, column)) + 1 for column in columns) <= width:
        return [_table(columns)]
    names, times = columns[0], [column for column in columns[1:] if column[0] in _TIMES]
    return [_table([column for column in columns if column not in times]), _table([names, *times])]


def _table(columns: "Sequence[Sequence[str]]") -> "Table":
    """Of names, and figures; the first cell of each is its title."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column[0], justify="right" if number else "left", no_wrap=True)
    for cells in list(zip(*columns, strict=True))[1:]:
        table.add_row(*cells)
    return table


def _markdown(result: "BenchResult") -> str:
    """Head, table and notes, as GitHub and other trackers show them."""
    head = [f"- {name}: {f'`{text}`' if name == 'command' else text}" for name, text in _head(result)]
    rows = [_line([name.strip(), *cells]) for name, cells in _rows(result)]
    columns = _columns(result)
    notes = [f"- {text}" for text in result.notes]
    return "\n".join([*head, "", _line(["loader", *columns]), "|---|" + "--:|" * len(columns), *rows, "", *notes])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
