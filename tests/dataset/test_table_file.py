"""A large index, or file of columns, in a store: columns that are needed come, and for single samples a row group."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import imgdata
from imgdata import ShardOptions
from imgdata.dataset import table_file
from imgdata.dataset.table_file import TableFile
from imgdata.storage.cache_folder import cache_entries
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.remote_folder import RemoteFolder
from support.rawdata import encoded
from support.remote_servers import faulty, web_server

ROWS = 3
"""Rows of a row group."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset with fields, whose index and columns have many row groups."""
    raw = tmp_path_factory.mktemp("raw")
    rows = [f"{number}.jpg,{'ab'[number % 2]},number {number},{number / 2}" for number in range(20)]
    (raw / "labels.csv").write_text("\n".join(["file,label,caption,score", *rows]))
    for number in range(20):
        (raw / f"{number}.jpg").write_bytes(encoded(number))
    folder = tmp_path_factory.mktemp("site") / "ds"
    imgdata.shard(raw, folder, ShardOptions(name="ds", shard_samples=6), workers=1)
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table, path, row_group_size=ROWS, compression="zstd")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with web_server(folder.parent) as address, faulty(address) as proxy:
        yield proxy


@pytest.fixture
def url(server, folder, monkeypatch, tmp_path):
    """The dataset's URL, where every Parquet file is a large one."""
    monkeypatch.setattr(table_file, "WHOLE_BYTES", 0)
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    server.requests.clear()
    return f"{server.endpoint}/{folder.name}"


def asked(server, name):
    """Ranges of the requests for a file's bytes."""
    return [request.split()[-1] for request in server.requests if request.startswith("GET") and name in request]


def test_a_dataset_is_the_same(url, folder):
    here, there = imgdata.open(folder), imgdata.open(url)
    for name in here:
        assert list(there[name]) == list(here[name])
        assert there[name].index.identity == here[name].index.identity
        assert {"caption", "score"} == set(there[name].columns.types)
        for column in here[name].columns.names:
            one, other = (list(split[name].columns.values(column, np.arange(3))) for split in (here, there))
            assert str(one) == str(other)
    recipe = imgdata.recipes.imagenet_eval(32, 36)
    with imgdata.Loader(url, split="train", recipe=recipe, batch_size=4, shuffle="global") as loader:
        keys = [key for batch in loader for key in batch.keys]
    assert sorted(keys) == sorted(sample.key for sample in here["train"])


def test_opening_reads_footers_and_a_sample_its_row_group(url, folder, server):
    split = imgdata.open(url)["train"]
    size = (folder / "ds-train.index.parquet").stat().st_size
    starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in asked(server, "train.index")]
    assert starts
    assert all(start >= size - 2**16 or start == 0 for start in starts)
    assert asked(server, "columns") == []
    assert split.fields(4)["caption"].startswith("number ")
    sample = split[4]
    server.requests.clear()
    assert split.index.key(3) == imgdata.open(folder)["train"][3].key != sample.key
    assert server.requests == []
    split.index.key(9)
    assert len(asked(server, "train.index")) == 1
    assert split.columns.values("caption", np.array([5, 4])) == [split.fields(5)["caption"], split.fields(4)["caption"]]
    # A footer, of two requests where it is long, and a row group.
    assert len(asked(server, "columns")) <= 3


def test_columns_are_kept_for_other_processes(url, server):
    imgdata.open(url)["train"].index.load(("size", "label"))
    server.requests.clear()
    index = pickle.loads(pickle.dumps(imgdata.open(url)["train"].index))
    index.load(("size", "label"))
    footers = {start for start in asked(server, "train.index")}
    index.load(("width",))
    assert len(asked(server, "train.index")) > len(footers)
    assert {entry.what for entry in cache_entries()} == {"file of a remote dataset"}


def test_what_a_copy_takes_on_the_disk_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "large").write_bytes(bytes(2**24))
    with web_server(tmp_path) as address:
        path = RemoteFolder(address).local_ranges("large", "a part", [(2**20, 100), (2**23, 10)])
    assert path.stat().st_size == 2**24
    assert sum(entry.num_bytes for entry in cache_entries()) < 2**18


def test_many_row_groups_one_by_one_become_the_whole_column(url, server):
    index = imgdata.open(url)["train"].index
    for position in range(0, len(index), ROWS):
        index.key(position)
    assert index.texts("key", np.arange(len(index))) == [index.key(position) for position in range(len(index))]
    server.requests.clear()
    index.texts("key", np.arange(len(index)))
    assert server.requests == []


def test_a_file_that_is_replaced_or_damaged_is_named(url, folder, tmp_path, monkeypatch):
    copy = tmp_path / "site" / "ds"
    shutil.copytree(folder, copy)
    name = "ds-train.index.parquet"
    with web_server(copy.parent) as address:
        index = imgdata.open(f"{address}/ds")["train"].index
        (copy / name).write_bytes((copy / name).read_bytes()[:-1] + b"2")
        with pytest.raises(imgdata.ShardError, match=r"ds/ds-train\.index\.parquet: changed while it was read"):
            index.load(("size",))
        with pytest.raises(imgdata.ShardError, match=r"ds/ds-train\.index\.parquet: damaged index .*write http"):
            imgdata.open(f"{address}/ds")


def test_fields_of_a_dataset_without_a_file_of_columns_come_together(folder, tmp_path, monkeypatch):
    copy = tmp_path / "ds"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if "columns" not in name}
    (copy / "dataset.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    with web_server(tmp_path) as address, faulty(address) as proxy:
        split = imgdata.open(f"{proxy.endpoint}/ds")["train"]
        values = split.columns.values("caption", np.arange(len(split)))
        assert len(asked(proxy, ".tar")) <= len(split.shards)
    assert values == [fields["caption"] for fields in map(imgdata.open(folder)["train"].fields, range(len(split)))]


def test_samples_one_after_the_other_come_together(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    here = imgdata.open(folder)["train"]
    with web_server(folder.parent) as address, faulty(address) as proxy:
        url = f"{proxy.endpoint}/{folder.name}"
        split = imgdata.open(url)["train"]
        assert list(split) == list(here)
        assert split[2:9] == here[2:9]
        imgdata.export(url, tmp_path / "there")
        # Twice for each shard by order, and by class.
        assert len(asked(proxy, ".tar")) <= 5 * len(split.shards)
    imgdata.export(folder, tmp_path / "here")
    there, here = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")} for name in ("there", "here")
    )
    assert there == here


def test_files_of_this_machine_are_read_where_they_lie(folder):
    name = "ds-train.index.parquet"
    file = TableFile(DatasetFolder(folder), name)
    assert not file.is_ranged
    assert file.path == Path(folder, name)
    assert file.rows("key", np.array([0])) is None
    assert file.read_group(0, "key").to_pylist() == file.read(["key"])["key"].to_pylist()[:ROWS]
