"""What `imgdata.shard` writes: members, order, sizes, sidecars; and when it refuses."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import imgdata
from imgdata import Encoding, ShardOptions
from imgdata.order.epoch_order import permutation
from imgdata.shards import plan
from support.rawdata import class_folders, encoded


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 12, "val": 4})


@pytest.fixture(scope="module")
def finished(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    imgdata.shard(raw, out, ShardOptions(shard_samples=10), workers=1)
    return out


def members_of(tar):
    with tarfile.open(tar) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def samples_of(folder, split):
    return [member for tar in sorted(folder.glob(f"*-{split}-*.tar")) for member in members_of(tar)]


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_the_folder_holds_the_shards_and_every_sidecar_and_nothing_else(finished):
    assert sorted(path.name for path in finished.iterdir()) == [
        "README.md",
        "_info.json",
        "croissant.json",
        "dataset.json",
        "pets-train-000000.idx",
        "pets-train-000000.tar",
        "pets-train-000001.idx",
        "pets-train-000001.tar",
        "pets-train-000002.idx",
        "pets-train-000002.tar",
        "pets-train-000003.idx",
        "pets-train-000003.tar",
        "pets-train.index.parquet",
        "pets-train.wids.json",
        "pets-val-000000.idx",
        "pets-val-000000.tar",
        "pets-val-000001.idx",
        "pets-val-000001.tar",
        "pets-val.index.parquet",
        "pets-val.wids.json",
    ]


def test_every_image_is_there_once_with_its_bytes_and_the_label_of_its_folder(raw, finished):
    # A key occurs in one split alone.
    for split, again in (("train", ""), ("val", "-1")):
        members = samples_of(finished, split)
        found = {
            name[: -len(".jpg")]: (data, int(members[i - 1][1]))
            for i, (name, data) in enumerate(members)
            if name.endswith(".jpg")
        }
        expected = {
            path.relative_to(raw / split).with_suffix("").as_posix() + again: (path.read_bytes(), label)
            for label, name in enumerate(("cat", "dog", "newt"))
            for path in (raw / split / name).iterdir()
        }
        assert found == expected


def test_tar_itself_lists_the_members_of_a_sample_next_to_each_other(finished):
    listed = subprocess.run(["tar", "tf", finished / "pets-val-000000.tar"], capture_output=True, text=True, check=True)
    names = listed.stdout.splitlines()
    assert names[:4] == ["cat/000-1.cls", "cat/000-1.jpg", "cat/001-1.cls", "cat/001-1.jpg"]
    assert len(names) == 20


def test_index_points_at_the_bytes_of_each_image(raw, finished):
    for split in imgdata.open(finished).splits.values():
        for position in range(len(split)):
            row = split.index.row(position)
            data = (raw / row.source).read_bytes()
            tar = (finished / row.shard).read_bytes()
            assert tar[row.offset : row.offset + row.size] == data
            assert (row.width, row.height) == Image.open(io.BytesIO(data)).size
            assert (row.mode, row.format, row.orientation) == ("RGB", "jpeg", 1)


def test_dali_index_states_the_first_data_byte_of_every_member(finished):
    lines = (finished / "pets-val-000001.idx").read_text().splitlines()
    tar = (finished / "pets-val-000001.tar").read_bytes()
    assert lines[0] == "v1.2 2"
    for line in lines[1:]:
        words = line.split()
        for extension, offset, size, name in zip(*(iter(words),) * 4, strict=True):
            header = tar[int(offset) - 512 : int(offset)]
            assert header.split(b"\0", 1)[0] == name.encode()
            assert int(header[124:135], 8) == int(size)
            assert name.endswith("." + extension)


def test_train_is_shuffled_and_val_keeps_its_order(finished):
    labels = {name: imgdata.open(finished)[name].index.label_N.tolist() for name in ("train", "val")}
    assert labels["val"] == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(labels["train"]) == [0] * 12 + [1] * 12 + [2] * 12
    assert labels["train"] != sorted(labels["train"])


def test_no_shuffle_keeps_the_order_of_the_source(raw, tmp_path):
    imgdata.shard(raw, tmp_path / "o", ShardOptions(shuffle=False), workers=1)
    assert imgdata.open(tmp_path / "o")["train"].index.label_N.tolist() == [0] * 12 + [1] * 12 + [2] * 12


def test_the_seed_decides_the_order(raw, tmp_path):
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        imgdata.shard(raw, tmp_path / name, ShardOptions(seed=seed), workers=1)
        orders.append(imgdata.open(tmp_path / name)["train"].index.column("key").to_pylist())
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@settings(max_examples=50)
@given(st.integers(0, 2000), st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1))
def test_permutation_holds_each_position_once_and_depends_on_its_arguments_alone(num_samples, seed, stream):
    order = permutation(num_samples, seed=seed, stream=stream)
    assert np.array_equal(np.sort(order), np.arange(num_samples))
    assert np.array_equal(order, permutation(num_samples, seed=seed, stream=stream))


def test_permutations_of_neighbouring_streams_differ_however_large_the_numbers():
    orders = {tuple(permutation(50, seed=s, stream=2**64 - n)) for s in (2**62, 2**62 + 1) for n in (1, 2)}
    assert len(orders) == 4


def test_permutation_never_changes_between_versions():
    assert permutation(8, seed=7, stream=1).tolist() == [3, 1, 6, 2, 5, 4, 0, 7]


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(resize=32, quality=80), Encoding(format="png")])
def test_bytes_do_not_depend_on_the_number_of_workers(raw, tmp_path, encoding):
    options = ShardOptions(shard_samples=5, encoding=encoding)
    imgdata.shard(raw, tmp_path / "one", options, workers=1)
    imgdata.shard(raw, tmp_path / "three", options, workers=3)
    assert digests(tmp_path / "one") == digests(tmp_path / "three")


def test_bytes_do_not_depend_on_the_order_of_the_file_system(raw, tmp_path):
    copy = tmp_path / "elsewhere" / "pets"
    for path in sorted(raw.rglob("*.jpg"), reverse=True):
        target = copy / path.relative_to(raw)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    imgdata.shard(raw, tmp_path / "a", workers=1)
    imgdata.shard(copy, tmp_path / "b", workers=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.parametrize("shard_bytes", [10_240, 30_000, 100_000])
def test_no_shard_is_larger_than_asked(raw, tmp_path, shard_bytes):
    imgdata.shard(raw, tmp_path / "o", ShardOptions(shard_bytes=shard_bytes), workers=1)
    sizes = [path.stat().st_size for path in (tmp_path / "o").glob("*.tar")]
    assert max(sizes) <= shard_bytes


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(10_240, 40_000))
def test_shards_are_as_few_as_the_size_allows_and_as_even_as_can_be(sizes, shard_bytes):
    sample_N = np.array(sizes) * 10
    start_K = plan.cut(sample_N, ShardOptions(shard_bytes=shard_bytes))
    shards = [part.sum() for part in np.split(sample_N, start_K[1:])]
    room = shard_bytes - 1024
    filled = []
    for size in sample_N:
        if not filled or filled[-1] + size > room:
            filled.append(0)
        filled[-1] += size
    assert start_K[0] == 0
    assert len(shards) == len(filled)
    assert all(shard <= max(room, sample_N.max()) for shard in shards)
    # One byte less, and another shard would be needed: some shard is as large as the fullest must be.
    assert max(shards) <= max(filled)


def test_json_members_hold_source_size_and_class(raw, tmp_path):
    imgdata.shard(raw, tmp_path / "o", ShardOptions(json_members=True), workers=1)
    sample = imgdata.open(tmp_path / "o")["val"][5]
    assert sample.fields == {
        "source": "val/dog/001.jpg",
        "width": Image.open(io.BytesIO(sample.image)).width,
        "height": 48,
        "class_id": "dog",
        "class_name": "dog",
    }
    names = [name for name, _ in members_of(tmp_path / "o" / "pets-val-000000.tar")]
    assert names[:3] == ["cat/000-1.cls", "cat/000-1.jpg", "cat/000-1.json"]


@pytest.mark.parametrize(
    ("encoding", "size", "format"),
    [
        ({"resize": 24}, (24, 32), "jpeg"),
        ({"resize": 24, "resize_mode": "longer"}, (18, 24), "jpeg"),
        ({"resize": 24, "resize_mode": "exact"}, (24, 24), "jpeg"),
        ({"resize": 96}, (48, 64), "jpeg"),
        ({"resize": 96, "upscale": True}, (96, 128), "jpeg"),
        ({"format": "png"}, (48, 64), "png"),
        pytest.param({"format": "webp", "resize": 24}, (24, 32), "webp", marks=pytest.mark.webp),
    ],
)
def test_resize_and_format_set_what_is_stored(tmp_path, encoding, size, format):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.jpg").write_bytes(encoded(1, (48, 64)))
    imgdata.shard(tmp_path / "in", tmp_path / "o", ShardOptions(encoding=Encoding(**encoding)), workers=1)
    sample = imgdata.open(tmp_path / "o")["train"][0]
    stored = Image.open(io.BytesIO(sample.image))
    assert stored.size == size
    assert stored.format.lower() == sample.format == format


def test_fractions_cut_a_source_without_splits(tmp_path):
    raw = class_folders(tmp_path / "raw", {"": 20})
    imgdata.shard(raw, tmp_path / "o", ShardOptions(split={"train": 0.8, "val": 0.2}), workers=1)
    dataset = imgdata.open(tmp_path / "o")
    assert {name: np.bincount(split.index.label_N).tolist() for name, split in dataset.items()} == {
        "train": [16, 16, 16],
        "val": [4, 4, 4],
    }


def test_fractions_are_refused_where_the_source_has_splits(raw, tmp_path):
    with pytest.raises(imgdata.OptionError, match="splits of its own"):
        imgdata.shard(raw, tmp_path / "o", ShardOptions(split={"train": 0.8, "val": 0.2}))
    assert not (tmp_path / "o").exists()


def test_the_same_call_again_has_nothing_to_do(raw, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    summary = imgdata.shard(raw, finished, ShardOptions(shard_samples=10))
    assert summary.already_complete
    assert summary.samples == 48
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_other_options_on_the_same_folder_are_refused_with_the_difference(raw, finished):
    options = ShardOptions(shard_samples=10, seed=3, encoding=Encoding(quality=50))
    with pytest.raises(imgdata.OutputError, match=r"quality: 90 -> 50; seed: 0 -> 3"):
        imgdata.shard(raw, finished, options)


def test_a_changed_source_is_refused(tmp_path):
    raw = class_folders(tmp_path / "raw", {"": 2})
    imgdata.shard(raw, tmp_path / "o", workers=1)
    (raw / "cat" / "new.jpg").write_bytes(encoded(99))
    with pytest.raises(imgdata.OutputError, match="its list of images has changed"):
        imgdata.shard(raw, tmp_path / "o", workers=1)


def test_overwrite_replaces_the_dataset_and_leaves_other_files_alone(tmp_path):
    raw = class_folders(tmp_path / "raw", {"": 4})
    imgdata.shard(raw, tmp_path / "o", ShardOptions(shard_samples=2, name="first"), workers=1)
    (tmp_path / "o" / "notes.txt").write_text("mine")
    imgdata.shard(raw, tmp_path / "o", ShardOptions(name="second"), workers=1, overwrite=True)
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert "notes.txt" in names
    assert not any(name.startswith("first") for name in names)
    assert len(imgdata.open(tmp_path / "o")["train"]) == 12


def test_a_folder_with_something_else_in_it_is_refused(raw, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(imgdata.OutputError, match="not empty, and not made by imgdata"):
        imgdata.shard(raw, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_the_plan_says_what_will_be_written_and_writes_nothing(raw, tmp_path):
    options = ShardOptions(shard_samples=10)
    described = imgdata.plan_shards(raw, options)
    summary = imgdata.shard(raw, tmp_path / "o", options, workers=1)
    assert {name: (s["samples"], s["shards"], s["bytes"]) for name, s in described["splits"].items()} == {
        name: (s["samples"], s["shards"], s["bytes"]) for name, s in summary.splits.items()
    }
    assert described["seconds"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard_bytes": 10}, "shard size must be at least"),
        ({"shard_samples": 0}, "samples per shard must be at least 1"),
        ({"name": "a b"}, "name must be"),
        ({"seed": -1}, "seed must be"),
        ({"max_pixels": 0}, "max pixels must be"),
        ({"check": "none", "on_bad": "repair"}, "can't be combined"),
    ],
)
def test_options_without_a_meaning_are_refused_when_they_are_built(settings, message):
    with pytest.raises(imgdata.OptionError, match=message):
        ShardOptions(**settings)


def test_options_stand_in_the_manifest(finished):
    options = json.loads((finished / "dataset.json").read_text())["options"]
    assert options["shard_samples"] == 10
    # These only where they are given, as in folders that were written before there were any.
    seldom = {"views", "crop_ready", "strip", "hash", "key_prefix"}
    assert set(options) >= {f.name for f in dataclasses.fields(ShardOptions)} - {"encoding"} - seldom
    assert seldom.isdisjoint(options)


def test_formats_that_readers_do_not_take_become_png_without_loss(tmp_path):
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    (folder / "0.bmp").write_bytes(encoded(1, format="BMP"))
    (folder / "1.tiff").write_bytes(encoded(2, format="TIFF"))
    imgdata.shard(tmp_path / "in", tmp_path / "o", ShardOptions(shuffle=False), workers=1)
    for sample, name in zip(imgdata.open(tmp_path / "o")["train"], ("0.bmp", "1.tiff"), strict=True):
        assert sample.format == "png"
        assert np.array_equal(Image.open(io.BytesIO(sample.image)), Image.open(folder / name))


def test_the_source_folder_itself_is_no_output(raw):
    with pytest.raises(imgdata.OutputError, match="is the source itself"):
        imgdata.shard(raw, Path(raw))


def test_sharding_and_reading_import_neither_torch_nor_pandas(raw, tmp_path):
    # Both take longer to import than a small dataset takes to write.
    script = (
        "import sys, imgdata; imgdata.shard(sys.argv[1], sys.argv[2], workers=1); "
        "imgdata.open(sys.argv[2])['train'][0];"
        "print([name for name in ('torch', 'pandas', 'webdataset') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, raw, tmp_path / "o"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
