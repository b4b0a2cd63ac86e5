"""Listings: columns in, references out; unique keys; names with any bytes; a fingerprint of what decides the shards."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import SourceError
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.listing import Listing, ListingBuilder, clean_title
from imgdata.sources.readers import FileReader, RangeReader
from imgdata.storage.file_names import escape_name, unescape_name
from imgdata.tar.keys import is_clean_key

CLASSES = [ClassName("cat", "Cat"), ClassName("dog", "Dog")]
NAMES = st.text(st.characters(categories=["L", "N", "P", "S", "Z"]) | st.integers(0xDC80, 0xDCFF).map(chr))


def build(*samples: dict[str, Any], root: Path = Path("nowhere"), **facts: Any) -> Listing:
    builder = ListingBuilder()
    for sample in samples:
        builder.add(**{"split": "train", "name": "x.jpg", "key": "x", "label": 0, "size": 1, **sample})
    return builder.build(title="pets", kind="folder", reader=FileReader(root), classes=CLASSES, **facts)


def test_references_come_back_as_they_went_in() -> None:
    listing = build(
        {"name": "a.jpg", "key": "a", "size": 2**40},
        {
            "name": "b.jpg",
            "key": "b.1",
            "label": 1,
            "container": 3,
            "offset": 2**41,
            "fields": '{"k":1}',
            "split": "val",
        },
    )
    expected = [
        SampleRef("b.jpg", "b_1", 1, 1, 3, 2**41, '{"k":1}'),
        SampleRef("a.jpg", "a", 0, 2**40),
    ]
    assert list(listing.refs([1, 0])) == expected
    assert list(listing.refs(np.array([], np.int64))) == []
    assert (len(listing), listing.splits, listing.split_N.tolist()) == (2, ("train", "val"), [0, 1])


@pytest.mark.parametrize(("fields", "expected"), [("", False), ('{"k":1}', True)])
def test_fields_are_a_column_only_where_there_are_any(fields: str, expected: bool) -> None:
    assert build({}, {"fields": fields}).has_fields is expected


@given(st.lists(st.tuples(st.sampled_from(["train", "val"]), st.text("a-1.é", max_size=4)), min_size=1, max_size=30))
def test_keys_are_clean_and_unique_in_each_split(samples: list[tuple[str, str]]) -> None:
    listing = build(*({"split": split, "key": key} for split, key in samples))
    keys = listing.key_N.to_pylist()
    assert len(set(keys)) == len(samples)
    assert all(is_clean_key(str(key)) for key in keys)
    again = build(*({"split": split, "key": key} for split, key in samples))
    assert again.key_N.to_pylist() == keys


def test_the_first_of_equal_keys_keeps_its_name() -> None:
    listing = build(*({"key": key} for key in ("a", "a-1", "a", "a", "b")))
    assert listing.key_N.to_pylist() == ["a", "a-1", "a-2", "a-3", "b"]


def test_a_key_occurs_in_one_split_alone() -> None:
    assert build({"split": "train"}, {"split": "val"}).key_N.to_pylist() == ["x", "x-1"]


@given(NAMES | st.text("\\udc80f\udc80"))
def test_names_of_any_bytes_come_back(name: str) -> None:
    escaped = escape_name(name)
    escaped.encode()
    assert unescape_name(escaped) == name


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: "\\udc" not in name))
def test_usual_names_are_not_changed(name: str) -> None:
    assert escape_name(name) == name


@given(st.text())
def test_titles_are_fit_for_file_names(text: str) -> None:
    assert set(clean_title(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert clean_title(text)


def test_a_listing_of_nothing_is_refused_with_what_was_passed_over() -> None:
    builder = ListingBuilder()
    builder.skip("hidden files")
    builder.skip("not images (.txt)", 3)
    with pytest.raises(SourceError, match=r"pets: no images found \(passed over: 1 hidden files, 3 not images"):
        builder.build(title="pets", kind="folder", reader=FileReader(Path()), classes=CLASSES)


CHANGES: list[dict[str, Any]] = [
    {"classes": (ClassName("cat", "Cat"),)},
    {"kind": "table"},
    {"splits": ("val",)},
    {"split_N": np.array([0, 1], np.uint8)},
    {"label_N": np.array([1, 1], np.int32)},
    {"size_N": np.array([1, 2], np.int64)},
    {"offset_N": np.array([0, 512], np.int64)},
    {"name_N": pa.chunked_array([["a", "bc"]])},
    {"key_N": pa.chunked_array([["a", "bc"]])},
    {"fields_N": pa.chunked_array([["", "{}"]])},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_the_fingerprint_tells_every_change_that_matters(change: dict[str, Any]) -> None:
    listing = build({"name": "a", "key": "a"}, {"name": "b", "key": "b"})
    assert dataclasses.replace(listing, **change).fingerprint() != listing.fingerprint()


@given(st.integers(1, 3))
def test_the_fingerprint_knows_neither_place_nor_chunks(cut: int) -> None:
    samples = [{"name": name, "key": name} for name in "abcd"]
    here, there = build(*samples, root=Path("here")), build(*samples, root=Path("there"), warnings=["odd"])
    chunked = pa.chunked_array([list("abcd")[:cut], list("abcd")[cut:]])
    assert here.fingerprint() == there.fingerprint()
    assert dataclasses.replace(here, name_N=chunked).fingerprint() == here.fingerprint()


@pytest.mark.parametrize(
    ("size", "message"), [(2, "changed between listing and reading: 2 bytes"), (4, "changed"), (3, None)]
)
def test_files_that_changed_since_are_not_read(tmp_path: Path, size: int, message: str | None) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    ref = SampleRef("a.jpg", "a", 0, size)
    if message is None:
        assert FileReader(tmp_path).read(ref) == b"abc"
        return
    with pytest.raises(SourceError, match=message):
        FileReader(tmp_path).read(ref)


def test_reads_that_give_less_than_asked_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Short reads, as calls for more than 2 GiB and network disks give.
    read, pread = os.read, os.pread
    monkeypatch.setattr(os, "read", lambda file, size: read(file, min(size, 3)))
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, min(size, 3), offset))
    (tmp_path / "a").write_bytes(b"0123456789")
    assert FileReader(tmp_path).read(SampleRef("a", "a", 0, 10)) == b"0123456789"
    for size in (8, 9, 11):
        with pytest.raises(SourceError, match=f"changed between listing and reading: {size} bytes were listed"):
            FileReader(tmp_path).read(SampleRef("a", "a", 0, size))
    reader = RangeReader((tmp_path / "a",))
    for _ in ("opened", "kept open"):
        assert reader.read(SampleRef("x", "x", 0, 8, 0, 1)) == b"12345678"
    with pytest.raises(SourceError, match=r"ends inside x \(byte 10\)"):
        reader.read(SampleRef("x", "x", 0, 8, 0, 5))


def test_more_splits_than_fit_are_refused() -> None:
    assert len(build(*({"split": f"s{number}"} for number in range(255))).splits) == 255
    with pytest.raises(
        SourceError, match=r"last\.jpg: more than 255 splits, such as s0, s1, s2 and s255: .*--split-col"
    ):
        build(*({"split": f"s{number}", "name": "last.jpg"} for number in range(256)))


def test_what_the_system_says_stays_an_error_of_the_system_and_a_cut_container_is_a_bad_source(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        FileReader(tmp_path).read(SampleRef("a.jpg", "a", 0, 3))
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    reader = RangeReader((tmp_path / "a.tar", tmp_path / "b.tar"))
    assert reader.read(SampleRef("x", "x", 0, 3, 0, 2)) == b"234"
    with pytest.raises(SourceError, match=r"a\.tar: ends inside x \(byte 10\)"):
        reader.read(SampleRef("x", "x", 0, 3, 0, 8))
    with pytest.raises(FileNotFoundError, match=r"b\.tar"):
        reader.read(SampleRef("x", "x", 0, 3, 1, 0))
