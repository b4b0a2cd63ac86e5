"""A viewer, a selection -> a folder of pages and pictures that opens without a server and without Python."""

import base64
import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.auditing.report.html import Content, Html, element
from imgdata.devices import own_cores
from imgdata.errors import ImageError, OptionError, OutputError, ShardError
from imgdata.storage.atomic import output_error, sync_folder
from imgdata.web.overview import overview
from imgdata.web.query import query_of
from imgdata.web.rows import Row
from imgdata.web.thumbnails import thumbnail
from imgdata.web.viewer import Viewer

PAGE, THUMBNAILS, PICTURES = "index.html", "thumbnails", "pictures"
MOST = 2000
"""Samples of a selection that are shown, where nothing else is asked for."""
_MARK = b'<!doctype html>\n<html lang="en" data-made-by="imgdata view">'
_SMALL, _LARGE = 224, 1280
"""Longer sides in pixels."""
_STATIC = Path(__file__).parent / "static"
_WHERE = ("split", "class", "text", "format", "mark", "sort")


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What was written."""

    page: Path
    shown: int
    """Samples on the page."""
    selected: int
    """Samples of the selection, of which the first are on the page."""
    unshown: int
    """Samples on the page without a picture: it can't be decoded, or its shard can't be read."""


def write_site(
    viewer: Viewer,
    folder: Path,
    *,
    where: Sequence[str] = (),
    most: int = MOST,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Site:
    """Write a selection, whole or not at all under its final name; an earlier export there is replaced.

    Args:
        viewer: What is shown.
        folder: A new or empty folder, or one that this function wrote.
        where: The selection, each `NAME=VALUE` as in the address of the viewer: `split=val`, `class=cat`, `text=x`.
        most: Samples at most, the first of the selection.
        progress: Called with the number of samples done, and of all.

    Raises:
        OptionError: A selection without samples, or one that has no meaning.
        OutputError: The folder holds something else, or can't be written.
    """
    check_site_folder(folder)
    numbers = viewer.answers.numbers(query_of(_parameters(where, viewer)))
    if not len(numbers):
        raise OptionError(f"--where {' '.join(where)}: no sample is like that")
    chosen = [int(number) for number in numbers[:most]]
    try:
        with _whole_folder(folder) as work:
            for name in (THUMBNAILS, PICTURES):
                (work / name).mkdir()
            cells: list[_Cell] = []
            with _threads() as pool:
                for cell in pool.map(lambda number: _written(viewer, number, work), chosen):
                    cells.append(cell)
                    progress(len(cells), len(chosen))
            (work / PAGE).write_bytes(_page(viewer, cells, len(numbers), where))
    except OSError as error:
        raise output_error(error, folder) from error
    missing = sum(cell.fault != "" for cell in cells)
    return Site(page=folder / PAGE, shown=len(cells), selected=len(numbers), unshown=missing)


def check_site_folder(folder: Path) -> None:
    """Raise `OutputError` where the folder holds something else than an earlier export."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(error, folder) from error
    if not names:
        return
    try:
        with open(folder / PAGE, "rb") as file:
            ours = file.read(len(_MARK)) == _MARK
    except OSError:
        ours = False
    if not ours or set(names) - {PAGE, THUMBNAILS, PICTURES}:
        raise OutputError(
            f"{folder}: holds files that are no export of `imgdata view`; choose a new or empty folder, such as "
            f"{folder / 'site'}"
        )


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder`, which takes its name and place at the end, or is removed."""
    place = folder.absolute()
    work, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        work.mkdir(parents=True)
        yield work
        if place.exists():
            os.rename(place, old)
        os.rename(work, place)
        sync_folder(place.parent)
    finally:
        if old.exists() and not place.exists():
            os.rename(old, place)
        for one in (work, old):
            shutil.rmtree(one, ignore_errors=True)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads; where the block ends early, what waits is not begun."""
    pool = ThreadPoolExecutor(len(own_cores()))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _parameters(where: Sequence[str], viewer: Viewer) -> Mapping[str, str]:
    found = {}
    for text in where:
        name, equal, value = text.partition("=")
        if not equal or not (name in _WHERE or name.endswith(("_min", "_max"))):
            raise OptionError(
                f"--where must be NAME=VALUE, NAME one of {', '.join(_WHERE)}, width_min, width_max or so of another "
                f"column, got {text!r}"
            )
        found[name] = _class_index(value, viewer) if name == "class" else value
    return found


def _class_index(text: str, viewer: Viewer) -> str:
    """Return the index of a class that is given by its id or name."""
    for label, one in enumerate(viewer.dataset.classes):
        if text in (one.id, one.name):
            return str(label)
    if text == "none":
        return text
    known = ", ".join(one.name for one in viewer.dataset.classes[:8])
    raise OptionError(f"--where class must be a class such as {known}, or none, got {text!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    row: Row
    fault: str
    """Why there is no picture; empty where there is one."""


def _written(viewer: Viewer, number: int, work: Path) -> _Cell:
    row = viewer.rows.row(number)
    split, position = viewer.rows.place(number)
    try:
        data = split.read(position)
        small, large = (thumbnail(data, row, side) for side in (_SMALL, _LARGE))
    except (ImageError, ShardError) as error:
        return _Cell(row=row, fault=str(error))
    (work / THUMBNAILS / f"{number}.jpg").write_bytes(small)
    (work / PICTURES / f"{number}.jpg").write_bytes(large)
    return _Cell(row=row, fault="")


def _page(viewer: Viewer, cells: Sequence[_Cell], selected: int, where: Sequence[str]) -> bytes:
    dataset = viewer.dataset
    style, script = (Html((_STATIC / name).read_text("utf-8")) for name in ("site.css", "site.js"))
    # Of a page from the disk, `'self'` is nothing in some browsers.
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    labels = sorted({cell.row.label for cell in cells})
    chosen = f", selected by {' '.join(where)}" if where else ""
    missing = sum(cell.fault != "" for cell in cells)
    notes = [
        f"The first {len(cells):,} of {selected:,} samples{chosen}." if len(cells) < selected else "",
        f"{missing:,} without a picture: it can't be decoded or read." if missing else "",
    ]
    content = Html(
        "\n".join(
            [
                element("h1", dataset.name),
                element("p", f"{len(cells):,} samples{chosen}, of {len(viewer.rows):,} in the dataset", class_="dim"),
                *(element("p", text, class_="note") for text in notes if text),
                _overview(viewer),
                _form(viewer, labels),
                element("ul", [[Html("\n"), _shown(viewer, cell)] for cell in cells], class_="grid"),
                element("script", script, type="module"),
            ]
        )
    )
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", dataset.name),
        element("style", style),
    ]
    return _MARK + f"\n{element('head', head)}\n<body>\n{content}\n</body>\n</html>\n".encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _name(viewer: Viewer, label: int) -> str:
    return viewer.dataset.classes[label].name if label >= 0 else "no label"


def _form(viewer: Viewer, labels: Sequence[int]) -> Html:
    options = [element("option", "all", value="")]
    options += [element("option", _name(viewer, label), value=label) for label in labels]
    return element(
        "form",
        element("label", "Class", element("select", options, name="label")),
        element("label", "Text in key, name or class", element("input", type="search", name="text")),
        element("output", name="count"),
        role="search",
        hidden="",
    )


def _shown(viewer: Viewer, cell: _Cell) -> Html:
    row, name = cell.row, _name(viewer, cell.row.label)
    picture: Content = element("span", cell.fault, class_="none")
    if not cell.fault:
        image = element(
            "img", src=f"{THUMBNAILS}/{row.number}.jpg", alt=f"{row.key}, {name}", loading="lazy", decoding="async"
        )
        picture = element("a", image, href=f"{PICTURES}/{row.number}.jpg")
    return element(
        "li",
        picture,
        element("b", name),
        element("span", row.key),
        element("span", f"{row.split}, {row.width} x {row.height}, {row.size:,} bytes", class_="dim"),
        data_label=row.label,
    )


def _overview(viewer: Viewer) -> Html:
    found = overview(viewer.rows)
    tables = [
        _table("Splits", [(one["name"], one["samples"]) for one in found["splits"]]),
        _table("Classes, the largest first", [(one["name"], one["samples"]) for one in found["classes"]]),
        _table("Formats", [(one["name"], one["samples"]) for one in found["formats"]]),
        *(
            _table(one["name"].capitalize(), [(name, one[name]) for name in ("least", "median", "most")])
            for one in found["sizes"]
        ),
    ]
    return element("details", element("summary", "The whole dataset"), element("div", tables, class_="tables"))


def _table(title: str, rows: Sequence[tuple[str, Any]]) -> Html:
    lines = [element("tr", element("th", name, scope="row"), element("td", f"{count:,}")) for name, count in rows]
    return element("table", element("caption", title), lines)
