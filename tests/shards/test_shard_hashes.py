"""The hash of a whole shard, `--hash`: which bytes it changes, what `verify`, `index` and a resume make of it."""

import hashlib
import json

import pytest
import xxhash
from imgdata_cli.main import main

import imgdata
from imgdata import ShardOptions
from imgdata.dataset.manifest import MANIFEST, read_manifest
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.tar.archive import BLOCK, members
from support.rawdata import class_folders
from support.tars import flip

KINDS = ["sha256", "xxh128", "none"]
TAR = "pets-train-000000.tar"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 4, "val": 2})


def shard(raw, out, kind="sha256", **options):
    imgdata.shard(raw, out, ShardOptions(hash=kind, shard_samples=5, **options), workers=1)
    return out


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(raw, tmp_path, kind):
    return shard(raw, tmp_path / "out", kind)


def hash_of(path, kind):
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "xxh128": xxhash.xxh3_128_hexdigest(data), "none": ""}[kind]


def test_the_manifest_says_which_hash_each_shard_has(folder, kind):
    manifest = read_manifest(folder)
    shards = [shard for split in manifest.splits for shard in split.shards]
    assert {shard.hash for shard in shards} == {kind}
    assert [shard.digest for shard in shards] == [hash_of(folder / shard.file, kind) for shard in shards]
    content = json.loads((folder / MANIFEST).read_text())
    entry = content["splits"]["train"]["shards"][0]
    assert {**entry}.get(kind, entry.get("hash")) in (hash_of(folder / TAR, kind), "none")
    assert len(entry) == 4
    assert content["version"] == (1 if kind == "sha256" else 2)
    assert content["options"].get("hash", "sha256") == kind


def test_tars_and_indices_are_the_same_with_every_hash(raw, tmp_path):
    folders = [shard(raw, tmp_path / kind, kind) for kind in KINDS]
    others = {MANIFEST, "croissant.json", "README.md"}
    first, *rest = [
        {path.name: path.read_bytes() for path in out.iterdir() if path.name not in others} for out in folders
    ]
    assert all(found == first for found in rest)


def test_a_croissant_card_stands_where_every_shard_has_the_sha256_that_croissant_wants(folder, kind):
    assert (folder / "croissant.json").exists() == (kind == "sha256")
    assert ("croissant.json" in (folder / "README.md").read_text()) == (kind == "sha256")


def test_verify_finds_nothing_in_a_dataset_as_it_was_written(folder, kind, capfd):
    assert imgdata.verify(folder, deep=True, workers=1) == []
    with pytest.raises(SystemExit, match="0"):
        main(["verify", str(folder), "--workers", "1"])
    said = " ".join(capfd.readouterr().err.split())
    assert ("5 of 5 shards have no hash of all bytes" in said) == (kind == "none")
    with pytest.raises(SystemExit, match="0"):
        main(["verify", str(folder), "--json", "--workers", "1"])
    assert json.loads(capfd.readouterr().out).get("shards_without_hash") == (5 if kind == "none" else None)


def test_every_flipped_byte_of_a_shard_is_found_with_every_hash(folder):
    """One byte of each kind: name, owner, time, checksum, label, image, padding, end marker."""
    tar = folder / TAR
    label, image = list(members(tar))[:2]
    header = image.offset - BLOCK
    places = [header + at for at in (1, 110, 140, 150, 300)]
    places += [label.offset, label.offset + 1, image.offset + 7, image.offset + image.size, tar.stat().st_size - 1]
    for place in places:
        flip(tar, place)
        faults = imgdata.verify(folder, workers=1)
        assert faults
        assert {fault.shard for fault in faults} == {TAR}
        flip(tar, place)
    assert imgdata.verify(folder, workers=1) == []


def test_index_adds_the_sha256_and_with_it_the_croissant_card(folder):
    imgdata.index(folder, workers=1)
    assert read_manifest(folder).has_sha256
    assert (folder / "croissant.json").exists()
    assert imgdata.verify(folder, workers=1) == []


def test_index_takes_another_hash_and_removes_the_card_that_needs_the_sha256(folder, kind):
    imgdata.index(folder, hash="xxh128", workers=1)
    assert {shard.hash for split in read_manifest(folder).splits for shard in split.shards} == {"xxh128"}
    assert not (folder / "croissant.json").exists()
    assert imgdata.verify(folder, workers=1) == []


@pytest.mark.parametrize("kind_of_tars", KINDS)
def test_tars_from_elsewhere_are_indexed_with_every_hash(raw, tmp_path, kind_of_tars):
    out = shard(raw, tmp_path / "out")
    for path in [path for path in out.iterdir() if path.suffix != ".tar"]:
        path.unlink()
    fingerprint = imgdata.index(out, hash=kind_of_tars, workers=1).manifest.source["fingerprint"]
    assert imgdata.verify(out, workers=1) == []
    flip(out / TAR, 600)
    assert imgdata.verify(out, workers=1)
    flip(out / TAR, list(members(out / TAR))[1].offset + 30)
    assert imgdata.index(out, hash=kind_of_tars, workers=1).manifest.source["fingerprint"] != fingerprint


def test_export_and_a_second_sharding_read_every_hash(folder, tmp_path):
    exported = imgdata.export(folder, tmp_path / "folders")
    assert exported.files == 18
    again = imgdata.shard(folder, tmp_path / "again", workers=1)
    assert again.samples == 18


def test_an_unfinished_dataset_with_another_hash_is_refused(raw, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("imgdata.shards.finish.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            shard(raw, tmp_path / "out", "sha256")
    with pytest.raises(OutputError, match=r"begun with other options .*\(hash: 'sha256' -> 'xxh128'\); use the same"):
        shard(raw, tmp_path / "out", "xxh128")
    shard(raw, tmp_path / "out", "sha256")
    with pytest.raises(OutputError, match=r"made with other options .*hash: 'sha256' -> 'none'"):
        shard(raw, tmp_path / "out", "none")
    imgdata.shard(raw, tmp_path / "out", hash="none", shard_samples=5, workers=1, overwrite=True)
    assert not (tmp_path / "out" / "croissant.json").exists()
    assert imgdata.verify(tmp_path / "out", workers=1) == []


def test_a_hash_that_is_none_of_the_three_is_refused(raw, tmp_path, capfd):
    with pytest.raises(OptionError, match="hash must be sha256, xxh128 or none, got 'md5'"):
        ShardOptions(hash="md5")
    with pytest.raises(OptionError, match="hash must be sha256, xxh128 or none, got 'md5'"):
        imgdata.index(raw, hash="md5")
    with pytest.raises(SystemExit, match="2"):
        main(["shard", str(raw), str(tmp_path / "out"), "--hash", "md5"])
    assert "'md5' is not one of 'sha256', 'xxh128', 'none'" in capfd.readouterr().err


@pytest.mark.parametrize(("before", "after"), [('"xxh128": ', '"xxh129": '), ('"hash": "none"', '"hash": "any"')])
def test_a_manifest_that_has_lost_a_hash_is_damaged(raw, tmp_path, before, after):
    out = shard(raw, tmp_path / "out", "xxh128" if "xxh" in before else "none")
    path = out / MANIFEST
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ShardError, match=r"damaged .*sha256"):
        imgdata.open(out)
