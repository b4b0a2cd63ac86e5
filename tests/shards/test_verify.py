"""`imgdata.verify` finds what was changed, and names shard, key and byte."""

import dataclasses
import errno
import io
import json
import os
import re
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import imgdata
from imgdata import Fault, ShardOptions
from imgdata.dataset.manifest import read_manifest
from imgdata.errors import ShardError
from imgdata.tar.archive import BLOCK, members
from support.pictures import bomb
from support.rawdata import class_folders
from support.tars import dataset, flip, pairs, write_tar

TAR = "demo-train-000001.tar"


@pytest.fixture
def folder(tmp_path):
    return dataset(tmp_path / "out", json=True)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    raw = class_folders(root / "pets", {"train": 3})
    (raw / "train" / "cat" / "bad.jpg").write_bytes(b"<html>")
    imgdata.shard(raw, root / "out", ShardOptions(shard_samples=5, json_members=True), workers=1)
    return root / "out"


def member(path, name):
    return next(found for found in members(path) if found.name == name)


@pytest.mark.parametrize("deep", [False, True])
def test_a_dataset_as_it_was_written_has_no_faults(folder, sharded, deep):
    calls = []
    assert imgdata.verify(folder, deep=deep, progress=lambda *counts: calls.append(counts)) == []
    assert calls == [(i, 4) for i in range(1, 5)]
    assert imgdata.verify(sharded, deep=deep, workers=1) == []


@pytest.mark.parametrize(
    ("name", "inside", "what"),
    [
        ("train/0006.jpg", 40, "image differs from the one indexed"),
        ("train/0006.cls", 0, r"label is \d+ in the tar, 0 in the index|must be a decimal number"),
        ("train/0006.json", 3, "json member differs"),
    ],
)
def test_a_flipped_byte_is_named_by_shard_key_and_member(folder, name, inside, what):
    place = member(folder / TAR, name)
    flip(folder / TAR, place.offset + inside)
    (fault,) = imgdata.verify(folder)
    assert (fault.shard, fault.key, fault.byte) == (TAR, "train/0006", place.offset)
    assert re.search(what, fault.what)


@pytest.mark.parametrize("name", ["train/0006.jpg", "train/0006.cls", "train/0006.json", "train/0009.jpg"])
def test_a_damaged_header_is_named_and_the_rest_still_checked(folder, name):
    header = member(folder / TAR, name).offset - BLOCK
    image = member(folder / TAR, "train/0008.jpg").offset
    flip(folder / TAR, header + 130)
    flip(folder / TAR, image + 50)
    faults = imgdata.verify(folder)
    places = [(fault.key, fault.byte) for fault in faults]
    assert (name.split(".")[0], header) in places
    assert ("train/0008", image) in places
    assert len(faults) == 2


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_flipped_byte_of_our_shards_is_found_with_the_byte_or_its_member(sharded, data):
    tar = sharded / "pets-train-000000.tar"
    original = tar.read_bytes()
    byte = data.draw(st.integers(0, len(original) - 1))
    try:
        flip(tar, byte)
        faults = imgdata.verify(sharded, workers=1)
    finally:
        tar.write_bytes(original)
    assert faults
    assert {fault.shard for fault in faults} == {tar.name}
    start, end, key = next(
        (
            (found.offset - BLOCK, found.offset + -(-found.size // BLOCK) * BLOCK, found.name.rsplit(".", 1)[0])
            for found in members(tar)
            if found.offset - BLOCK <= byte < found.offset + -(-found.size // BLOCK) * BLOCK
        ),
        (len(original) - 2 * BLOCK, len(original), ""),
    )
    assert any(start <= fault.byte <= byte < end and fault.key in (key, "") for fault in faults)


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (lambda tar: (m := member(tar, "cat/000.jpg")).offset + m.size + 3, "padding is not zero"),
        (lambda tar: tar.stat().st_size - 2, "end of the archive is not zero"),
    ],
)
def test_bytes_that_no_reader_uses_are_named_exactly(sharded, place, what):
    tar = next(path for path in sorted(sharded.glob("*.tar")) if any(m.name == "cat/000.jpg" for m in members(path)))
    original, byte = tar.read_bytes(), place(tar)
    try:
        flip(tar, byte)
        (fault,) = imgdata.verify(sharded)
    finally:
        tar.write_bytes(original)
    assert (fault.shard, fault.byte, fault.what) == (tar.name, byte, what)


def test_a_shard_cut_short_is_named_with_the_first_image_that_is_lost(folder):
    path = folder / TAR
    size = path.stat().st_size
    place = member(path, "train/0007.jpg")
    path.write_bytes(path.read_bytes()[: place.offset + 10])
    cut, lost = imgdata.verify(folder)
    assert (cut.shard, cut.byte, cut.what) == (
        TAR,
        place.offset + 10,
        f"cut short: {place.offset + 10} bytes, must be {size}",
    )
    assert (lost.key, lost.byte) == ("train/0007", place.offset)
    assert "and 2 more do" in lost.what


def test_bytes_behind_the_end_are_found(folder):
    size = (folder / TAR).stat().st_size
    with open(folder / TAR, "ab") as file:
        file.write(b"x" * 700)
    long, tail = imgdata.verify(folder)
    assert (long.byte, long.what.split(":")[0]) == (size, "too long")
    assert (tail.byte, tail.what) == (size, "end of the archive is not zero")


def test_missing_and_extra_files_are_named(folder):
    (folder / TAR).unlink()
    (folder / "demo-train-000002.idx").unlink()
    write_tar(folder / "other.tar", pairs(1))
    (folder / "other.idx").write_text("v1.2 0\n")
    found = {(fault.shard, fault.what.split(";")[0]) for fault in imgdata.verify(folder)}
    assert found == {
        (TAR, "can't be read: No such file or directory"),
        ("demo-train-000002.idx", "missing"),
        ("other.tar", "not listed in dataset.json"),
        ("other.idx", "not listed in dataset.json"),
    }


@pytest.mark.parametrize(
    ("name", "damage", "what"),
    [
        ("_info.json", lambda data: data.replace(b'"num_samples": 5', b'"num_samples": 6'), "not as it was written"),
        ("_info.json", lambda data: data[:50], "not as it was written"),
        ("_info.json", None, "missing"),
        ("demo-val.wids.json", lambda data: data.replace(b"5", b"4", 1), "not as it was written"),
        ("croissant.json", lambda data: data.replace(b"sc:Text", b"sc:Test", 1), "not as it was written"),
        ("croissant.json", lambda data: b"[]", "not as it was written"),
        ("README.md", None, "missing; rebuild the sidecars"),
        ("dataset.json", lambda data: data.replace(b'"label_from": "cls"\n', b'"label_from": "c"\n'), "changed since"),
        ("demo-val.index.parquet", None, "missing"),
        ("demo-val.index.parquet", lambda data: data[:-20] + b"?" * 20, "sha256 is .* must be|damaged index"),
        ("demo-val-000000.idx", lambda data: data.replace(b"val/0003", b"val/0004"), "line 5 is not what the tar has"),
    ],
)
def test_a_damaged_sidecar_is_named(folder, name, damage, what):
    path = folder / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    faults = imgdata.verify(folder)
    assert {fault.shard for fault in faults} == {name}
    assert all(fault.serious for fault in faults)
    assert any(re.search(what, fault.what) for fault in faults)


def test_the_list_of_what_was_left_out_is_checked_too(sharded):
    path = sharded / "rejects.jsonl"
    original = path.read_bytes()
    try:
        flip(path, 20)
        (changed,) = imgdata.verify(sharded)
        path.unlink()
        (missing,) = imgdata.verify(sharded)
    finally:
        path.write_bytes(original)
    assert str(changed) == "rejects.jsonl: not as it was written; copy it again"
    assert str(missing) == "rejects.jsonl: missing; copy it again"


def test_a_changed_sidecar_is_named_with_the_first_byte_that_differs(folder):
    flip(folder / "croissant.json", 700)
    (fault,) = imgdata.verify(folder)
    assert (fault.shard, fault.byte) == ("croissant.json", 700)


def test_an_edited_card_is_told_and_is_no_damage(folder):
    card = folder / "README.md"
    size = card.stat().st_size
    card.write_bytes(card.read_bytes() + b"\nLicence: ask the photographers.\n")
    (fault,) = imgdata.verify(folder)
    assert not fault.serious
    assert str(fault) == f"README.md byte {size}: edited since it was written; no reader depends on it"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_flipped_bit_of_any_sidecar_is_found(sharded, data):
    path = data.draw(st.sampled_from(sorted(path for path in sharded.iterdir() if path.suffix != ".tar")))
    original = path.read_bytes()
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(changed)
        faults = imgdata.verify(sharded, workers=1)
    except ShardError as error:
        faults = [Fault(path.name, "", -1, str(error))] if f"{path}: " in str(error) else []
    finally:
        path.write_bytes(original)
    assert path.name in {fault.shard for fault in faults}
    assert any(fault.serious for fault in faults) == (path.name != "README.md")


def test_the_file_of_the_dataset_stands_for_its_folder(folder):
    assert imgdata.verify(folder / "dataset.json") == []


def test_an_index_of_another_dataset_is_found_even_with_the_right_hash(folder, tmp_path):
    other = dataset(tmp_path / "other", {"train": 12, "val": 4})
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["splits"]["val"]["index_sha256"] = json.loads((other / "dataset.json").read_text())["splits"]["val"][
        "index_sha256"
    ]
    (folder / "dataset.json").write_text(json.dumps(manifest))
    (folder / "demo-val.index.parquet").write_bytes((other / "demo-val.index.parquet").read_bytes())
    what = " ".join(str(fault) for fault in imgdata.verify(folder))
    assert "demo-val.index.parquet: 4 rows, must be 5" in what
    assert "rows of demo-val-000000.tar are not where they must be" in what


def rewrite(tar, change):
    """The tar again with its members' headers changed, everything in its place."""
    with tarfile.open(tar) as archive:
        files = [(info, archive.extractfile(info).read()) for info in archive]
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in files:
            archive.addfile(change(info), io.BytesIO(data))


def test_a_renamed_sample_is_named_with_its_key_in_the_index(tmp_path):
    tar = write_tar(tmp_path / "x-train-0.tar", pairs(4))
    imgdata.index(tmp_path)
    image = member(tar, "s0002.jpg").offset
    rewrite(tar, lambda info: info.replace(name=info.name.replace("s0002", "other")))
    (fault,) = (fault for fault in imgdata.verify(tmp_path) if fault.shard == tar.name)
    assert (fault.key, fault.byte) == ("s0002", image - BLOCK)
    assert fault.what == "key is 'other' in the tar, 's0002' in the index"


def test_samples_that_were_added_or_taken_away_are_named(tmp_path):
    tar = write_tar(tmp_path / "x-train-0.tar", pairs(4))
    imgdata.index(tmp_path)
    write_tar(tar, [*pairs(3), ("new.jpg", b"1"), ("new.cls", b"0")])
    found = {(fault.key, fault.what) for fault in imgdata.verify(tmp_path)}
    assert ("new", "sample is not in the index") in found or (
        "s0003",
        "key is 'new' in the tar, 's0003' in the index",
    ) in found


def test_headers_written_anew_are_noticed_though_every_sample_is_intact(sharded):
    tar = sharded / "pets-train-000000.tar"
    original = tar.read_bytes()
    try:
        rewrite(tar, lambda info: info.replace(mtime=1))
        tar.write_bytes(tar.read_bytes()[: len(original)])
        (fault,) = imgdata.verify(sharded)
    finally:
        tar.write_bytes(original)
    # The time field of the first header.
    assert (fault.shard, fault.byte, fault.what) == (tar.name, 146, "header is not as it was written")


def test_deep_decodes_what_the_index_calls_intact(tmp_path):
    files = pairs(3)
    broken = files[2][1][:300]
    files[2] = (files[2][0], broken)
    write_tar(tmp_path / "x-train-0.tar", [*files, ("z.jpg", b"<html>"), ("z.cls", b"0")])
    imgdata.index(tmp_path)
    assert imgdata.verify(tmp_path) == []
    faults = imgdata.verify(tmp_path, deep=True)
    assert [fault.key for fault in faults] == ["s0001", "z"]
    assert "can't be decoded: truncated" in faults[0].what
    assert "can't be decoded: not-an-image" in faults[1].what


def test_deep_does_not_decode_what_is_larger_than_allowed(tmp_path):
    write_tar(tmp_path / "x-train-0.tar", [*pairs(1), ("z.png", bomb()), ("z.cls", b"0")])
    imgdata.index(tmp_path)
    (fault,) = imgdata.verify(tmp_path, deep=True)
    assert fault.key == "z"
    assert "too-large: 60000 x 60000 pixels, the limit is 200000000" in fault.what


def test_deep_applies_the_limit_that_the_dataset_was_made_with(folder):
    manifest = read_manifest(folder)
    limited = dataclasses.replace(manifest, options={**manifest.options, "max_pixels": 35 * 24})
    (folder / "dataset.json").write_bytes(limited.to_bytes())
    assert imgdata.verify(folder) == []
    faults = imgdata.verify(folder, deep=True)
    # Widths are 32 to 38.
    assert [fault.key for fault in faults] == [
        f"{split}/{i:04d}" for split, count in (("train", 12), ("val", 5)) for i in range(count) if i % 7 > 3
    ]
    assert all("too-large" in fault.what for fault in faults)


def test_labels_from_other_members_are_compared_too(tmp_path):
    files = [
        (name.replace(".cls", ".txt"), {b"0": b"ant", b"1": b"bee", b"2": b"cow"}.get(data, data))
        for name, data in pairs(4)
    ]
    tar = write_tar(tmp_path / "x-train-0.tar", files)
    imgdata.index(tmp_path)
    assert imgdata.verify(tmp_path) == []
    place = member(tar, "s0001.txt")
    flip(tar, place.offset)
    (fault,) = imgdata.verify(tmp_path)
    assert (fault.key, fault.byte, fault.what) == ("s0001", place.offset, "label is 'cee' in the tar, 1 in the index")


def test_an_unfinished_folder_is_refused(tmp_path):
    (tmp_path / ".imgdata").mkdir()
    with pytest.raises(ShardError, match="not finished"):
        imgdata.verify(tmp_path)


def test_a_fault_reads_as_one_line(folder):
    place = member(folder / TAR, "train/0006.jpg")
    flip(folder / TAR, place.offset + 1)
    (fault,) = imgdata.verify(folder)
    assert str(fault).startswith(f"{TAR} byte {place.offset} key train/0006: image differs")
    assert io.StringIO(str(fault)).readlines() == [str(fault)]


def test_a_dataset_json_that_can_not_be_read_any_more_is_named(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("imgdata.shards.verify.read_file", fail)
    assert "dataset.json: can't be read: Input/output error" in [str(fault) for fault in imgdata.verify(folder)]


def test_an_index_that_can_not_be_read_now_is_not_called_damaged_nor_replaced(folder, monkeypatch):
    def fail(*_, **options):
        raise OSError(errno.EIO, "Error reading bytes from file")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("imgdata.dataset.index.pq.ParquetFile", fail)
    said = [str(fault) for fault in imgdata.verify(folder)]
    assert any(text.endswith("index.parquet: can't be read: Input/output error") for text in said)
    # Names of the raw dataset are in the old index alone.
    with pytest.raises(imgdata.ShardError, match=r"index\.parquet: can't be read: Input/output error$"):
        imgdata.index(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
