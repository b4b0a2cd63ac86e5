"""`imgdata models`: a pattern -> the networks with such names, as a table."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

_NUMBERS = ("size", "parameters", "features")
_TITLES = {"purpose": "what for", "weights": "weights on the hub"}


@click.command(short_help="List networks by name, with their sizes.")
@click.argument("pattern", metavar="[PATTERN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(pattern: str | None, as_json: bool) -> None:
    """List networks to begin with, or all of timm's whose names contain PATTERN.

    Each of them can be trained. PATTERN may have wildcards: *, ? and [a-z].

    \b
      imgdata models
      imgdata models 'vit_small*224'
    """  # noqa: D301
    from ..display.console import screen

    rows = _recommended() if pattern is None else _matching(pattern)
    if as_json:
        click.echo(json.dumps({"models": rows}))
        return
    table = _table(rows)
    if pattern is None:
        table.caption = "size in pixels; parameters with 1,000 classes, of the first two with 10"
    screen(stderr=False).print(table)


def _recommended() -> list[dict[str, Any]]:
    from imgdata.models import RECOMMENDED

    return [dataclasses.asdict(row) for row in RECOMMENDED]


def _matching(pattern: str) -> list[dict[str, Any]]:
    from imgdata.models import model_input
    from imgdata.models.catalogue import matching, weights_of

    return [{"name": name, "size": model_input(name).size, "weights": weights_of(name)} for name in matching(pattern)]


def _table(rows: list[dict[str, Any]]) -> "Table":
    """Return the rows under their names; the number of classes is in the caption."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", caption_justify="left")
    columns = [name for name in rows[0] if name != "classes"]
    for name in columns:
        number = name in _NUMBERS
        table.add_column(
            _TITLES.get(name, name), justify="right" if number else "left", no_wrap=number or name == "name"
        )
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
