"""Tables and lines of text -> what a terminal, `print` or a notebook shows of them."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDTH = 100
"""Columns where no terminal says how many there are."""


def new_table(**settings: Any) -> "Table":
    """Return an empty table in the style of all commands: no lines, bold titles, two spaces between columns."""
    from rich.table import Table

    style: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "header_style": "bold"}
    return Table(**{**style, "caption_justify": "left", **settings})


def as_text(parts: "Iterable[RenderableType]", width: int = WIDTH) -> str:
    """Return the parts one below the other, without colours: for `__str__`."""
    from rich.console import Console

    file = io.StringIO()
    # Names of files and classes are data: nothing in them is markup or an emoji's code.
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False, color_system=None)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def as_html(parts: "Iterable[RenderableType]", width: int = WIDTH) -> str:
    """Return the parts as HTML with their colours: for `_repr_html_` in notebooks."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False, record=True, force_jupyter=False
    )
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return console.export_html(
        inline_styles=True, code_format='<pre style="font-family:monospace;line-height:normal">{code}</pre>'
    )
