"""Opening a finished dataset: splits, random access, errors, and use by torch and webdataset."""

import base64
import json
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import imgdata
from imgdata.dataset.index import Index
from imgdata.dataset.index_schema import INDEX_SCHEMA
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.summary import balance
from imgdata.errors import ImageError, ShardError
from support.rawdata import encoded
from support.tars import dataset, flip, webdataset_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("demo"), json=True)


@pytest.fixture
def own(tmp_path):
    return dataset(tmp_path / "own")


def test_a_dataset_has_name_classes_and_splits_in_order(folder):
    opened = imgdata.open(folder)
    assert opened.name == "demo"
    assert [name.id for name in opened.classes] == ["0", "1", "2"]
    assert list(opened) == list(opened.splits) == ["train", "val"]
    assert [path.name for path in opened["train"].shards] == [f"demo-train-{i:06d}.tar" for i in range(3)]
    assert repr(opened) == "<Dataset demo: 3 classes; train 12, val 5>"
    assert repr(opened["val"]) == "<Split val: 5 samples in 1 shards>"


def test_every_sample_is_what_webdataset_reads(folder):
    split = imgdata.open(folder)["train"]
    expected = webdataset_samples(split.shards)
    assert len(split) == len(expected) == 12
    for sample, other in zip(split, expected, strict=True):
        assert (sample.key, sample.image, sample.label) == (other["__key__"], other["jpg"], int(other["cls"]))
        assert sample.format == "jpeg"
        assert sample.fields == json.loads(other["json"])


def test_positions_count_from_both_ends_and_stop_there(folder):
    split = imgdata.open(folder)["val"]
    assert split[-1].key == split[4].key == "val/0004"
    assert split[np.int64(2)].image == split.read(2)
    for position in (5, -6):
        with pytest.raises(IndexError, match=f"position must be from -5 to 4, got {position}"):
            split[position]


def test_samples_are_found_by_key(folder):
    split = imgdata.open(folder)["train"]
    assert split[split.find("train/0007")].key == "train/0007"
    with pytest.raises(KeyError, match=r"no sample 'train/007' in split 'train'; near: .*train/0007"):
        split.find("train/007")


def test_unknown_splits_are_answered_with_the_known(folder):
    with pytest.raises(KeyError, match=r"no split 'test' in .*; it has train, val"):
        imgdata.open(folder)["test"]


def test_rows_say_where_each_image_lies(folder):
    split = imgdata.open(folder)["train"]
    row = split.index.row(6)
    data = (folder / row.shard).read_bytes()
    assert data[row.offset : row.offset + row.size] == split.read(6) == encoded(6, (38, 24))
    assert (row.width, row.height, row.mode, row.format, row.orientation, row.label) == (38, 24, "RGB", "jpeg", 1, 0)


def test_a_torch_loader_with_workers_reads_every_sample(folder):
    import torch

    split = imgdata.open(folder)["train"]
    split.read(0)
    loader = torch.utils.data.DataLoader(split, batch_size=4, num_workers=2, collate_fn=list)
    samples = [sample for batch in loader for sample in batch]
    assert [sample.key for sample in samples] == [f"train/{i:04d}" for i in range(12)]
    assert [sample.image for sample in samples] == [sample.image for sample in split]


def test_a_split_pickles_without_its_open_files_and_columns(folder):
    split = imgdata.open(folder)["train"]
    image = split.read(3)
    data = pickle.dumps(split)
    assert len(data) < 4000
    assert pickle.loads(data).read(3) == image


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_pipelines_see_the_same_samples(folder):
    split = imgdata.open(folder)["train"]
    pipeline = split.webdataset().decode("pil").to_tuple("jpg", "cls")
    found = [(image.size, label) for image, label in pipeline]
    rows = zip(split.index.width_N.tolist(), split.index.height_N.tolist(), split.index.label_N.tolist(), strict=True)
    assert found == [((width, height), label) for width, height, label in rows]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "no such folder"),
        (
            lambda path: path.mkdir(),
            "no dataset.json and no tars in it, so it is not sharded. As raw images: the folder is empty",
        ),
        (
            lambda path: (path / ".imgdata").mkdir(parents=True),
            "not finished; run the same `imgdata shard` command again",
        ),
        (lambda path: path.write_bytes(b""), "a file; give the folder that holds dataset.json"),
    ],
)
def test_what_is_no_finished_dataset_says_what_to_do(tmp_path, prepare, message):
    prepare(tmp_path / "x")
    with pytest.raises(ShardError, match=message):
        imgdata.open(tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "damaged.*`imgdata index"),
        (lambda text: text.replace('"version": 1', '"version": 4'), "version must be 1 to 3, got 4.*upgrade imgdata"),
        (lambda text: text.replace('"classes"', '"klasses"'), "damaged"),
        (lambda text: text.replace('"samples": 5', '"samples": 6'), "rows must be .* as dataset.json says, got"),
        (
            lambda text: text.replace("demo-val.index", "demo-vul.index"),
            "no such index; rebuild it with `imgdata index",
        ),
    ],
)
def test_a_damaged_dataset_file_is_named(own, change, message):
    path = own / "dataset.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ShardError, match=message):
        imgdata.open(own)


def test_a_damaged_index_is_named(own):
    (own / "demo-val.index.parquet").write_bytes(b"PAR1 no index")
    with pytest.raises(ShardError, match=r"demo-val\.index\.parquet: damaged index .*rebuild it with `imgdata index"):
        imgdata.open(own)


def test_an_index_of_other_columns_is_refused(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "x.index.parquet")
    with pytest.raises(ShardError, match=r"columns of an index must be \['key', 'shard'.*got \['key'\]"):
        Index(tmp_path / "x.index.parquet")
    with pytest.raises(ShardError, match="columns of an index must be"):
        write_index(tmp_path / "y.index.parquet", pa.table({"key": ["a"]}))
    assert not (tmp_path / "y.index.parquet").exists()


def test_a_missing_or_truncated_shard_is_named_when_it_is_read(own):
    split = imgdata.open(own)["train"]
    shard = split.shards[1]
    shard.write_bytes(shard.read_bytes()[:3000])
    assert split[0].key == "train/0000"
    with pytest.raises(
        ShardError, match=r"demo-train-000001\.tar: cut short at byte 3000, train/0006 ends at byte \d+"
    ):
        split[6]
    split.shards[2].unlink()
    with pytest.raises(ShardError, match=r"demo-train-000002\.tar: No such file"):
        split[11]


def test_changed_bytes_are_noticed_by_a_verified_read(own):
    split = imgdata.open(own)["val"]
    flip(split.shards[0], split.index.row(2).offset + 30)
    split.verified(1)
    with pytest.raises(ShardError, match=r"val/0002 at byte .* differs from the index"):
        split.verified(2)


def test_more_shards_than_open_files_are_read(own, monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (0, 0))
    monkeypatch.setattr("imgdata.storage.atomic.max", lambda *values: 1, raising=False)
    split = imgdata.open(own)["train"]
    assert [split[i].key for i in (0, 11, 6, 1)] == ["train/0000", "train/0011", "train/0006", "train/0001"]


def table(rows, chunks=1, dictionary=("b.tar", "a.tar")):
    """`rows` rows in the shards a.tar and b.tar, in `chunks` parts."""
    i = np.arange(rows)
    columns = {
        "key": pa.array([f"k{n}" for n in i.tolist()]),
        "shard": pa.DictionaryArray.from_arrays(pa.array((i % 2).astype(np.int32)), list(dictionary)),
        "offset": pa.array(i * 1024),
        "size": pa.array(i),
        "label": pa.array((i % 10).astype(np.int32)),
        "width": pa.array(np.full(rows, 64, np.int32)),
        "height": pa.array(np.full(rows, 48, np.int32)),
        "mode": pa.array(["RGB"] * rows).dictionary_encode(),
        "format": pa.array(["jpeg"] * rows).dictionary_encode(),
        "orientation": pa.array(np.ones(rows, np.uint8)),
        "xxh64": pa.array(i.astype(np.uint64) * np.uint64(2**50)),
        "source": pa.array([f"s{n}" for n in i.tolist()]),
    }
    whole = pa.table(columns, schema=INDEX_SCHEMA)
    size = -(-rows // chunks)
    return pa.concat_tables([whole.slice(start, size) for start in range(0, rows, size)])


@pytest.mark.parametrize("chunks", range(1, 8))
def test_index_files_are_the_same_bytes_however_the_rows_are_chunked(tmp_path, chunks):
    other = table(20, chunks).set_column(
        1, INDEX_SCHEMA.field("shard"), table(20, 1, ("b.tar", "a.tar", "c.tar"))["shard"]
    )
    write_index(tmp_path / "a", other)
    write_index(tmp_path / "b", table(20))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_index_gives_back_what_was_written(tmp_path):
    write_index(tmp_path / "x.index.parquet", table(30))
    index = Index(tmp_path / "x.index.parquet")
    assert len(index) == 30
    assert index.words("shard") == ["b.tar", "a.tar"]
    assert index.shard_N.tolist() == [0, 1] * 15
    assert index.xxh64_N.tolist() == [n * 2**50 for n in range(30)]
    assert index.row(29) == ("k29", "a.tar", 29 * 1024, 29, 9, 64, 48, "RGB", "jpeg", 1, 29 * 2**50, "s29")
    assert (index.find("k7"), index.find("nothing")) == (7, -1)
    with pytest.raises(ValueError, match="read-only"):
        index.label_N[0] = 5


def test_a_million_rows_open_without_an_object_for_each(tmp_path):
    write_index(tmp_path / "x.index.parquet", table(1_000_000))
    tracemalloc.start()
    try:
        index = Index(tmp_path / "x.index.parquet")
        assert len(index) == 1_000_000
        assert index.label_N[123_456] == 6
        # Labels are 4 bytes each; as objects of Python they would be 36 and more.
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


def test_the_summary_counts_what_is_there(folder):
    figures = json.loads(json.dumps(imgdata.inspect(folder).to_dict()))
    train = figures["splits"]["train"]
    assert (figures["samples"], figures["name"], figures["classes"][1]) == (17, "demo", ["1", "1"])
    assert (train["samples"], train["shards"], train["class_counts"]) == (12, 3, [4, 4, 4])
    assert train["bytes"] == sum(path.stat().st_size for path in folder.glob("demo-train-*.tar"))
    assert train["image_bytes"] == sum(len(encoded(i, (32 + i % 7, 24))) for i in range(12))
    assert train["formats"] == {"jpeg": 12}
    assert train["width"] == {"min": 32, "median": 34.5, "max": 38}
    assert train["shorter_side"] == {"0-31": 12}
    assert train["balance"]["ratio"] == 1
    assert (train["unlabelled"], train["rotated"]) == (0, 0)


@pytest.mark.parametrize(
    ("counts", "ratio", "effective", "evenness"),
    [
        ([5, 5, 5, 5], 1.0, 4.0, 1.0),
        ([90, 10], 9.0, 1.3841, 0.4690),
        ([7, 0], None, 1.0, 0.0),
        ([3], 1.0, 1.0, 1.0),
    ],
)
def test_balance_follows_hill_and_pielou(counts, ratio, effective, evenness):
    found = balance(counts)
    assert found.ratio == ratio
    assert found.effective_classes == pytest.approx(effective, abs=1e-4)
    assert found.evenness == pytest.approx(evenness, abs=1e-4)


def test_no_labels_have_no_balance():
    assert balance([]) is None
    assert balance([0, 0]) is None


def test_a_split_is_read_by_key_and_by_slice(tmp_path):
    split = imgdata.open(dataset(tmp_path / "keys"))["train"]
    assert split["train/0003"] == split[split.find("train/0003")]
    assert split[2:8:3] == [split[2], split[5]]
    assert split[-1:] == [split[len(split) - 1]]
    with pytest.raises(KeyError, match=r"no sample 'train/3' in split 'train'; near: .*train/0003"):
        split["train/3"]


def test_a_sample_shows_itself_in_short_and_as_a_picture(tmp_path):
    sample = imgdata.open(dataset(tmp_path / "shown"))["train"][0]
    assert repr(sample).startswith("<Sample train/")
    assert len(repr(sample)) < 200
    assert sample.array().shape == (sample.pil().height, sample.pil().width, 3)
    assert sample.array().dtype == np.uint8
    shown = sample._repr_mimebundle_()
    assert base64.b64decode(shown[{"jpeg": "image/jpeg", "png": "image/png"}[sample.format]]) == sample.image
    with pytest.raises(ImageError, match=r"corrupt: .*k"):
        replace(sample, key="k", image=b"?").pil()
