"""Pages with marked parts -> the same pages with these parts made again: `make reference`.

Between `<!-- MARK ARGUMENTS -->` and `<!-- end -->` nothing is written by hand. `help COMMAND` is what
`imgdata COMMAND --help` prints, `python` the reference of the public names, and the marks of `figures.py` are figures
from `benchmarks/results/`. The parts are committed, so that pages are whole wherever they are read;
`python docs/reference.py --check` and a test say where they are out of date.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from imgdata_cli.main import cli

sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import FIGURES
from python_reference import python_reference

ROOT = Path(__file__).resolve().parent.parent
END = "<!-- end -->"
OPENING = re.compile(r"<!-- ([a-z_]+)(?: ([\w -]+))? -->$")
PART = re.compile(rf"<!-- ([a-z_]+)(?: ([\w -]+))? -->\n(.*?){END}", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write the pages whose parts are out of date, or with `--check` only name them."""
    stale = [(page, text) for page, text in filled() if page.read_text() != text]
    for page, text in stale:
        name = page.relative_to(ROOT)
        if arguments == ["--check"]:
            print(f"{name}: generated parts are out of date: run `make reference`", file=sys.stderr)
        else:
            page.write_text(text)
            print(f"{name}: updated")
    return int(bool(stale) and arguments == ["--check"])


def filled() -> Iterator[tuple[Path, str]]:
    """Yield each page with the text that it should have."""
    for name in ("README.md", *page_names()):
        yield ROOT / name, fill((ROOT / name).read_text())


def page_names() -> list[str]:
    """Return the pages below `docs/`, as paths from the root."""
    return sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))


def fill(markdown: str) -> str:
    """Return the page with its marked parts made again."""
    return PART.sub(_made, markdown)


def _made(part: re.Match[str]) -> str:
    mark, arguments = part[1], part[2] or ""
    makers = {"help": _help, "python": python_reference, **FIGURES}
    if mark not in makers:
        raise SystemExit(f"<!-- {mark} -->: a mark must be one of {', '.join(sorted(makers))}")
    opening = part[0].split("\n", 1)[0]
    return f"{opening}\n\n{makers[mark](arguments)}\n\n{END}"


def _help(name: str) -> str:
    with click.Context(cli, info_name="imgdata", **cli.context_settings) as context:
        if not name:
            return _block("imgdata", context)
        command = cli.get_command(context, name)
        assert command is not None, f"no command {name!r}"
        with click.Context(command, info_name=name, parent=context) as inner:
            return _block(f"imgdata {name}", inner)


def _block(usage: str, context: click.Context) -> str:
    # As wide as the text of a page, whatever terminal this runs in.
    context.max_content_width = context.terminal_width = 80
    return f'```text title="{usage} --help"\n{context.get_help()}\n```'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
