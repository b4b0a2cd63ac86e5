"""Tables and lines of text -> what a terminal, `print` or a notebook shows of them."""

import io
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table

WIDTH = 100
"""Columns where no terminal says how many there are."""


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""What moves the cursor, colours, renames or rings a terminal, reverses the order of letters, or can't be written."""


def printable(text: str) -> str:
    r"""Return `text` with control characters written as `\x1b` and the like; lines and tabs stay.

    Names of files, keys, classes and answers of servers come from anyone, and a terminal obeys what is in them.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(number: int, noun: str) -> str:
    """Return `number` and `noun`, in the plural unless it is one: `1 class`, `1,000 classes`."""
    plural = noun if number == 1 else noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {plural}"


def new_console(**settings: Any) -> "Console":
    """Return a console of rich's on which foreign text is only text: no markup, emoji's code or control character."""
    return _console_class()(**{"highlight": False, "markup": False, "emoji": False, **settings})


@cache
def _console_class() -> "type[Console]":
    from rich.console import Console
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterator[Segment]":
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return PrintableConsole


def new_table(**settings: Any) -> "Table":
    """Return an empty table in the style of all commands: no lines, bold titles, two spaces between columns."""
    from rich.table import Table

    style: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "header_style": "bold"}
    return Table(**{**style, "caption_justify": "left", **settings})


def as_text(parts: "Iterable[RenderableType]", width: int = WIDTH) -> str:
    """Return the parts one below the other, without colours: for `__str__`."""
    file = io.StringIO()
    console = new_console(file=file, width=width, color_system=None)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def as_html(parts: "Iterable[RenderableType]", width: int = WIDTH) -> str:
    """Return the parts as HTML with their colours: for `_repr_html_` in notebooks."""
    console = new_console(file=io.StringIO(), width=width, record=True, force_jupyter=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return console.export_html(
        inline_styles=True, code_format='<pre style="font-family:monospace;line-height:normal">{code}</pre>'
    )
