"""Folders of Streaming (MDS) and LitData: what these packages wrote, damaged copies, further columns.

The folders in tests/sources/files were written by `streaming.MDSWriter` 0.13 and `litdata.optimize` 0.2.76.
"""

import json
import shutil
import struct
from pathlib import Path

import pytest

import imgdata
from imgdata.errors import SourceError
from imgdata.shards import begun
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from support.loose import assert_the_same_in_place, samples
from support.rawdata import encoded

WRITTEN = Path(__file__).parent / "files"
NAMES = ("mds_plain", "mds_zstd", "mds_bytes", "litdata_bytes", "litdata_jpeg")


def listed(path, **options):
    return list_source(path, SourceOptions(**options))


def contents(listing):
    return [listing.reader.read(ref) for ref in listing.refs(range(len(listing)))]


@pytest.mark.parametrize(
    ("name", "classes", "labels", "fields"),
    [
        ("mds_plain", ["0", "1"], [0, 1, 0, 1, 0], {"caption": "c1", "k": 1, "meta": {"a": 1}, "score": 0.5}),
        ("mds_zstd", ["0", "1"], [0, 1, 0, 1, 0], {"caption": "c1", "k": 1, "meta": {"a": 1}, "score": 0.5}),
        ("mds_bytes", ["a", "b"], [0, 1, 0], {"id": 1}),
        ("litdata_bytes", ["0", "1"], [0, 1, 0, 1, 0], {"caption": "c1"}),
        ("litdata_jpeg", ["0", "1"], [0, 1, 0, 1, 0], None),
    ],
)
def test_what_the_packages_wrote_is_read(name, classes, labels, fields):
    listing = listed(WRITTEN / name)
    assert (listing.kind, listing.splits) == (name.split("_")[0], ("train",))
    assert [one.id for one in listing.classes] == classes
    assert listing.label_N.tolist() == labels
    assert (json.loads(listing.fields_N[1].as_py()) if listing.fields_N else None) == fields
    images = contents(listing)
    assert [len(data) for data in images] == listing.size_N.tolist()
    assert all(data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9") for data in images)
    assert len(set(images)) == len(labels)


def test_packed_and_plain_shards_hold_the_same_images():
    plain, packed = listed(WRITTEN / "mds_plain"), listed(WRITTEN / "mds_zstd")
    assert contents(plain) == contents(packed)
    assert plain.key_N.to_pylist() == packed.key_N.to_pylist()


def test_the_two_packages_hold_the_same_images():
    assert contents(listed(WRITTEN / "mds_bytes")) == contents(listed(WRITTEN / "litdata_bytes"))[:3]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_opened_in_place(tmp_path, name):
    assert_the_same_in_place(WRITTEN / name, tmp_path / "out")


def test_large_packed_shards_are_copied_out_first(tmp_path, monkeypatch):
    imgdata.shard(WRITTEN / "mds_zstd", tmp_path / "plain")
    monkeypatch.setattr(begun, "SPOOL_BYTES", 0)
    imgdata.shard(WRITTEN / "mds_zstd", tmp_path / "copied")
    plain, copy = imgdata.open(tmp_path / "plain"), imgdata.open(tmp_path / "copied")
    assert samples(plain["train"]) == samples(copy["train"])


@pytest.mark.parametrize("name", NAMES)
def test_folders_are_splits_and_files_beside_are_counted(tmp_path, name):
    for split in ("train", "val"):
        shutil.copytree(WRITTEN / name, tmp_path / "photos" / split)
    (tmp_path / "photos" / "val" / "notes.txt").write_text("x")
    listing = listed(tmp_path / "photos")
    assert listing.splits == ("train", "val")
    assert listing.skipped == {"other files beside these": 1}
    assert len(listing) == 2 * len(listed(WRITTEN / name))


def test_samples_that_are_tuples_have_their_image_and_label_by_position(tmp_path):
    folder = shutil.copytree(WRITTEN / "litdata_jpeg", tmp_path / "photos")
    index = json.loads((folder / "index.json").read_text())
    leaf = {"type": None, "context": None, "children_spec": []}
    index["config"]["data_spec"] = json.dumps(
        [1, {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, leaf]}]
    )
    (folder / "index.json").write_text(json.dumps(index))
    assert listed(folder).label_N.tolist() == [0, 1, 0, 1, 0]


def change(**values):
    def damage(folder):
        text = json.loads((folder / "index.json").read_text())
        (text["shards"][1] if "shards" in text else text["config"]).update(values)
        (folder / "index.json").write_text(json.dumps(text))

    return damage


def second(folder: Path) -> Path:
    return sorted(file for file in folder.iterdir() if file.name != "index.json")[1]


def cut(folder):
    second(folder).write_bytes(second(folder).read_bytes()[:-10])


def overwrite(at: int, number: int):
    def damage(folder):
        data = bytearray(second(folder).read_bytes())
        data[at : at + 4] = struct.pack("<I", number)
        second(folder).write_bytes(data)

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "fault"),
    [
        *((name, lambda folder: second(folder).unlink(), "missing, though") for name in NAMES if name != "mds_bytes"),
        *((name, cut, "cut short or changed") for name in ("mds_plain", "litdata_bytes")),
        ("mds_zstd", cut, "cut short or damaged"),
        ("mds_plain", overwrite(0, 7), r"damaged: must have 2 samples"),
        ("mds_plain", overwrite(4, 2**31), r"damaged at sample 0: its place"),
        ("litdata_bytes", overwrite(4, 0), r"damaged at sample 0: its place"),
        ("litdata_bytes", overwrite(16, 9), r"damaged at sample 0: its columns"),
        ("mds_plain", lambda folder: (folder / "index.json").write_text("{"), "can't read this file"),
        ("mds_plain", change(samples="2"), "samples must be of type int"),
        ("mds_plain", change(raw_data={"basename": "../x", "bytes": 3}), "no plain name"),
        ("mds_plain", change(column_names=["a"]), "differ in number"),
        ("mds_plain", change(format="xyz"), "another format"),
        ("mds_zstd", change(compression="br:11"), "packed with br, which isn't read"),
        ("litdata_bytes", change(compression="zstd"), r"chunks with compression \(zstd\)"),
        ("litdata_bytes", change(encryption={"a": 1}), "chunks with encryption"),
        ("litdata_bytes", change(item_loader="TokensLoader"), "hold no samples of images"),
        ("litdata_bytes", change(data_format=["pil", "int", "str"]), "no column holds an encoded image"),
        ("litdata_bytes", change(data_spec="{}"), "each sample must be a dictionary"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(tmp_path, name, damage, fault):
    folder = shutil.copytree(WRITTEN / name, tmp_path / "photos")
    damage(folder)
    with pytest.raises(SourceError, match=fault):
        listed(folder)


def test_columns_of_arrays_are_left_out_with_a_note(tmp_path):
    image = encoded(1)
    sample = struct.pack("<2I", 3, len(image)) + b"xyz" + image + struct.pack("<q", 5)
    start = 4 + 8
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "shard.00000.mds").write_bytes(struct.pack("<3I", 1, start, start + len(sample)) + sample)
    shard = {
        "format": "mds",
        "samples": 1,
        "raw_data": {"basename": "shard.00000.mds", "bytes": start + len(sample)},
        "column_names": ["array", "image", "label"],
        "column_encodings": ["ndarray", "jpeg", "int"],
        "column_sizes": [None, None, 8],
    }
    (folder / "index.json").write_text(json.dumps({"shards": [shard], "version": 2}))
    listing = listed(folder)
    assert "columns array hold no plain values and are left out" in listing.warnings
    assert [one.id for one in listing.classes] == ["5"]
