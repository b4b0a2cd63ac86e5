"""Markdown of a page -> the same with each `<!-- help COMMAND -->` replaced by what `imgdata COMMAND --help` prints.

A hook of MkDocs: the pages show the options that the installed commands have, and a removed command stops the build.
"""

import re
from typing import Any

import click
from imgdata_cli.main import cli

_MARK = re.compile(r"<!-- help( [a-z]+)? -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return _MARK.sub(lambda found: _help((found[1] or "").strip()), markdown)


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
