"""Existing WebDataset tars as a source: what is recognised, how samples, labels and splits are found."""

import gzip
import io
import json
import shutil
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_iterator

import imgdata
from imgdata.errors import OptionError, ShardError, SourceError
from imgdata.sources import tars
from imgdata.sources.options import SourceOptions
from imgdata.sources.walk import is_image as is_image_file
from imgdata.tar.archive import members
from imgdata.tar.samples import Grouping, group_members, is_image, tar_samples
from support.rawdata import class_folders, encoded
from support.tars import dataset, pairs, shard_writer, webdataset_samples, write_tar

JPEG = encoded(1)


def listing(path, **options):
    return tars.list_samples(path, SourceOptions(**options))


def images(listed):
    return [listed.reader.read(ref) for ref in listed.refs(range(len(listed)))]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([("a.jpg", JPEG), ("a.cls", b"1")], True),
        ([("a.png", JPEG), ("a.json", b"{}")], True),
        ([("x/a.left.JPG", JPEG), ("x/a.txt", b"cat")], True),
        ([("a.jpg", JPEG), ("b.jpg", JPEG)], False),  # one class of ImageNet-21k
        ([("n01440764.tar", b""), ("n01443537.tar", b"")], False),  # ILSVRC2012_img_train.tar
        ([("a.cls", b"1"), ("a.json", b"{}")], False),
        ([("readme.txt", b"")], False),
    ],
    ids=["jpg+cls", "png+json", "upper-case", "images only", "tar of tars", "no image", "text"],
)
def test_only_images_with_labels_beside_them_are_recognised(tmp_path, files, expected):
    write_tar(tmp_path / "a.tar", files)
    assert (tars.recognise(tmp_path) is not None) == expected


def test_gzipped_tars_are_recognised_and_refused_with_the_way_out(tmp_path):
    plain = write_tar(tmp_path / "a.tar", pairs(2))
    zipped = tmp_path / "z" / "a.tar.gz"
    zipped.parent.mkdir()
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert tars.recognise(zipped)
    with pytest.raises(SourceError, match=r"a\.tar\.gz: compressed with gzip.*gunzip"):
        listing(zipped)


def test_other_gzipped_archives_are_not_recognised(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"12345"))
    assert tars.recognise(tmp_path / "cifar-10-python.tar.gz") is None


def test_samples_come_in_the_order_of_the_tars_with_their_bytes(tmp_path):
    shard_writer(tmp_path, {"train": 12})
    listed = listing(tmp_path)
    expected = webdataset_samples(sorted(tmp_path.glob("*.tar")))
    assert listed.key_N.to_pylist() == [sample["__key__"] for sample in expected]
    assert images(listed) == [sample["jpg"] for sample in expected]
    assert listed.label_N.tolist() == [int(sample["cls"]) for sample in expected]
    assert [name.id for name in listed.classes] == ["0", "1", "2"]
    assert listed.title == "demo"
    assert listed.warnings == ()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("x-000001.tar", [1]),
        ("x-{000000..000002}.tar", [0, 1, 2]),
        ("x-00000[12].tar", [1, 2]),
        ("x-000002.tar::x-000000.tar", [2, 0]),
        (".", [0, 1, 2, 10]),
    ],
)
def test_tars_are_named_by_file_folder_glob_braces_or_several(tmp_path, monkeypatch, pattern, expected):
    for number in (0, 1, 2, 10):
        write_tar(tmp_path / f"x-{number:06d}.tar", [(f"k{number}.jpg", JPEG), (f"k{number}.cls", b"0")])
    monkeypatch.chdir(tmp_path)
    assert listing(pattern).key_N.to_pylist() == [f"k{number}" for number in expected]


@pytest.mark.parametrize("pattern", ["missing.tar", "x-{0..3}.tar", "*.tar"])
def test_missing_tars_are_named(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"no such file|no tar files there"):
        listing(pattern)


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["a-train-00.tar", "a-validation-00.tar", "a-test-00.tar"], ["train", "val", "test"]),
        (["a.dev.00.tar", "a.training.00.tar"], ["train", "val"]),
        (["train/00000.tar", "val/00000.tar"], ["train", "val"]),
        (["a_eval 3.tar"], ["test"]),
        (["pretraining-0.tar"], ["train"]),
    ],
)
def test_splits_are_read_from_the_names(tmp_path, files, splits):
    for number, file in enumerate(files):
        write_tar(tmp_path / file, [(f"k{number}.jpg", JPEG), (f"k{number}.cls", b"0")])
    listed = listing(tmp_path)
    assert list(listed.splits) == splits
    assert listed.given_splits == (files != ["pretraining-0.tar"])


@pytest.mark.parametrize(
    ("member", "values", "label_from", "labels", "classes"),
    [
        (".cls", [b"2", b"0\n"], "auto", [2, 0], ["0", "1", "2"]),
        (".json", [b'{"label": 1}', b'{"label": 0}'], "auto", [1, 0], ["0", "1"]),
        (".json", [b'{"label": "dog"}', b'{"label": "cat"}'], "auto", [1, 0], ["cat", "dog"]),
        (".json", [b'{"a": {"b": "y"}}', b'{"a": {"b": "x"}}'], "json:a.b", [1, 0], ["x", "y"]),
        (".txt", [b"newt\n", b"cat"], "auto", [1, 0], ["cat", "newt"]),
        (".txt", [b"10", b"2"], "auto", [10, 2], [str(i) for i in range(11)]),
        (".cls", [b"2", b"0"], "folder", [0, 1], ["9", "10"]),
        (".cls", [b"2", b"0"], "none", [-1, -1], []),
        (".json", [b'{"x": "dog"}', b'{"x": "cat"}'], "auto", [0, 1], ["9", "10"]),
    ],
)
def test_labels_come_from_the_member_that_has_them(tmp_path, member, values, label_from, labels, classes):
    folders = ["9", "10"]
    files = []
    for number, value in enumerate(values):
        files += [(f"{folders[number]}/k.jpg", JPEG), (f"{folders[number]}/k{member}", value)]
    write_tar(tmp_path / "a.tar", files)
    listed = listing(tmp_path, label_from=label_from)
    assert listed.label_N.tolist() == labels
    assert [name.id for name in listed.classes] == classes


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            [("a.jpg", JPEG), ("a.cls", b"cat")],
            {},
            r"a\.tar: \.cls of 'a' at byte \d+ must be a decimal number, got b'cat'",
        ),
        ([("a.jpg", JPEG), ("a.cls", b"-7")], {}, "label of 'a' must be a class index"),
        ([("a.jpg", JPEG), ("a.cls", b"99999999")], {}, "label of 'a' must be a class index"),
        ([("a.jpg", JPEG), ("a.json", b"[1")], {}, "json member of 'a' at byte .* must be a JSON object"),
        ([("a.jpg", JPEG), ("a.json", b'{"l": [1]}')], {"label_from": "json:l"}, "json field 'l' of 'a'"),
        ([("a.jpg", JPEG), ("a.jpg", JPEG), ("a.cls", b"1")], {}, r"key 'a' has a second \.jpg at byte \d+"),
        ([("a.jpg", JPEG), ("a.JPG", JPEG)], {}, r"key 'a' has a second \.jpg"),
        (
            [("a.jpg", JPEG), ("a.json", b'{"label": 3}'), ("b.jpg", JPEG), ("b.json", b'{"label": "x"}')],
            {},
            "'b': 'x' is a text among numbers",
        ),
    ],
)
def test_what_cannot_be_understood_is_named_with_tar_key_and_byte(tmp_path, files, options, message):
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(ShardError, match=message):
        listing(tmp_path, **options)


def test_an_unknown_place_for_labels_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    with pytest.raises(OptionError, match="label_from must be auto, cls, json:FIELD, txt, folder or none, got 'json:'"):
        listing(tmp_path, label_from="json:")


def test_samples_without_labels_are_listed_and_told(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", JPEG), ("a.cls", b"1"), ("b.jpg", JPEG)])
    listed = listing(tmp_path)
    assert listed.label_N.tolist() == [1, -1]
    assert listed.warnings == ("1 samples have no label in 'cls', the first is a.tar: b",)


def test_a_dataset_without_any_labels_says_what_was_looked_for(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", JPEG), ("b.jpg", JPEG)])
    listed = listing(tmp_path)
    assert listed.label_N.tolist() == [-1, -1]
    assert "no labels found (looked for a cls member" in listed.warnings[0]


def test_a_dataset_that_was_sharded_without_labels_says_nothing_of_them(tmp_path):
    imgdata.shard([JPEG] * 2, tmp_path / "out")
    assert listing(tmp_path / "out").warnings == ()


def test_one_of_several_images_is_chosen_by_extension(tmp_path):
    left, right = encoded(5), encoded(6)
    write_tar(tmp_path / "a.tar", [("k.left.png", left), ("k.right.png", right), ("k.cls", b"0")])
    assert images(listing(tmp_path, image_ext=("right.png",))) == [right]
    first = listing(tmp_path)
    assert images(first) == [left]
    assert "several images (left.png, right.png); .left.png was taken: choose with --image-ext" in first.warnings[0]


def test_samples_and_members_that_are_left_out_are_counted(tmp_path):
    files = [("a.jpg", JPEG), ("a.cls", b"0"), ("a.npy", b"1"), ("b.cls", b"0"), ("__meta__", b""), ("._a.jpg", b"")]
    write_tar(tmp_path / "a.tar", files)
    listed = listing(tmp_path)
    assert len(listed) == 1
    assert listed.skipped == {
        ".npy members": 1,
        "members without a key (hidden, or no extension)": 2,
        "samples without an image": 1,
    }


def test_tars_without_a_sample_are_refused(tmp_path):
    write_tar(tmp_path / "a.tar", [("b.cls", b"0")])
    with pytest.raises(SourceError, match=r"no images found.*1 samples without an image"):
        listing(tmp_path)


def test_further_fields_are_kept_as_json(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [("a.jpg", JPEG), ("a.cls", b"0"), ("a.json", '{"é": [1]}'.encode()), ("a.txt", b"a caption")],
    )
    assert json.loads(listing(tmp_path).fields_N[0].as_py()) == {"é": [1], "txt": "a caption"}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_keys_become_clean_and_stay_apart(tmp_path, format):
    names = ["./dir/" + "n" * 150 + "1", "./dir/" + "n" * 150 + "2", "ä ö", "./plain"]
    files = [(f"{name}{ext}", data) for name in names for ext, data in ((".jpg", JPEG), (".cls", b"0"))]
    write_tar(tmp_path / "a.tar", files, format)
    keys = listing(tmp_path).key_N.to_pylist()
    assert keys[3] == "plain"
    assert len(set(keys)) == 4
    assert all(key.isascii() and len(key) <= 88 for key in keys)


def test_folders_of_imgdata_keep_their_name_splits_and_classes(tmp_path):
    folder = dataset(tmp_path / "out")
    listed = listing(folder)
    assert listed.title == "demo"
    assert list(listed.splits) == ["train", "val"]
    assert listed.given_splits
    assert len(listed) == 17


def test_a_dataset_of_imgdata_is_recognised_whatever_its_first_split_holds(tmp_path):
    folder = class_folders(tmp_path / "in", {"": 2}, ("cat",)) / "cat"
    (folder / "t.csv").write_text("path,label,split\n000.jpg,,test\n001.jpg,x,train\n")
    imgdata.shard(folder, tmp_path / "out", workers=1)
    assert tars.recognise(tmp_path / "out")
    listed = listing(tmp_path / "out")
    assert dict(zip(listed.key_N.to_pylist(), listed.label_N.tolist(), strict=True)) == {"000": -1, "001": 0}
    assert [one.id for one in listed.classes] == ["x"]


def test_copies_of_tars_below_a_dataset_are_left_out_and_told(tmp_path):
    folder = dataset(tmp_path / "out")
    (folder / "backup").mkdir()
    for tar in folder.glob("*.tar"):
        shutil.copy(tar, folder / "backup")
    for path, shown in ((folder, "backup/demo-train"), (tmp_path, "out/backup/demo-train")):
        listed = listing(path)
        assert len(listed) == 17
        assert "4 tars in folders below a dataset.json are no part of it and were left out" in listed.warnings[0]
        assert shown in listed.warnings[0]
    assert len(imgdata.index(folder)["train"]) == 12


def test_tars_of_a_dataset_are_known_by_their_place_not_by_their_name(tmp_path):
    folder = tmp_path / "out"
    imgdata.shard(class_folders(tmp_path / "in", {"train": 2}), folder, workers=1)
    (folder / "backup").mkdir()
    copy = shutil.copy(folder / "in-train-000000.tar", folder / "backup")
    with pytest.raises(SourceError, match=r"backup/in-train-000000\.tar: no part of the dataset in .*dataset\.json"):
        listing(f"{folder}::{copy}")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.bin"])
def test_damage_in_what_is_called_a_tar_is_told(tmp_path, name):
    path = tmp_path / name
    data = write_tar(tmp_path / "whole.tar", pairs(1)).read_bytes()
    path.write_bytes(gzip.compress(data)[:-900] if name.endswith("gz") else data[:700])
    if name == "a.bin":
        assert tars.recognise(path) is None
        return
    with pytest.raises((SourceError, ShardError), match=rf"{name}: (cut short|not a tar)"):
        tars.recognise(path)


@pytest.mark.parametrize("extension", ["jfif", "mpo", "pnm", "apng", "heic", "jxl"])
def test_tars_and_folders_take_the_same_files_for_images(extension):
    assert is_image(extension)
    assert is_image_file(f"a.{extension}")


def test_an_unfinished_folder_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    (tmp_path / ".imgdata").mkdir()
    with pytest.raises(SourceError, match="an unfinished dataset; run its `imgdata shard` command again"):
        listing(tmp_path)


NAMES = st.lists(
    st.tuples(
        st.sampled_from(["", "d/", "d.e/", "./"]),
        st.sampled_from(["a", "b", "__m__", ".h"]),
        st.sampled_from(["jpg", "CLS", "x.png"]),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(NAMES)
def test_samples_are_grouped_as_webdataset_groups_them(tmp_path_factory, parts):
    files = [(f"{folder}{base}.{ext}", b"%d" % number) for number, (folder, base, ext) in enumerate(parts)]
    path = write_tar(tmp_path_factory.mktemp("t") / "a.tar", [*files, ("last.jpg", b"")])
    data = path.read_bytes()
    try:
        with open(path, "rb") as file:
            found_there = ({**member, "__url__": ""} for member in tar_file_iterator(file))
            expected = [{k: v for k, v in s.items() if k != "__url__"} for s in group_by_keys(found_there)]
    except ValueError:
        with pytest.raises(ShardError, match="second"):
            list(tar_samples(path))
        return
    grouping = Grouping()
    found = [
        {"__key__": key, **{ext: data[m.offset : m.offset + m.size] for ext, m in group.items()}}
        for key, group in group_members(members(path), path, grouping)
    ]
    if not grouping.apart and not grouping.dotted:
        assert found == expected
