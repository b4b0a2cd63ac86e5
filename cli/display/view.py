"""What `imgdata inspect --view` shows: each step of a view, what it leaves out and why, what it relabels."""

import json
from collections.abc import Mapping
from pathlib import Path

import click

_SHOWN = 12
"""Pairs of classes that are shown."""


def print_view(dataset: Path, text: str, split: str | None, as_json: bool) -> None:
    """Print what a view does, step by step. Raises `OptionError`, `ShardError`."""
    import imgdata
    from imgdata.errors import OptionError
    from imgdata.tables import new_table
    from imgdata.views.effects import step_effects
    from imgdata.views.saved import list_views, load_view, open_view

    from .console import screen

    opened = imgdata.open(dataset)
    if split is not None and split not in opened:
        raise OptionError(f"split must be one of {', '.join(opened)}, got {split!r}")
    if split is None and text in list_views(opened):
        split = load_view(opened, text).split
    view = open_view(opened, split or next(iter(opened)), text)
    effects, before = step_effects(opened, view), len(opened[view.split])
    if as_json:
        steps = [
            {
                "step": one.step,
                "left_out": one.left_out,
                "samples": one.samples,
                "reasons": dict(one.reasons),
                "relabelled": [
                    {"was": was, "now": now, "samples": count} for (was, now), count in one.relabelled.items()
                ],
            }
            for one in effects
        ]
        facts = {"view": text, "split": view.split, "before": before, "samples": len(view), "steps": steps}
        click.echo(json.dumps(facts))
        return
    console = screen(stderr=False)
    console.print(f"{text}: {len(view):,} of {before:,} samples of {view.split}\n", soft_wrap=True)
    table = new_table()
    table.add_column("step")
    table.add_column("left out", justify="right", no_wrap=True)
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("why, and what is relabelled")
    for one in effects:
        lines = [f"{count:,} {reason}" for reason, count in one.reasons.items()] + _pairs(one.relabelled)
        table.add_row(one.step, f"{one.left_out:,}", f"{one.samples:,}", "\n".join(lines))
    console.print(table)


def _pairs(relabelled: Mapping[tuple[str, str], int]) -> list[str]:
    shown = [f"{count:,} {was or 'none'} -> {now or 'none'}" for (was, now), count in relabelled.items()]
    more = len(shown) - _SHOWN
    return [*shown[:_SHOWN], f"and {more:,} more pairs"] if more > 0 else shown
