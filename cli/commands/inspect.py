"""`imgdata inspect`: what is in a dataset, as tables; or one sample of it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from imgdata.dataset import Summary
    from imgdata.dataset.summary import SplitSummary

_FEW = 5
"""Largest and smallest classes shown when there are many."""
_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_EXTENSIONS = {"jpeg": "jpg", "unknown": "bin"}


@click.command(short_help="Show splits, classes, sizes and single samples.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--sample", "key", metavar="KEY", help="Save the image of this sample and print its facts.")
@click.option("--split", help="Split of --sample.  [default: the first that has the key]")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File for --sample.")
@click.option("--all-classes", is_flag=True, help="List every class.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def command(
    out: Path, key: str | None, split: str | None, output: Path | None, all_classes: bool, as_json: bool
) -> None:
    """Show what is in the dataset in OUT, from its index alone.

    \b
      imgdata inspect out/
      imgdata inspect out/ --sample n01440764/n01440764_10026 -o tench.jpg
    """  # noqa: D301
    if key is not None:
        _sample(out, key, split, output, as_json)
        return
    from imgdata.dataset import inspect

    summary = inspect(out)
    if as_json:
        click.echo(json.dumps(summary.to_dict()))
        return
    from ..display.console import screen

    _print_summary(screen(stderr=False), summary, all_classes)


def _sample(out: Path, key: str, split: str | None, output: Path | None, as_json: bool) -> None:
    import imgdata.dataset
    from imgdata.errors import OptionError
    from imgdata.storage.atomic import output_error

    dataset = imgdata.dataset.open(out)
    if split is not None and split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    names = [split] if split is not None else list(dataset)
    found = next(((name, i) for name in names if (i := dataset[name].index.find(key)) >= 0), None)
    if found is None:
        close = list(dict.fromkeys(near for name in names for near in dataset[name].close_keys(key)))[:_FEW]
        raise OptionError(f"no sample {key!r} in {', '.join(names)}" + (f"; near: {', '.join(close)}" if close else ""))
    name, position = found
    sample, row = dataset[name][position], dataset[name].index.row(position)
    file = output or Path(f"{key.rsplit('/', 1)[-1]}.{_EXTENSIONS.get(sample.format, sample.format)}")
    if output is None and file.exists():
        raise OptionError(f"{file}: exists already; choose another with -o FILE")
    try:
        file.write_bytes(sample.image)
    except OSError as error:
        raise output_error(error, file) from error
    label = dataset.classes[sample.label] if 0 <= sample.label < len(dataset.classes) else None
    facts = {
        "split": name,
        "position": position,
        **row._asdict(),
        "class_id": label.id if label else None,
        "class_name": label.name if label else None,
        "fields": sample.fields,
        "saved": str(file),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    for fact, value in facts.items():
        if fact == "xxh64":
            value = f"{row.xxh64:016x}"
        if value not in ({}, None):
            click.echo(f"{fact:>12}  {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")


def _print_summary(console: "Console", summary: "Summary", all_classes: bool) -> None:
    from rich.filesize import decimal
    from rich.text import Text

    from ..display.console import note

    source = f"  from {summary.source['kind']}" if "kind" in summary.source else ""
    rejected = f", {summary.rejected:,} rejected" if summary.rejected else ""
    console.print(Text.assemble((summary.name, "bold"), source))
    console.print(
        f"{summary.samples:,} samples, {len(summary.classes):,} classes, {decimal(summary.bytes)}{rejected}\n"
    )
    console.print(_split_table(summary))
    for name, split in summary.splits.items():
        console.print(f"\n{name}", style="bold")
        for line in _split_lines(split):
            console.print(line)
        if split.shorter_side:
            console.print("  shorter side in pixels")
            _print_bars(console, split.shorter_side)
    if summary.classes:
        console.print()
        console.print(_class_table(summary, all_classes))
    for warning in summary.source.get("warnings", ()):
        note(console, warning)


def _split_table(summary: "Summary") -> "Table":
    from rich.filesize import decimal
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("split")
    for column in ("samples", "shards", "size", "mean image"):
        table.add_column(column, justify="right")
    for name, split in summary.splits.items():
        mean = decimal(round(split.mean_image_bytes))
        table.add_row(name, f"{split.samples:,}", f"{split.shards:,}", decimal(split.bytes), mean)
    return table


def _split_lines(split: "SplitSummary") -> Iterator[str]:
    yield f"  formats  {_counts(split.formats)}"
    yield f"  modes    {_counts(split.modes)}"
    if split.width and split.height:
        yield (
            f"  width    {split.width.min:,} to {split.width.max:,}, median {split.width.median:,.0f}; "
            f"height {split.height.min:,} to {split.height.max:,}, median {split.height.median:,.0f}"
        )
    if split.rotated:
        yield f"  rotated by EXIF  {split.rotated:,}"
    if split.unlabelled:
        yield f"  without a label  {split.unlabelled:,}"
    if split.balance:
        even = split.balance
        empty = f"{even.empty_classes:,} {'classes are' if even.empty_classes > 1 else 'class is'} empty"
        ratio = f"{even.ratio:,.1f} to 1" if even.ratio is not None else empty
        yield (
            f"  balance  {even.smallest:,} to {even.largest:,} a class ({ratio}), "
            f"as diverse as {even.effective_classes:,.1f} equal ones"
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in counts.items()) or "none"


def _print_bars(console: "Console", counts: Mapping[str, int]) -> None:
    from rich.text import Text

    largest = max(counts.values())
    for label, count in counts.items():
        eighths = round(count / largest * _BAR * 8)
        # A bin that holds anything is to be seen.
        eighths = max(eighths, 1) if count else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        console.print(Text.assemble(f"  {label:>9}  ", (f"{bar:<{_BAR}}", "cyan"), f" {count:,}"))


def _class_table(summary: "Summary", all_classes: bool) -> "Table":
    from rich.table import Table

    totals = [sum(split.class_counts[i] for split in summary.splits.values()) for i in range(len(summary.classes))]
    order = list(range(len(totals)))
    shown: list[int | None] = list(order)
    if not all_classes and len(order) > 2 * _FEW:
        ranked = sorted(order, key=lambda i: (-totals[i], i))
        shown = [*ranked[:_FEW], None, *ranked[-_FEW:]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", justify="right")
    table.add_column("id", overflow="ellipsis", no_wrap=True, max_width=20)
    table.add_column("name", overflow="ellipsis", no_wrap=True, max_width=24)
    for name in summary.splits:
        table.add_column(name, justify="right")
    for i in shown:
        if i is None:
            table.add_row("...", f"{len(order) - 2 * _FEW:,} more", "(--all-classes)")
            continue
        counts = (f"{split.class_counts[i]:,}" for split in summary.splits.values())
        table.add_row(str(i), *summary.classes[i], *counts)
    return table
