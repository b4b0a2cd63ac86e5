"""What a person filters and sorts by: the same rows as a plain filter in Python, in a stable order."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgdata
from imgdata.errors import OptionError
from imgdata.web.query import query_of
from imgdata.web.rows import Row, rows_of
from imgdata.web.view import open_viewer
from imgdata.web.viewer import Viewer
from support.tars import write_tar


@pytest.fixture(scope="module")
def viewer(zoo: Path) -> Viewer:
    return open_viewer(zoo)


@pytest.fixture(scope="module")
def all_rows(viewer: Viewer) -> list[Row]:
    return [viewer.rows.row(number) for number in range(len(viewer.rows))]


def numbers(viewer: Viewer, **parameters: str) -> list[int]:
    return viewer.answers.numbers(query_of(parameters)).tolist()


FILTERS: dict[str, tuple[dict[str, str], Callable[[Row], bool]]] = {
    "split": ({"split": "val"}, lambda row: row.split == "val"),
    "class": ({"class": "1"}, lambda row: row.label == 1),
    "no class": ({"class": "none"}, lambda row: row.label < 0),
    "text of the key": ({"text": "CAT/00"}, lambda row: "cat/00" in (row.key + row.source).lower()),
    "text of the source": ({"text": ".jpg"}, lambda row: ".jpg" in row.source),
    "format": ({"format": "jpeg"}, lambda row: row.format == "jpeg"),
    "another format": ({"format": "png"}, lambda row: row.format == "png"),
    "width": ({"width_min": "60", "width_max": "70"}, lambda row: 60 <= row.width <= 70),
    "bytes": ({"size_min": "900.5"}, lambda row: row.size >= 900.5),
    "pixels": ({"pixels_max": "3000"}, lambda row: row.width * row.height <= 3000),
    "nothing": ({"text": ""}, lambda row: True),
}
PAIRS = [*((name,) for name in FILTERS), *itertools.combinations(FILTERS, 2)]


@pytest.mark.parametrize("names", PAIRS, ids=" and ".join)
def test_filters_keep_what_a_plain_filter_keeps(viewer: Viewer, all_rows: list[Row], names: tuple[str, ...]) -> None:
    parameters = {key: value for name in names for key, value in FILTERS[name][0].items()}
    if len(parameters) < sum(len(FILTERS[name][0]) for name in names):
        # Two texts: the later one is asked for.
        names = names[1:]
    expected = [row.number for row in all_rows if all(FILTERS[name][1](row) for name in names)]
    assert numbers(viewer, **parameters) == expected


SORTS: dict[str, Callable[[Row], Any]] = {
    "width": lambda row: row.width,
    "height": lambda row: row.height,
    "size": lambda row: row.size,
    "label": lambda row: row.label,
    "pixels": lambda row: row.width * row.height,
    "key": lambda row: row.key.encode(),
    "source": lambda row: row.source.encode(),
}


@pytest.mark.parametrize("name", SORTS)
def test_equal_ones_stay_in_the_order_of_the_shards(viewer: Viewer, all_rows: list[Row], name: str) -> None:
    rising = [row.number for row in sorted(all_rows, key=SORTS[name])]
    assert numbers(viewer, sort=name) == rising
    falling = [SORTS[name](all_rows[number]) for number in numbers(viewer, sort=f"-{name}")]
    assert falling == sorted(map(SORTS[name], all_rows), reverse=True)


def test_a_filtered_sort_is_the_sorted_filter(viewer: Viewer, all_rows: list[Row]) -> None:
    kept = [row for row in all_rows if row.label == 0]
    assert numbers(viewer, **{"class": "0"}, sort="width") == [
        row.number for row in sorted(kept, key=lambda row: row.width)
    ]


ODD_KEYS = ["100%", "a_b", "a.b", "it's", 'say "so"', "back\\slash", "(round)", "[x]*", "^start$", "ÄÖ", "ß", "a+b?"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_text_is_looked_for_as_it_is_written(tmp_path: Path, key: str) -> None:
    names = {f"{number}": f"{name}.jpg" for number, name in enumerate(ODD_KEYS)}
    viewer = _with_sources(tmp_path, list(names.values()))
    found = [viewer.rows.row(number).source for number in numbers(viewer, text=key)]
    assert found == [name for name in names.values() if key.lower() in name.lower()]


def _with_sources(folder: Path, sources: list[str]) -> Viewer:
    from support.rawdata import encoded

    tar = write_tar(folder / "a.tar", [(f"{number:02d}.jpg", encoded(number)) for number in range(len(sources))])
    imgdata.index(tar, label_from="none")
    index = imgdata.open(folder)
    split = next(iter(index.values()))
    table = pq.read_table(split.index.path)
    table = table.set_column(table.schema.get_field_index("source"), table.schema.field("source"), pa.array(sources))
    from imgdata.dataset.index_writing import write_index

    write_index(split.index.path, table)
    return open_viewer(folder)


@pytest.mark.parametrize(
    "parameters",
    [
        {"split": "test"},
        {"class": "cat"},
        {"sort": "colour"},
        {"colour_min": "1"},
        {"width_min": "wide"},
        {"mark": "finding"},
        {"mark": "view:none"},
        {"mark": "decision:burn"},
    ],
)
def test_what_has_no_meaning_is_one_message(viewer: Viewer, parameters: dict[str, str]) -> None:
    if parameters == {"mark": "finding"}:
        # All findings, or none are known.
        return
    with pytest.raises(OptionError, match="must be"):
        numbers(viewer, **parameters)


def test_an_answer_is_computed_once(viewer: Viewer) -> None:
    query = query_of({"text": "once", "sort": "key"})
    assert viewer.answers.numbers(query) is viewer.answers.numbers(query_of({"sort": "key", "text": "once"}))


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=4))
def test_whatever_an_address_says_is_a_query_or_one_message(parameters: dict[str, str]) -> None:
    try:
        query_of(parameters)
    except OptionError as error:
        assert "must be a number" in str(error)  # noqa: PT017 - either is right


def test_looking_for_a_text_imports_no_pandas(zoo: Path) -> None:
    code = (
        "import sys; from imgdata.web.query import query_of; from imgdata.web.view import open_viewer\n"
        f"viewer = open_viewer({str(zoo)!r}); viewer.answers.numbers(query_of({{'text': 'cat', 'sort': 'key'}}))\n"
        "print('pandas' in sys.modules, 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_texts_of_ten_million_rows_are_read_by_the_group(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *facts: Any, **more: Any) -> None:
        raise AssertionError("a whole column was read")

    dataset = imgdata.open(zoo)
    first, last = dataset["train"].index.row(0).key, dataset["val"].index.row(len(dataset["val"]) - 1).key
    rows = rows_of(imgdata.open(zoo))
    monkeypatch.setattr(pq.ParquetFile, "read", refuse)
    assert rows.keys([0, len(rows) - 1]) == [first, last]


def test_numbers_of_rows_go_through_all_splits(viewer: Viewer) -> None:
    rows = viewer.rows
    for number in range(len(rows)):
        split, position = rows.place(number)
        row = rows.row(number)
        assert (row.split, row.position) == (split.name, position)
        assert rows.number(row.split, row.key) == number
        assert split.index.row(position).key == row.key
    assert np.array_equal(rows.array("width"), [rows.row(number).width for number in range(len(rows))])
    for number in (-1, len(rows), 10**30):
        with pytest.raises(IndexError):
            rows.place(number)
