"""`imgdata.index`: tars of other tools get index and sidecars, and stay as they are."""

import gzip
import hashlib
import json
import subprocess
import tarfile

import pyarrow as pa
import pytest

import imgdata
from imgdata import ShardOptions
from imgdata.dataset.index_writing import write_index
from imgdata.errors import OptionError, OutputError, ShardError, SourceError
from imgdata.shards.table_spool import TableSpool
from support.rawdata import class_folders, encoded
from support.tars import dataset, pairs, shard_writer, webdataset_samples, write_tar

JPEG = encoded(3)


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


def test_shards_of_webdataset_are_indexed_where_they_lie(tmp_path):
    shard_writer(tmp_path, {"train": 12, "val": 5}, json=True)
    before = hashes(tmp_path)
    calls = []
    indexed = imgdata.index(tmp_path, progress=lambda *counts: calls.append(counts))
    assert hashes(tmp_path) == before
    assert calls == [(i, 4) for i in range(1, 5)]
    assert {name: len(split) for name, split in indexed.items()} == {"train": 12, "val": 5}
    for split in indexed.values():
        expected = webdataset_samples(split.shards)
        assert [(s.key, s.image, s.label, s.fields) for s in split] == [
            (e["__key__"], e["jpg"], int(e["cls"]), json.loads(e["json"])) for e in expected
        ]
    assert imgdata.verify(tmp_path, deep=True) == []


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar"])
def test_shards_of_gnu_tar_are_indexed(tmp_path, format):
    source = tmp_path / "source"
    folder = "deep/" + "d" * 60
    (source / folder).mkdir(parents=True)
    stem = f"{folder}/" + ("n" * 30 if format == "ustar" else "n" * 120)
    for i in range(4):
        (source / f"{stem}{i}.JPEG").write_bytes(encoded(i))
        (source / f"{stem}{i}.cls").write_text(f"{i % 2}\n")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        ["tar", "cf", out / "x-test-0.tar", f"--format={format}", "--sort=name", "-C", source, "."], check=True
    )
    (split,) = imgdata.index(out).values()
    assert split.name == "test"
    assert [sample.key for sample in split] == [f"./{stem}{i}" for i in range(4)]
    assert [sample.image for sample in split] == [encoded(i) for i in range(4)]
    assert split.index.label_N.tolist() == [0, 1, 0, 1]
    assert imgdata.open(out).manifest.image_extension == "jpeg"
    assert imgdata.verify(out) == []


def test_odd_keys_are_kept_and_dali_gets_words_it_can_read(tmp_path):
    files = [("dir/ä b.jpg", JPEG), ("dir/ä b.cls", b"1"), ("c.d.e.jpg", JPEG), ("c.d.e.cls", b"0")]
    write_tar(tmp_path / "a.tar", files[:2], tarfile.PAX_FORMAT)
    (split,) = imgdata.index(tmp_path).values()
    assert split[0].key == "dir/ä b"
    assert (tmp_path / "a.idx").read_text().splitlines()[1].split()[3] == "dir/__b.jpg"
    assert imgdata.verify(tmp_path) == []


def test_the_same_shards_give_the_same_sidecars_with_any_number_of_workers(tmp_path):
    one = shard_writer(tmp_path / "one", {"train": 23, "val": 5})
    two = tmp_path / "two"
    two.mkdir()
    for tar in one.iterdir():
        (two / tar.name).write_bytes(tar.read_bytes())
    imgdata.index(one, workers=1)
    imgdata.index(two, workers=4)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_indexing_again_changes_nothing(tmp_path):
    folder = dataset(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    imgdata.index(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_lost_sidecars_of_our_own_shards_are_rebuilt_with_their_classes(tmp_path):
    raw = class_folders(tmp_path / "pets", {"train": 4})
    out = tmp_path / "out"
    imgdata.shard(raw, out, workers=1)
    options = imgdata.open(out).manifest.options
    for name in ("pets-train.index.parquet", "_info.json", "pets-train-000000.idx"):
        (out / name).unlink()
    rebuilt = imgdata.index(out)
    assert [name.id for name in rebuilt.classes] == ["cat", "dog", "newt"]
    assert rebuilt.manifest.options == options
    assert imgdata.verify(out) == []


def sharded(root, **options):
    """Our own shards of three class folders, one image of which has a name that is no key."""
    raw = class_folders(root / "pets", {"train": 3})
    (raw / "train" / "cat" / "my cat é.jpg").write_bytes(encoded(77))
    imgdata.shard(raw, root / "out", ShardOptions(shard_samples=4, **options), workers=1)
    return root / "out"


def sources(folder):
    return imgdata.open(folder)["train"].index.column("source").to_pylist()


@pytest.mark.parametrize("json_members", [False, True])
def test_indexing_our_own_shards_again_keeps_every_byte(tmp_path, json_members):
    out = sharded(tmp_path, json_members=json_members)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "train/cat/my cat é.jpg" in sources(out)
    imgdata.index(out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_bytes_that_are_no_image_look_the_same_to_shard_and_index(tmp_path):
    raw = class_folders(tmp_path / "pets", {"train": 1})
    (raw / "train" / "cat" / "odd.jpg").write_bytes(b"<html>")
    imgdata.shard(raw, tmp_path / "out", ShardOptions(check="none"), workers=1)
    before = (tmp_path / "out" / "pets-train.index.parquet").read_bytes()
    assert imgdata.index(tmp_path / "out")["train"].index.words("mode") == ["RGB", "unknown"]
    assert (tmp_path / "out" / "pets-train.index.parquet").read_bytes() == before


@pytest.mark.parametrize(
    "lose",
    [
        lambda out: (out / "pets-train.index.parquet").unlink(),
        lambda out: (out / "pets-train.index.parquet").write_bytes(b"PAR1 no index"),
        lambda out: (out / "dataset.json").unlink(),
    ],
)
def test_names_in_the_raw_dataset_come_back_from_json_members(tmp_path, lose):
    out = sharded(tmp_path, json_members=True)
    before = sources(out)
    lose(out)
    imgdata.index(out)
    assert sources(out) == before
    assert imgdata.verify(out) == []


def test_without_old_index_and_json_members_a_sample_is_named_by_its_image(tmp_path):
    out = sharded(tmp_path)
    (out / "pets-train.index.parquet").unlink()
    imgdata.index(out)
    assert {name for name in sources(out) if "my" in name} == {"cat/my_cat_e.jpg"}


def test_only_images_that_are_the_same_keep_their_names(tmp_path):
    tar = write_tar(tmp_path / "a.tar", pairs(4))
    imgdata.index(tmp_path)
    index = tmp_path / "a-train.index.parquet"
    table = imgdata.open(tmp_path)["train"].index
    rows = pa.table({name: table.column(name) for name in table.names})
    names = pa.chunked_array([["zero", "one", "two", "three"]])
    write_index(index, rows.set_column(rows.schema.get_field_index("source"), rows.schema.field("source"), names))
    files = pairs(4)
    # The second image has other bytes of the same size, the third another key.
    files[2] = (files[2][0], files[2][1][:-1] + b"?")
    files[4:6] = [(name.replace("s0002", "s000x"), data) for name, data in files[4:6]]
    write_tar(tar, files)
    imgdata.index(tmp_path)
    assert sources(tmp_path) == ["zero", "s0001.jpg", "s000x.jpg", "three"]


@pytest.mark.parametrize("fields", [b'{"source": "web"}', b'{"source": 1, "width": 1, "height": 1}', b'"source"', b"?"])
def test_sources_in_json_members_of_others_are_not_ours(tmp_path, fields):
    write_tar(tmp_path / "a.tar", [("k.jpg", JPEG), ("k.cls", b"0"), ("k.json", fields)])
    imgdata.index(tmp_path)
    assert sources(tmp_path) == ["k.jpg"]


def test_labels_from_another_place_have_classes_of_their_own(tmp_path):
    files = []
    for i, word in enumerate(("zebra", "ant")):
        files += [
            (f"{word}.jpg", JPEG),
            (f"{word}.cls", b"%d" % i),
            (f"{word}.json", b'{"label": "%b"}' % word.encode()),
        ]
    write_tar(tmp_path / "a.tar", files)

    def found(label_from):
        indexed = imgdata.index(tmp_path, label_from=label_from)
        labels = indexed["train"].index.label_N.tolist()
        return [name.id for name in indexed.classes], labels

    assert found("json:label") == (["ant", "zebra"], [1, 0])
    assert found("auto") == (["ant", "zebra"], [1, 0])
    assert found("cls") == (["0", "1"], [0, 1])
    with pytest.raises(imgdata.OptionError, match=r"'json:labe': no sample has that field \(did you mean label\?\)"):
        found("json:labe")
    assert found("cls") == (["0", "1"], [0, 1])


def test_classes_of_our_own_shards_are_known_by_their_ids_and_not_by_other_numbers(tmp_path):
    out = sharded(tmp_path, json_members=True)
    labels = imgdata.open(out)["train"].index.label_N.tolist()

    def found(label_from):
        indexed = imgdata.index(out, label_from=label_from)
        return [name.id for name in indexed.classes], indexed["train"].index.label_N.tolist()

    pets = ["cat", "dog", "newt"]
    assert found("auto") == (pets, labels)
    assert found("json:class_id") == (pets, labels)
    assert found("json:height") == ([str(i) for i in range(49)], [48] * len(labels))
    # By now no one knows what 0, 1 and 2 were called.
    assert found("cls") == (["0", "1", "2"], labels)


@pytest.mark.parametrize("prepare", [lambda folder: None, dataset])
def test_a_card_that_someone_else_wrote_stays(tmp_path, prepare):
    folder = shard_writer(tmp_path, {"train": 2})
    prepare(folder)
    (folder / "README.md").write_text("# Mine\n")
    imgdata.index(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert imgdata.verify(folder) == []
    (folder / "README.md").unlink()
    imgdata.index(folder)
    assert "# demo" in (folder / "README.md").read_text()
    imgdata.index(folder, name="other")
    assert "# other" in (folder / "README.md").read_text()


def test_text_labels_are_numbered_alike_in_all_tars(tmp_path):
    for number, words in enumerate((["dog", "cat"], ["newt", "dog"])):
        files = []
        for i, word in enumerate(words):
            files += [(f"k{number}{i}.jpg", JPEG), (f"k{number}{i}.txt", word.encode())]
        write_tar(tmp_path / f"x-{number}.tar", files)
    indexed = imgdata.index(tmp_path)
    assert [name.id for name in indexed.classes] == ["cat", "dog", "newt"]
    assert indexed["train"].index.label_N.tolist() == [1, 0, 2, 1]
    assert indexed.manifest.label_from == "txt"


def test_numbers_in_one_tar_and_texts_in_another_are_refused(tmp_path):
    write_tar(tmp_path / "x-0.tar", [("a.jpg", JPEG), ("a.json", b'{"label": 3}')])
    write_tar(tmp_path / "x-1.tar", [("b.jpg", JPEG), ("b.json", b'{"label": "cat"}')])
    with pytest.raises(ShardError, match="json:label labels: 'cat' is a text among numbers"):
        imgdata.index(tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_one_of_several_images_is_indexed(tmp_path):
    left, right = encoded(5), encoded(6, format="PNG")
    write_tar(tmp_path / "a.tar", [("k.jpg", left), ("k.seg.png", right), ("k.cls", b"0")])
    assert imgdata.index(tmp_path)["train"].read(0) == left
    assert imgdata.open(tmp_path)["train"][0].members == {"seg": right}
    assert imgdata.open(tmp_path).manifest.source["warnings"] == []
    chosen = imgdata.index(tmp_path, image_ext=["SEG.png"])
    assert chosen["train"].read(0) == right
    assert chosen.manifest.image_extension == "seg.png"
    assert chosen.manifest.source["warnings"] == []
    assert imgdata.verify(tmp_path) == []


def test_images_of_several_formats_are_all_named(tmp_path):
    png = encoded(1, format="PNG")
    write_tar(tmp_path / "a.tar", [*pairs(2), ("x.png", png), ("x.cls", b"0")])
    indexed = imgdata.index(tmp_path)
    assert indexed.manifest.image_extension == "jpg;png"
    assert [sample.format for sample in indexed["train"]] == ["jpeg", "jpeg", "png"]


def test_bad_images_stay_in_the_index_and_are_told(tmp_path):
    write_tar(tmp_path / "a.tar", [*pairs(2), ("bad.jpg", b"<html>"), ("bad.cls", b"0"), ("none.cls", b"0")])
    indexed = imgdata.index(tmp_path)
    row = indexed["train"].index.row(2)
    assert (row.format, row.mode, row.width, row.height) == ("unknown", "unknown", 0, 0)
    source = indexed.manifest.source
    assert "1 images can't be recognised" in source["warnings"][0]
    assert "a.tar, bad: not-an-image" in source["warnings"][0]
    assert source["skipped"] == {"samples without an image": 1}
    assert (tmp_path / "a.idx").read_text().startswith("v1.2 3\n")


def test_repeated_keys_are_told(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(2))
    write_tar(tmp_path / "b.tar", pairs(1))
    warnings = imgdata.index(tmp_path).manifest.source["warnings"]
    assert warnings == ["1 keys of split train occur twice, the first is s0000"]


@pytest.mark.parametrize(
    ("prepare", "options", "error", "message"),
    [
        (lambda p: None, {}, SourceError, "no tar files there"),
        (lambda p: (p / "a.tar").write_bytes(gzip.compress(b"x")), {}, SourceError, "gzip.*gunzip"),
        (
            lambda p: write_tar(p / "sub" / "b.tar", pairs(1)),
            {"out": "."},
            OptionError,
            r"must be in the folder of their index.*b\.tar",
        ),
        (lambda p: (p / ".imgdata").mkdir() or write_tar(p / "a.tar", pairs(1)), {}, SourceError, "unfinished"),
        (lambda p: [write_tar(p / f"a.{i}.tar", pairs(1)) for i in range(2)], {}, ShardError, r"a\.idx.*rename one"),
        (lambda p: write_tar(p / "a.tar", [("a.cls", b"1")]), {}, ShardError, "no sample with a usual image extension"),
        (lambda p: write_tar(p / "a.tar", pairs(1)), {"image_ext": ["x"]}, ShardError, "no sample with extension x"),
        (lambda p: write_tar(p / "a.tar", pairs(1)), {"label_from": "cats"}, OptionError, "label_from must be"),
        (
            lambda p: [write_tar(p / "a.tar", pairs(1)), write_tar(p / "b.tar", [("b.cls", b"1")])],
            {},
            ShardError,
            r"b\.tar: no sample with an image",
        ),
        (
            lambda p: (p / "a.tar").write_bytes(write_tar(p / "b.tar", pairs(9)).read_bytes()[:4300]),
            {},
            ShardError,
            r"a\.tar: .*(cut short|no header)",
        ),
    ],
)
def test_what_cannot_be_indexed_is_refused_without_a_dataset_file(
    tmp_path, monkeypatch, prepare, options, error, message
):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    with pytest.raises(error, match=message):
        imgdata.index(tmp_path, **options)
    assert not (tmp_path / "dataset.json").exists()


def test_a_part_of_a_dataset_is_not_indexed_as_if_it_were_all(tmp_path):
    folder = dataset(tmp_path)
    before = (folder / "dataset.json").read_bytes()
    with pytest.raises(OptionError, match=r"demo-val-000000\.tar is a shard of this dataset too"):
        imgdata.index(folder / "demo-train-{000000..000002}.tar")
    assert (folder / "dataset.json").read_bytes() == before


def test_foreign_tars_among_our_own_shards_are_refused(tmp_path):
    imgdata.shard(class_folders(tmp_path / "pets", {"train": 2}), tmp_path / "out", workers=1)
    write_tar(tmp_path / "out" / "other.tar", pairs(1))
    with pytest.raises(SourceError, match=r"other\.tar: no part of the dataset"):
        imgdata.index(tmp_path / "out")


def test_tars_given_one_by_one_keep_their_splits(tmp_path):
    shard_writer(tmp_path, {"train": 7, "val": 2})
    indexed = imgdata.index(sorted(map(str, tmp_path.glob("*.tar")), reverse=True), name="Own Name")
    assert indexed.name == "own-name"
    assert list(indexed) == ["train", "val"]
    assert (tmp_path / "own-name-val.index.parquet").exists()


def test_tables_come_back_from_a_file_without_a_name(tmp_path):
    tables = [pa.table({"key": [f"k{number}"] * number, "size": [number] * number}) for number in (3, 0, 7)]
    with TableSpool(tmp_path) as spool:
        for table in tables:
            spool.add(table)
        found = spool.tables()
    assert found == tables
    assert list(tmp_path.iterdir()) == []
    with TableSpool(tmp_path) as nothing:
        assert nothing.tables() == []
    with pytest.raises(OutputError, match="nowhere"):
        TableSpool(tmp_path / "nowhere")
