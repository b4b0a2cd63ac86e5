"""A dataset folder is foreign input: what its files say is checked, and leads nowhere else."""

import contextlib
import dataclasses
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imgdata
from imgdata.dataset.index import Index
from imgdata.dataset.index_schema import INDEX_SCHEMA
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.manifest import MAX_PIXELS, read_manifest
from imgdata.errors import ImgdataError, OptionError, ShardError
from support.tars import dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("made"), json=True)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "own")


def rewritten(folder, **columns):
    """Write the val index anew with other values in its last row, and its right hash into dataset.json."""
    path = folder / "demo-val.index.parquet"
    table = pq.read_table(path)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        values = [*table[name].to_pylist()[:-1], value]
        kind = table.schema.field(name).type
        words = pa.types.is_dictionary(kind)
        column = pa.array(values, pa.string()).dictionary_encode() if words else pa.array(values, kind)
        table = table.set_column(place, table.schema.field(name), column)
    write_index(path, table)
    manifest = read_manifest(folder)
    splits = tuple(
        dataclasses.replace(split, index_sha256=_sha256(path)) if split.name == "val" else split
        for split in manifest.splits
    )
    (folder / "dataset.json").write_bytes(dataclasses.replace(manifest, splits=splits).to_bytes())


def _sha256(path):
    from imgdata.storage.reading import file_sha256

    return file_sha256(path)


ROWS = {
    "shard": ("../../../etc/passwd", "shard must be the name of a file in the folder"),
    "label": (3, "label in row 4 must be an integer from -1 to 2, got 3"),
    "offset": (-512, "offset in row 4 must be an integer from 0 to .*, got -512"),
    "size": (-1, "size in row 4 must be"),
    "width": (-7, "width in row 4 must be an integer of at least 0, got -7"),
    "height": (-2147483648, "height in row 4 must be"),
    "orientation": (9, "orientation in row 4 must be an integer from 0 to 8, got 9"),
    "key": ("val/\0", "key in row 4 must be a text without null bytes"),
    "source": ("\0", "source in row 4 must be a text without null bytes"),
    "json_offset": (-1, "json_offset in row 4 must be"),
    "json_size": (1 << 61, "json_size in row 4 must be"),
}


@pytest.mark.parametrize(("column", "value", "what"), [(name, *case) for name, case in ROWS.items()], ids=ROWS)
def test_a_value_that_can_not_be_is_named_with_its_row(folder, column, value, what):
    rewritten(folder, **{column: value})
    with pytest.raises(ShardError, match=f"demo-val.index.parquet: {what}"):
        imgdata.open(folder)["val"].index.column(column)
    faults = imgdata.verify(folder)
    assert any(what.split(" ")[0] in fault.what and fault.serious for fault in faults), faults
    with contextlib.suppress(ImgdataError):
        imgdata.inspect(folder)
    with contextlib.suppress(ImgdataError):
        imgdata.export(folder, folder / "export")
    with contextlib.suppress(ImgdataError):
        list(imgdata.open(folder)["val"])
    # It is built anew from the tars, whatever stands there.
    imgdata.index(folder)
    assert imgdata.verify(folder) == []


@pytest.mark.parametrize("name", ["../x.tar", "/etc/passwd", "..", "demo-train-000000.tar", "a\0b"])
def test_the_shards_of_an_index_are_those_of_its_split(folder, name):
    rewritten(folder, shard=name)
    with pytest.raises(ShardError, match="shard must be"):
        imgdata.open(folder)["val"].read(4)


@pytest.mark.parametrize(("offset", "size"), [(1 << 61, 10), (0, 1 << 30), (512, 1 << 20)])
def test_a_sample_behind_the_end_of_its_shard_takes_no_memory(folder, offset, size):
    rewritten(folder, offset=offset, size=size)
    with pytest.raises(ShardError, match="cut short at byte"):
        imgdata.open(folder)["val"].read(4)
    assert any("behind the end" in fault.what for fault in imgdata.verify(folder))


def test_billions_of_equal_rows_are_not_read(tmp_path):
    rows = 3_000_000
    columns = {field.name: pa.nulls(0) for field in INDEX_SCHEMA}
    for field in INDEX_SCHEMA:
        if pa.types.is_dictionary(field.type):
            columns[field.name] = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(["a"]))
        elif pa.types.is_string(field.type):
            columns[field.name] = pa.array([""] * rows, field.type)
        else:
            columns[field.name] = pa.array(np.zeros(rows), field.type, safe=False)
    pq.write_table(pa.table(columns, INDEX_SCHEMA), tmp_path / "x.parquet", compression="zstd")
    with pytest.raises(ShardError, match=r"damaged index .3000000 rows in"):
        Index(tmp_path / "x.parquet")


FILES = ("dataset.json", "demo-val.index.parquet", "demo-val-000000.tar", "demo-val-000000.idx")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_file_is_named_and_nobody_waits(folder, file, kind):
    (folder / file).unlink()
    if kind == "folder":
        (folder / file).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / file)
    else:
        (folder / file).symlink_to("/dev/zero")

    def use():
        opened = imgdata.open(folder)
        opened["val"].read(0)
        faults = imgdata.verify(folder)
        assert any(fault.shard == file and "must be a regular file" in fault.what for fault in faults)
        raise ShardError("must be a regular file")

    with pytest.raises(ShardError, match="must be a regular file"):
        use()


def changed(folder, change):
    path = folder / "dataset.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("counts"),
        lambda content: content.update(counts=[]),
        lambda content: content["counts"].update(rejected=-1),
        lambda content: content["counts"].update(rejected=10**400),
        lambda content: content.update(name="../x"),
        lambda content: content.update(splits=[]),
        lambda content: content["splits"]["val"].update(index="../../etc/passwd"),
        lambda content: content["splits"]["val"]["shards"][0].update(samples=None),
        lambda content: content["splits"]["val"]["shards"][0].update(bytes=1e3),
        lambda content: content.update(classes=[{"id": "\ud800", "name": "x"}]),
        lambda content: content.update(options=7),
        lambda content: content.update(version=10**400),
    ],
)
def test_a_damaged_manifest_is_one_error(folder, change):
    changed(folder, change)
    with pytest.raises(ShardError, match=r"dataset\.json: ") as caught:
        imgdata.open(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "[]", "null", ""])
def test_a_manifest_that_is_none_is_one_error(folder, text):
    (folder / "dataset.json").write_text(text)
    with pytest.raises(ShardError, match=r"dataset\.json: damaged"):
        imgdata.open(folder)


def test_rows_and_counts_must_be_the_same(folder):
    changed(folder, lambda content: content["splits"]["val"]["shards"][0].update(samples=4))
    with pytest.raises(ShardError, match=r"rows must be 4 as dataset\.json says, got 5"):
        imgdata.open(folder)


@pytest.mark.parametrize(
    ("stated", "own", "limit"),
    [
        (10**12, None, MAX_PIXELS),
        (1000, None, 1000),
        (10**12, "400000000", 400_000_000),
        (1000, "400000000", 1000),
        (-5, None, MAX_PIXELS),
        ("x", None, MAX_PIXELS),
        (True, "77", 77),
    ],
)
def test_a_folder_can_lower_the_limit_of_pixels_and_never_raise_it(folder, monkeypatch, stated, own, limit):
    monkeypatch.delenv("IMGDATA_MAX_PIXELS", raising=False)
    if own is not None:
        monkeypatch.setenv("IMGDATA_MAX_PIXELS", own)
    changed(folder, lambda content: content["options"].update(max_pixels=stated))
    assert imgdata.open(folder).manifest.max_pixels == limit


def test_a_limit_of_ones_own_that_is_no_number_is_an_error(folder, monkeypatch):
    monkeypatch.setenv("IMGDATA_MAX_PIXELS", "many")
    with pytest.raises(OptionError, match="IMGDATA_MAX_PIXELS must be a number of pixels"):
        _ = imgdata.open(folder).manifest.max_pixels


def test_a_json_member_that_no_program_can_read_is_one_error(folder):
    row = imgdata.open(folder)["val"].index
    offset, size = int(row.array("json_offset")[0]), int(row.array("json_size")[0])
    path = folder / "demo-val-000000.tar"
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = (rb'{"a":"\ud800"}').ljust(size)
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"demo-val-000000\.tar: json member at byte"):
        imgdata.open(folder)["val"][0]


def test_sidecars_of_other_programs_are_noted_and_no_fault(folder):
    (folder / "demo-val-000000.tar.idx").write_bytes(b"energon")
    faults = imgdata.verify(folder)
    assert [(fault.shard, fault.serious) for fault in faults] == [("demo-val-000000.tar.idx", False)]
    assert "another program" in faults[0].what
