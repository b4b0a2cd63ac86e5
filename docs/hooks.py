"""Markdown of a page -> the same with its marks filled in; a hook of MkDocs.

`<!-- help COMMAND -->` becomes what `imgdata COMMAND --help` prints: the pages show the options that the installed
commands have, and a removed command stops the build. `<!-- speed GROUP -->`, `<!-- loaders GROUP -->`,
`<!-- parity -->`, `<!-- scale -->` and `<!-- measured NAME -->` become figures from `benchmarks/results/`.
"""

import json
import re
from pathlib import Path
from typing import Any

import click
from imgdata_cli.main import cli

_MARK = re.compile(r"<!-- (help|speed|loaders|parity|scale|measured)(?: ([a-z0-9_-]+))? -->")
_RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    fill = {
        "help": _help,
        "speed": _speed,
        "loaders": _loaders,
        "parity": _parity,
        "scale": _scale,
        "measured": _measured,
    }
    return _MARK.sub(lambda found: fill[found[1]](found[2] or ""), markdown)


def _results(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text())
    return results


def _speed(group: str) -> str:
    figures = _results("shard_speed")["results"][group]
    rows = [
        f"| {name} | {row['images_per_s']:,.0f} | {row['cpu_ms_per_image']:.3f} | {row['peak_mb']:,} "
        f"| {'' if name == next(iter(figures)) else format(row['ours_against_it'], '.2f') + 'x'} |"
        for name, row in figures.items()
    ]
    head = "| writer | images/s | CPU-ms/image | peak MB | imgdata against it |\n|---|--:|--:|--:|--:|"
    return "\n".join([head, *rows])


def _loaders(group: str) -> str:
    """A group is `DTYPE_THREADS`; the fewest CPU-ms come first, and what is no equal has a star."""
    figures = _results("loaders")["results"][group]
    rows = []
    for name, row in sorted(figures.items(), key=lambda item: item[1]["cpu_ms_per_image"]):
        title = f"{name} {row['version']}" + ("" if row["antialias"] else " &#42;")
        ratios = f"{_against(row, 'our_rate_against_it')} | {_against(row, 'our_cpu_against_it')}"
        rows.append(f"| {title} | {row['images_per_s']:,.0f} | {row['cpu_ms_per_image']:.3f} | {ratios} |")
    head = "| loader | images/s | CPU-ms/image | our rate / its | our CPU-ms / its |\n|---|--:|--:|--:|--:|"
    return "\n".join([head, *rows])


def _against(row: dict[str, Any], ratio: str) -> str:
    return f"{row[ratio]:.2f}" if ratio in row else ""


def _parity(_: str) -> str:
    """A row for each operator, a column for each backend; the last one is the host's Pillow against tensors."""
    rows = _results("parity")["rows"]
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    means: dict[str, dict[str, float]] = {}
    for row in rows:
        means.setdefault(row["operator"], {})[row["backend"]] = row["pil"]["mean"]
        if row["backend"] == backends[0]:
            means[row["operator"]]["tensor"] = row["tensor"]["mean"]
    head = f"| operator | {' | '.join(backends)} | {backends[0]}, from tensors |\n|---|" + "--:|" * (len(backends) + 1)
    columns = [*backends, "tensor"]
    lines = [
        f"| {name} | " + " | ".join("" if column not in of else f"{of[column]:.3g}" for column in columns) + " |"
        for name, of in means.items()
    ]
    return "\n".join([head, *lines])


def _scale(_: str) -> str:
    report = _results("scale")
    rows = [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in report["listing_and_plan"].items()]
    rows += [
        f"| peak MB after writing {int(count):,} samples | {figures['peak_mb']:,} |"
        for count, figures in report["peak_memory_by_samples_written"].items()
    ]
    return "\n".join(["| | |\n|---|--:|", *rows])


def _measured(name: str) -> str:
    report = _results(name)
    place = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    return f"Measured on {place}, {report['date']}, with {versions}. To repeat: `{report['command']}`."


def _help(name: str) -> str:
    with click.Context(cli, info_name="imgdata") as context:
        if not name:
            return _block("imgdata", context)
        command = cli.get_command(context, name)
        assert command is not None, f"no command {name!r}"
        with click.Context(command, info_name=name, parent=context) as inner:
            return _block(f"imgdata {name}", inner)


def _block(usage: str, context: click.Context) -> str:
    # As wide as the text of a page, whatever terminal the build runs in.
    context.max_content_width = context.terminal_width = 80
    return f'```text title="{usage} --help"\n{context.get_help()}\n```'
