"""`benchmarks/results/growth.json` -> one picture for each series: `python -m benchmarks.plots`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.report import RESULTS, ROOT
from benchmarks.tables import flat
from imgdata.training.plots import figure, save_figure

PICTURES = ROOT / "docs" / "images" / "benchmarks"
_LABEL = 0.11
"""Width of a label, as a part of the axis."""
_COLOURS = ("#4c78a8", "#e45756", "#72b7b2", "#f58518")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    y: str
    """The figure, by its name in the rows; the last part of it where each loader has one."""
    label: str
    log: bool = False
    from_zero: bool = True


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The style of a series' picture."""

    x: str
    label: str
    panels: Sequence[Panel]
    log: bool = False


RATE, CPU = Panel(y="images_per_s", label="images/s"), Panel(y="cpu_ms_per_image", label="CPU-ms an image")
READY = Panel(y="time_of_plain", label="CPU time, of the plain files'")
PLAN = Panel(y="plan_batch_ms", label="ms to plan a batch")
DRAWINGS = {
    "threads": Drawing(x="threads", label="threads", panels=(RATE, CPU)),
    "size": Drawing(
        x="megapixels",
        label="megapixels of a picture",
        log=True,
        panels=(Panel(y="images_per_s", label="images/s", log=True), Panel(y=CPU.y, label=CPU.label, log=True)),
    ),
    "quality": Drawing(x="mean_bytes", label="bytes of a picture of 500x375, by quality", panels=(RATE, CPU)),
    "batch": Drawing(x="batch", label="images of a batch", log=True, panels=(RATE, CPU)),
    "shards": Drawing(x="shards", label="tars", log=True, panels=(RATE, Panel(y="open_ms", label="ms to open"))),
    "samples": Drawing(
        x="samples",
        label="samples",
        log=True,
        panels=(
            Panel(y="first_sample_ms", label="ms to the first sample", log=True),
            Panel(y="global_order_ms", label="ms for an epoch's order", log=True),
            Panel(y="peak_mb_above_start", label="MB of memory", log=True),
        ),
    ),
    "hashes": Drawing(
        x="hashes",
        label="pictures, their hashes made up",
        log=True,
        panels=(
            Panel(y="cpu_seconds", label="CPU-seconds of the search", log=True),
            Panel(y="peak_mb_above_start", label="MB of memory", log=True),
        ),
    ),
    "ready_size": Drawing(
        x="megapixels",
        label="megapixels of a picture",
        log=True,
        panels=(Panel(y=CPU.y, label=CPU.label, log=True), READY),
    ),
    "ready_quality": Drawing(
        x="mean_bytes", label="bytes of a plain picture of 500x375, by quality", panels=(CPU, READY)
    ),
    "ready_interval": Drawing(
        x="interval",
        label="MCUs between markers",
        log=True,
        panels=(CPU, READY, Panel(y="bytes_of_plain", label="bytes, of the plain files'", from_zero=False)),
    ),
    "ready_area": Drawing(x="area", label="share of the picture that is cropped", panels=(CPU, READY)),
    "large": Drawing(
        x="samples",
        label="samples, the index in parts",
        log=True,
        panels=(
            Panel(y="global_plan_cpu_ms", label="CPU-ms to plan a batch"),
            Panel(y="open_cpu_ms", label="CPU-ms to open", log=True),
            Panel(y="global_peak_mb", label="MB of memory of a rank"),
        ),
    ),
    "large_ranks": Drawing(
        x="ranks",
        label="ranks, 2e9 samples",
        log=True,
        panels=(
            Panel(y="global_plan_cpu_ms", label="CPU-ms to plan a batch, global"),
            Panel(y="window_plan_cpu_ms", label="CPU-ms to plan a batch, window"),
        ),
    ),
    "ranks": Drawing(
        x="ranks", label="ranks", log=True, panels=(PLAN, Panel(y="global_order_ms", label="ms for an epoch's order"))
    ),
}


@click.command()
@click.option("--out", default=PICTURES, type=click.Path(path_type=Path), help="Folder of the pictures.")
def main(out: Path) -> None:
    """Draw what was recorded."""
    out.mkdir(parents=True, exist_ok=True)
    recorded = json.loads((RESULTS / "growth.json").read_text())
    for name, series in recorded.items():
        draw(DRAWINGS[name], series["rows"], out / f"{name}.png")
        click.echo(f"{name}.png")


def draw(drawing: Drawing, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Each panel with a line for each loader, or one line where the rows have the figure itself."""
    picture = figure(4.2 * len(drawing.panels), 3.2)
    columns = [flat(dict(row)) for row in rows]
    x_N = [row[drawing.x] for row in columns]
    all_axes: Any = picture.subplots(1, len(drawing.panels), squeeze=False)[0]
    for axes, panel in zip(all_axes, drawing.panels, strict=True):
        names = [name for name in columns[0] if name.split(": ")[-1] == panel.y]
        for name, colour in zip(names, _COLOURS, strict=False):
            label = name.split(": ")[0]
            axes.plot(x_N, [row[name] for row in columns], color=colour, label=label, marker="o", markersize=3)
        axes.set(xlabel=drawing.label, title=panel.label)
        if not panel.log and panel.from_zero:
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        _scale(axes.xaxis, drawing.log, axes.set_xscale)
        _scale(axes.yaxis, panel.log, axes.set_yscale)
        if len(x_N) <= 8 and not isinstance(x_N[0], str):
            shown = x_N if drawing.log else _apart(x_N)
            axes.set_xticks(shown, [_short(x) for x in shown])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=8)
    save_figure(picture, path)


def _apart(x_N: Sequence[float]) -> list[float]:
    """Return those values, which grow, whose labels don't run into the one before."""
    shown = list(x_N[:1])
    for x in x_N[1:]:
        if x - shown[-1] >= _LABEL * (x_N[-1] - x_N[0]):
            shown.append(x)
    return shown


def _scale(axis: Any, log: bool, set_scale: Callable[[str], None]) -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten, where powers alone would leave an axis without labels."""
    from matplotlib.ticker import LogLocator, NullLocator

    if not log:
        return
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    """2000000000 as 2B, 20000000 as 20M, 20000 as 20k."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
