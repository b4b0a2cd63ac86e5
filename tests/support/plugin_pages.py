"""A page of `docs/plugins`, the code that a user has -> that code with the page's diff in it, for tests to run."""

import re
from collections.abc import Iterator
from pathlib import Path

from support.places import REPOSITORY

FOLDER = REPOSITORY / "docs" / "plugins"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
SMALLER = {"=256": "=8", ": 256": ": 8", "(224)": "(16)", "90)": "3)", "90,": "3,", '"cuda"': '"cpu"'}
"""What the pages have -> what the tests' data and time allow."""


def changed(page: str, before: str, folder: Path | str) -> str:
    """`before` with all diffs of the page applied, in order, on the dataset in `folder`, with few and small images.

    A diff's lines without + must be in `before`, adjacent, in this order; `...` stands for any lines between them.
    """
    lines, after, waiting = before.splitlines(), [], []
    at, anywhere = 0, True
    for line in _diff(page):
        mark, text = line[:1], line[1:]
        if line == "...":
            # What stands alone, such as imports, comes right behind the line before.
            after, waiting, anywhere = [*after, *waiting], [], True
        elif mark == "+":
            (waiting if anywhere else after).append(text)
        else:
            places = range(at, len(lines) if anywhere else at + 1)
            found = next((place for place in places if lines[place : place + 1] == [text]), None)
            assert found is not None, f"{page}.md: the code before has no such line here: {text!r}"
            # What is added before this line comes right before it.
            after += [*lines[at:found], *waiting, *([] if mark == "-" else [text])]
            at, anywhere, waiting = found + 1, False, []
    assert not waiting, f"{page}.md: nothing follows {waiting!r}"
    code = "\n".join([*after, *lines[at:]])
    for usual, small in SMALLER.items():
        code = code.replace(usual, small)
    return code.replace('"out/"', repr(str(folder)))


def _diff(page: str) -> Iterator[str]:
    text = (FOLDER / f"{page}.md").read_text()
    blocks = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"{page}.md shows no diff"
    for block in blocks:
        yield "..."
        yield from block.splitlines()
