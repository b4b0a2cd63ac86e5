"""The index of a large split, in parts: the same answers as an index of one file, of which little is ever read."""

import dataclasses
import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import imgdata
from imgdata import native, recipes
from imgdata.backends.resident import window
from imgdata.dataset import index_parts, index_writing, lazy_array, parted_index, summary
from imgdata.dataset.index_schema import index_schema
from imgdata.dataset.manifest import IndexPart, IndexParts, ShardRecord, SplitEntry, read_manifest
from imgdata.dataset.parted_index import PartedIndex
from imgdata.dataset.places import header, place_type
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.order.epoch_order import Order
from imgdata.recipes import CenterCrop, HorizontalFlip, RandomResizedCrop, Recipe
from imgdata.shards import sidecars
from imgdata.storage.folder import DatasetFolder
from imgdata.views import view as views
from support.masks import write_dataset
from support.remote_servers import web_server
from support.tars import dataset

RECIPE = Recipe(RandomResizedCrop(size=16), HorizontalFlip())
SAMPLES = 23
PARTS = ["demo-train.index-00000.parquet", "demo-train.index-00001.parquet", "demo-train.index-00002.parquet"]


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch):
    """Parts of 10 rows in row groups of 4, for splits of more than 6 samples: as two billion in parts of 2^24."""
    monkeypatch.setattr(index_writing, "ROW_GROUP", 4)
    monkeypatch.setattr(parted_index, "ROW_GROUP", 4)
    monkeypatch.setattr(index_parts, "PART_ROWS", 10)
    monkeypatch.setattr(sidecars, "MAX_WHOLE", 6)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("plain"), {"train": SAMPLES, "val": 5}, json=True)


@pytest.fixture
def parted(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "parted")
    imgdata.index(folder, workers=1)
    return folder


@pytest.fixture
def as_billions(monkeypatch):
    """No column of more than 6 samples may be read as a whole."""
    for module in (lazy_array, parted_index, views):
        monkeypatch.setattr(module, "MAX_WHOLE", 6)


def samples(split) -> list:
    return [(one.key, one.image, one.format, one.label, one.fields) for one in split]


def epoch(folder, **options) -> list:
    with imgdata.Loader(folder, split="train", batch_size=4, recipe=RECIPE, threads=1, **options) as loader:
        return [
            (batch.positions.tolist(), batch.labels.tolist(), batch.images.numpy().tobytes(), list(batch.keys))
            for batch in loader
        ]


def test_a_split_of_many_samples_has_its_index_in_parts(parted):
    entry = imgdata.open(parted).manifest.splits[0]
    assert [part.file for part in entry.parts.parts] == PARTS
    assert [part.rows for part in entry.parts.parts] == [10, 10, 3]
    assert not (parted / "demo-train.index.parquet").exists()
    # The other split has few.
    assert (parted / "demo-val.index.parquet").exists()
    assert json.loads((parted / "dataset.json").read_text())["version"] == 3


def test_samples_and_columns_are_those_of_an_index_of_one_file(plain, parted):
    one, other = imgdata.open(plain)["train"], imgdata.open(parted)["train"]
    assert samples(one) == samples(other)
    assert len(other.index) == SAMPLES
    assert other.index.names == one.index.names
    assert [other.index.row(i) for i in range(SAMPLES)] == [one.index.row(i) for i in range(SAMPLES)]
    position_N = np.array([22, 0, 9, 10, 9])
    for name in one.index.names:
        if name in ("key", "source"):
            assert other.index.texts(name, position_N) == one.index.texts(name, position_N)
            assert other.index.column(name).to_pylist() == one.index.column(name).to_pylist()
            continue
        found, expected = other.index.array(name), one.index.array(name)
        assert found.dtype == expected.dtype
        assert found[position_N].tolist() == expected[position_N].tolist()
        assert found[3:21].tolist() == expected[3:21].tolist()
        assert (found[-1], len(found), found.shape) == (expected[-1], SAMPLES, (SAMPLES,))
        assert np.asarray(found).tolist() == (found + 0).tolist() == found.tolist() == expected.tolist()
    for name in ("shard", "mode", "format"):
        assert other.index.words(name) == one.index.words(name)
    for key in ("train/0000", "train/0022", "train/0011"):
        assert other.index.find(key) == one.index.find(key)
    assert other.index.find("nowhere") == -1
    assert other.verified(21) == one.verified(21)
    assert other.hash(5) == one.hash(5)


@pytest.mark.parametrize("rows", [1 << 18, 7])
def test_inspect_counts_a_split_that_no_memory_holds(plain, parted, as_billions, monkeypatch, rows):
    expected = {**imgdata.inspect(plain).to_dict(), "path": str(parted)}
    monkeypatch.setattr(summary, "_SLICE", rows)
    assert imgdata.inspect(parted).to_dict() == expected
    train = expected["splits"]["train"]
    assert train["width"] == {"min": 32, "median": 35.0, "max": 38}
    assert sum(train["class_counts"]) == SAMPLES


def test_batches_are_those_of_an_index_of_one_file(plain, parted):
    for shuffle in ("global", "window", "none"):
        assert epoch(parted, shuffle=shuffle, window_shards=2) == epoch(plain, shuffle=shuffle, window_shards=2)
    columns = {"columns": ["key", "format", "width", "shard"]}
    for one, other in zip(
        *(imgdata.Loader(f, split="train", batch_size=4, recipe=RECIPE, **columns) for f in (plain, parted)),
        strict=True,
    ):
        assert {n: list(v) for n, v in one.columns.items()} == {n: list(v) for n, v in other.columns.items()}


@pytest.mark.parametrize("shuffle", ["global", "window", "none"])
def test_a_split_that_no_memory_holds_is_trained_on_and_resumed(plain, parted, as_billions, shuffle):
    options = {"split": "train", "batch_size": 4, "recipe": RECIPE, "shuffle": shuffle, "window_shards": 2}
    expected = epoch(plain, shuffle=shuffle, window_shards=2)
    assert epoch(parted, shuffle=shuffle, window_shards=2) == expected
    with imgdata.Loader(parted, **options) as loader:
        assert loader.view.is_large
        batches = iter(loader)
        next(batches), next(batches)
        state = json.loads(json.dumps(loader.state_dict()))
    with imgdata.Loader(parted, **options) as loader:
        loader.load_state_dict(state)
        assert [batch.positions.tolist() for batch in loader] == [one[0] for one in expected[2:]]


@pytest.mark.parametrize("shuffle", ["global", "window"])
def test_a_loader_of_billions_has_each_sample_once_an_epoch_and_resumes_in_the_keyed_order(
    parted, as_billions, monkeypatch, shuffle
):
    options = {"shuffle": shuffle, "window_shards": 2, "drop_last": False}
    settings = {"split": "train", "batch_size": 4, "recipe": RECIPE, **options}
    with imgdata.Loader(parted, **settings) as loader:
        sorted_state = loader.state_dict()
    sorted_order = [one[0] for one in epoch(parted, **options)]
    monkeypatch.setitem(Order.__init__.__kwdefaults__, "max_sorted", 6)
    whole = epoch(parted, **options)
    assert sorted([position for one in whole for position in one[0]][:SAMPLES]) == list(range(SAMPLES))
    assert [one[0] for one in whole] != sorted_order
    with imgdata.Loader(parted, **settings) as loader:
        first = next(iter(loader))
        state = loader.state_dict()
    assert first.positions.tolist() == whole[0][0]
    with imgdata.Loader(parted, **{**settings, "batch_size": 2}) as loader:
        loader.load_state_dict(state)
        rest = [position for batch in loader for position in batch.positions[batch.valid].tolist()]
        assert rest == [position for one in whole[1:] for position in one[0]][: SAMPLES - 4]
        with pytest.raises(
            OptionError, match=r"fingerprint must be .* it was saved with another dataset, view or shuffle"
        ):
            loader.load_state_dict(sorted_state)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_out_a_split_that_no_memory_holds(parted, as_billions, world_size):
    seen = []
    for rank in range(world_size):
        options = {"rank": rank, "world_size": world_size, "drop_last": False}
        with imgdata.Loader(parted, split="train", batch_size=2, recipe=RECIPE, **options) as loader:
            seen += [p for batch in loader for p in batch.positions[batch.valid].tolist()]
    assert sorted(seen) == list(range(SAMPLES))


def test_a_state_of_another_index_is_refused(plain, parted, as_billions):
    with imgdata.Loader(plain, split="train", batch_size=4, recipe=RECIPE) as loader:
        state = loader.state_dict()
    with (
        imgdata.Loader(parted, split="train", batch_size=4, recipe=RECIPE) as loader,
        pytest.raises(OptionError, match=r"fingerprint must be .* it was saved with another dataset"),
    ):
        loader.load_state_dict(state)


def test_what_needs_a_whole_column_is_refused_where_no_memory_holds_it(parted, as_billions):
    split = imgdata.open(parted)["train"]
    with pytest.raises(OptionError, match=r"label: this needs the whole column of 23 samples in memory, and at most 6"):
        np.bincount(split.index.label_N)
    with pytest.raises(OptionError, match="this needs the whole column 'key' of 23 samples"):
        split.index.column("key")
    with pytest.raises(OptionError, match="balance: a view must have at most 6 samples"):
        imgdata.open_view(imgdata.open(parted), "train", "balance")


def test_pictures_of_a_split_that_no_memory_holds_are_not_kept(parted, as_billions, monkeypatch):
    monkeypatch.setattr(window, "MAX_WHOLE", 6)
    options = {"split": "train", "batch_size": 4, "recipe": Recipe(CenterCrop(size=8))}
    with pytest.raises(OptionError, match="keeps one window of each picture, but there are 23 of them"):
        imgdata.Loader(parted, **options, backend="resident")
    with imgdata.Loader(parted, **options) as loader:
        assert loader.backend == "cpu"


def test_labels_that_a_mixing_recipe_needs_are_checked_by_the_statistics(parted, as_billions):
    mixed = Recipe(RandomResizedCrop(size=16), recipes.MixUp())
    with imgdata.Loader(parted, split="train", batch_size=4, recipe=mixed) as loader:
        assert not loader.view.has_unlabelled


def test_views_work_on_an_index_in_parts_that_memory_holds(plain, parted):
    for view in ("fraction=0.5", "balance", "where width>34", "exclude,file=bad.txt", "per_class=2"):
        Path("bad.txt").write_text("train/0003\n") if "bad.txt" in view else None
        one, other = (imgdata.open_view(imgdata.open(folder), "train", view) for folder in (plain, parted))
        assert one.epoch_positions(1).tolist() == other.epoch_positions(1).tolist()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_verify_finds_nothing_and_then_each_file_that_changed(parted):
    assert imgdata.verify(parted) == []
    for name in ("demo-train.places-00001.npy", "demo-train.index-00002.parquet"):
        data = (parted / name).read_bytes()
        (parted / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        (fault,) = imgdata.verify(parted)
        assert fault.shard == name
        assert "sha256 is" in fault.what
        (parted / name).unlink()
        assert imgdata.verify(parted)[0].what.startswith("missing; rebuild the sidecars")
        (parted / name).write_bytes(data)
    assert imgdata.verify(parted) == []


def test_indexing_again_gives_the_same_bytes_and_goes_back_to_one_file(plain, parted, monkeypatch):
    before = {path.name: path.read_bytes() for path in parted.iterdir() if path.is_file()}
    imgdata.index(parted, workers=1)
    assert {path.name: path.read_bytes() for path in parted.iterdir() if path.is_file()} == before
    monkeypatch.setattr(sidecars, "MAX_WHOLE", 1000)
    imgdata.index(parted, workers=1)
    assert sorted(path.name for path in parted.iterdir()) == sorted(path.name for path in plain.iterdir())


def test_shard_writes_parts_and_export_reads_them(tmp_path):
    out = tmp_path / "out"
    imgdata.shard("synthetic:samples=20,width=8,height=8", out, imgdata.ShardOptions(shard_samples=6), workers=1)
    split = imgdata.open(out)["train"]
    assert split.index.is_parted
    assert imgdata.verify(out) == []
    exported = imgdata.export(out, tmp_path / "back")
    assert exported.files == 20


@pytest.mark.parametrize("first", [20, 5])
def test_appended_samples_get_parts_behind_those_that_are_there(tmp_path, monkeypatch, first):
    """Also where the split has few samples before, and so an index of one file."""
    out, options = tmp_path / "out", imgdata.ShardOptions(shard_samples=6, key_prefix="a", shuffle=False)

    def shard(count: int, prefix: str) -> None:
        chosen = dataclasses.replace(options, key_prefix=prefix)
        source = f"synthetic:samples={count},width=8,height=8,seed={count}"
        imgdata.shard(source, out, chosen, workers=1, append=prefix != "a")

    shard(first, "a")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    rows = [imgdata.open(out)["train"].index.row(i) for i in range(first)]
    state = imgdata.Loader(out, split="train", batch_size=2, recipe=RECIPE).state_dict()
    shard(4, "b")
    shard(3, "c")
    dataset = imgdata.open(out)
    split = dataset["train"]
    assert (dataset.version, len(split), split.index.is_parted) == (3, first + 7, True)
    assert [split.index.row(i) for i in range(first)] == rows
    assert [split[i].image for i in range(first + 7)] == [split.read(i) for i in range(first + 7)]
    assert [split.index.key(i)[0] for i in range(first, first + 7)] == [*"bbbbccc"]
    parts = {name: data for name, data in before.items() if ".index" in name or ".places" in name}
    assert {name: (out / name).read_bytes() for name in parts} == parts
    assert len(dataset.at(1)["train"]) == first
    assert imgdata.verify(out) == []
    # A state of the first version goes on with it, and the same append adds nothing.
    with imgdata.Loader(out, split="train", batch_size=2, recipe=RECIPE) as loader:
        loader.load_state_dict(state)
        assert len(loader.view) == first
    written = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    shard(3, "c")
    # Nor does an index that is made anew change a version.
    imgdata.index(out, workers=1)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == written
    assert imgdata.verify(out) == []
    with pytest.raises(OutputError, match="already has samples with 1 key of the 1"):
        imgdata.shard("synthetic:samples=1,width=9,height=9", out, options, workers=1, append=True)
    monkeypatch.setattr(sidecars, "MAX_WHOLE", 2)
    with pytest.raises(OutputError, match="samples of a split can be appended at once"):
        shard(4, "d")


def test_a_version_whose_parts_are_not_the_first_ones_is_found_by_verify(tmp_path):
    out, options = tmp_path / "out", imgdata.ShardOptions(shard_samples=6)
    imgdata.shard("synthetic:samples=20,width=8,height=8", out, options, workers=1)
    more = dataclasses.replace(options, key_prefix="b")
    imgdata.shard("synthetic:samples=4,width=8,height=8", out, more, workers=1, append=True)
    manifest = read_manifest(out)
    first = manifest.versions[0]
    wrong = dataclasses.replace(first.splits["train"], index_sha256="0" * 64)
    versions = (dataclasses.replace(first, splits={"train": wrong}), *manifest.versions[1:])
    (out / "dataset.json").write_bytes(dataclasses.replace(manifest, versions=versions).to_bytes())
    (fault,) = imgdata.verify(out)
    assert (fault.shard, fault.what.partition(";")[0]) == (wrong.index, "missing")


def test_further_images_have_their_places_in_the_records(tmp_path, monkeypatch):
    out = tmp_path / "masked"
    write_dataset(out, 12)
    parted = imgdata.open(out)["train"]
    assert parted.index.is_parted
    assert imgdata.verify(out) == []
    found = [parted.verified_member(i, "mask") for i in range(12)]
    assert {"mask_offset", "mask_size", "mask_format"} < set(np.load(out / "masked-train.places-00000.npy").dtype.names)
    monkeypatch.setattr(sidecars, "MAX_WHOLE", 1000)
    imgdata.index(out, workers=1)
    plain = imgdata.open(out)["train"]
    assert not plain.index.is_parted
    assert [plain.read_member(i, "mask") for i in range(12)] == found


def test_a_dataset_behind_a_url_is_read_by_ranges(parted, as_billions):
    with web_server(parted) as url:
        remote = imgdata.open(url)["train"]
        assert remote.index.is_parted
        assert [remote.read(i) for i in (0, 22, 9)] == [imgdata.open(parted)["train"].read(i) for i in (0, 22, 9)]
        assert remote[11].key == imgdata.open(parted)["train"][11].key
        assert [one[:3] for one in epoch(url, shuffle="global")] == [one[:3] for one in epoch(parted)]


def test_numpy_and_arrow_read_the_files(parted):
    record_N = np.load(parted / "demo-train.places-00001.npy")
    table = pq.read_table(parted / PARTS[1])
    assert record_N["offset"].tolist() == table["offset"].to_pylist()
    assert record_N.dtype == place_type(has_json=True)
    assert table.num_rows == len(record_N) == 10


def test_a_copy_in_another_process_reads_again(parted):
    split = imgdata.open(parted)["train"]
    expected = split.read(7)
    copy = pickle.loads(pickle.dumps(split))
    assert copy.read(7) == expected
    assert copy.index.label_N[[3, 4]].tolist() == split.index.label_N[[3, 4]].tolist()


def spoil(path: Path, data: bytes, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


FIRST = len(header(10, place_type(has_json=True)))


@pytest.mark.parametrize(
    ("data", "at", "message"),
    [
        (b"X", 0, "its header is not that of the records in dataset.json"),
        (b"\xff" * 8, FIRST, "offset in row 0 must be an integer from 0 to"),
        (b"\xff" * 4, FIRST + 8, "size in row 0 must be an integer from 0 to 1073741824, got 4294967295"),
        (b"\x7f" * 4, FIRST + 12, "shard in row 0 must be an integer from 0 to 4, got"),
        (b"\x03\0\0\0", FIRST + 16, "label in row 0 must be an integer from -1 to 2, got 3"),
        (b"\xff" * 4, FIRST + 20, "width in row 0 must be an integer from 0"),
        (b"\x05", FIRST + 28, "format in row 0 must be an integer from 0 to 0, got 5"),
    ],
)
def test_records_that_can_not_be_are_refused_with_file_and_row(parted, data, at, message):
    spoil(parted / "demo-train.places-00000.npy", data, at)
    with pytest.raises(
        ShardError, match=f"places-00000.npy: damaged index .{message}.*; rebuild it with `imgdata index"
    ):
        imgdata.open(parted)["train"].read(0)


@pytest.mark.parametrize("compiled", [True, False])
def test_records_at_random_are_the_same_without_the_compiled_module(parted, monkeypatch, compiled):
    monkeypatch.setattr(native, "AVAILABLE", native.AVAILABLE and compiled)
    index, position_K = imgdata.open(parted)["train"].index, np.array([21, 3, 3, 14])
    expected = index.column("offset").to_pylist()
    assert index.array("offset")[position_K].tolist() == [expected[i] for i in position_K]
    places = parted / "demo-train.places-00002.npy"
    os.truncate(places, places.stat().st_size - 1)
    with pytest.raises(ShardError, match=r"places-00002.npy: damaged index \(cut short\)"):
        index.array("offset")[np.array([1, 22])]


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
def test_records_of_the_compiled_module_are_within_bounds(tmp_path):
    path, kind = tmp_path / "file", np.dtype("<u2")
    path.write_bytes(bytes(range(8)))
    with open(path, "rb") as file:
        number = file.fileno()
        assert native.read_records([number, number], np.array([6, 1]), kind).tolist() == [0x0706, 0x0201]
        assert native.read_records([number], np.array([7]), kind) is None
        assert len(native.read_records([], np.array([], np.int64), kind)) == 0
        with pytest.raises(ValueError, match="a file, an offset and a record"):
            native.read_records([number], np.array([0, 1]), kind)
    with pytest.raises(OSError, match="Bad file descriptor"):
        native.read_records([-1], np.array([0]), kind)


def test_parts_that_are_missing_cut_short_or_of_other_rows_are_named(parted):
    places, index = parted / "demo-train.places-00002.npy", parted / PARTS[0]
    os.truncate(places, places.stat().st_size - 1)
    with pytest.raises(ShardError, match=r"places-00002.npy: damaged index \(cut short\)"):
        imgdata.open(parted)["train"].read(22)
    places.unlink()
    with pytest.raises(ShardError, match=r"places-00002\.npy: no such part of the index; rebuild it"):
        imgdata.open(parted)["train"].read(22)
    shutil.copy(parted / PARTS[2], index)
    with pytest.raises(
        ShardError, match=r"index-00000.parquet: damaged index \(columns must be .* 10 rows, got .* 3\)"
    ):
        imgdata.open(parted)["train"].index.key(0)
    index.write_bytes(b"no parquet")
    with pytest.raises(ShardError, match=r"index-00000.parquet: damaged index \("):
        imgdata.open(parted)["train"].index.key(0)
    index.unlink()
    with pytest.raises(ShardError, match=r"index-00000\.parquet: no such part of the index"):
        imgdata.open(parted)["train"].index.key(0)


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"words": {"format": [1], "mode": []}},
        {"words": {"format": ["jpeg"]}},
        {"parts": [{"file": "../x", "rows": 23, "sha256": "", "places": "y", "places_sha256": ""}]},
        {"parts": [{"file": "x", "rows": 0, "sha256": "", "places": "y", "places_sha256": ""}]},
        {"parts": [{"file": "x", "rows": 22, "sha256": "", "places": "y", "places_sha256": ""}]},
    ],
)
def test_a_manifest_with_impossible_parts_is_refused(parted, change):
    path = parted / "dataset.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["index_parts"] |= change
    path.write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=r"damaged \(|rows must be 23|must have words of mode"):
        imgdata.open(parted)


def test_shards_are_columns_in_the_manifest_and_come_back_as_they_were(plain, parted):
    written = json.loads((parted / "dataset.json").read_text())["splits"]
    assert {name: len(written["train"]["shards"][name]) for name in ("file", "samples", "bytes", "digest")} == {
        "file": 5,
        "samples": 5,
        "bytes": 5,
        "digest": 5,
    }
    assert written["train"]["shards"]["hash"] == "sha256"
    assert isinstance(written["val"]["shards"], list)
    assert imgdata.open(parted).manifest.splits[0].shards == imgdata.open(plain).manifest.splits[0].shards
    imgdata.index(parted, workers=1, hash="none")
    assert {shard.hash for shard in imgdata.open(parted).manifest.splits[0].shards} == {"none"}
    assert imgdata.verify(parted) == []


@pytest.mark.parametrize(
    "change",
    [{"file": ["a.tar"]}, {"hash": "md5"}, {"samples": ["x"] * 5}, {"file": ["../x"] * 5}, {"digest": [1] * 5}],
)
def test_columns_of_shards_that_can_not_be_are_refused(parted, change):
    path = parted / "dataset.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["shards"] |= change
    path.write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=r"dataset.json: damaged \("):
        imgdata.open(parted)


def test_rows_at_random_of_two_billion_are_read_in_little_memory(tmp_path):
    # Files with holes, which are zeros: 60 GB of places that take no space.
    kind, rows, count = place_type(has_json=False), 2**24, 120
    parts = []
    for number in range(count):
        name = f"x.places-{number:05d}.npy"
        with open(tmp_path / name, "wb") as file:
            file.write(header(rows, kind))
            file.truncate(file.tell() + rows * kind.itemsize)
        parts.append(IndexPart(f"x.index-{number:05d}.parquet", "", name, "", rows))
    common = IndexParts(
        parts=tuple(parts), words={"format": ("jpeg",), "mode": ("RGB",)}, has_json=False, crop_ready=False
    )
    shards = tuple(ShardRecord(f"x-train-{number:06d}.tar", rows // 100, 1, "") for number in range(1000))
    tracemalloc.start()
    index = PartedIndex(DatasetFolder(tmp_path), SplitEntry("train", "x.index.parquet", "", shards, common))
    assert len(index) == 2_013_265_920
    spoil(tmp_path / "x.places-00119.npy", np.array([77], "<i4").tobytes(), len(header(rows, kind)) + 20)
    generator = np.random.Generator(np.random.Philox(key=[0, 1]))
    for _ in range(20):
        position_K = np.append(generator.integers(0, len(index), 256), 119 * rows)
        assert index.width_N[position_K].tolist() == [0] * 256 + [77]
        assert not index.offset_N[position_K].any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_the_schema_says_what_a_record_holds():
    names = index_schema(has_json=True).names
    assert set(place_type(has_json=True).names) < set(names)
    assert (place_type(has_json=False).itemsize, place_type(has_json=True).itemsize) == (30, 42)
