"""`imgdata.export`: class folders again, with the stored bytes and the names of the raw dataset."""

import pytest

import imgdata
from imgdata.errors import OptionError, ShardError
from imgdata.shards.export import class_folder
from support.rawdata import class_folders, encoded
from support.targets import raw_lines
from support.tars import dataset, flip, write_tar


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_gives_back_the_raw_dataset(tmp_path):
    raw = class_folders(tmp_path / "pets", {"train": 4, "val": 2})
    (raw / "train" / "cat" / "odd näme.x.JPEG").write_bytes(encoded(99))
    imgdata.shard(raw, tmp_path / "out", workers=1)
    done = imgdata.export(tmp_path / "out", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(raw)
    assert done.files == 19
    assert done.bytes == sum(map(len, files_of(raw).values()))
    assert not done.left_json


def test_one_split_is_exported_alone(tmp_path):
    folder = dataset(tmp_path / "out")
    calls = []
    imgdata.export(folder, tmp_path / "back", split="val", progress=lambda *counts: calls.append(counts))
    assert {path.split("/")[0] for path in files_of(tmp_path / "back")} == {"val"}
    assert calls == [(5, 5)]


def test_names_that_meet_in_a_class_become_keys(tmp_path):
    one, two, three = (encoded(seed) for seed in range(3))
    files = []
    for key, data in (("a/x", one), ("b/x", two), ("c/X", three), ("c/y", three)):
        files += [(f"{key}.jpg", data), (f"{key}.cls", b"0")]
    write_tar(tmp_path / "in" / "t.tar", files)
    imgdata.index(tmp_path / "in")
    imgdata.export(tmp_path / "in", tmp_path / "back")
    assert files_of(tmp_path / "back") == {
        "train/0/a_x.jpg": one,
        "train/0/b_x.jpg": two,
        "train/0/c_X.jpg": three,
        "train/0/y.jpg": three,
    }


def test_extensions_follow_the_bytes(tmp_path):
    png = encoded(1, format="PNG")
    write_tar(tmp_path / "in" / "t.tar", [("a.jpg", png), ("a.cls", b"0"), ("b.jpg", b"?"), ("b.cls", b"1")])
    imgdata.index(tmp_path / "in")
    imgdata.export(tmp_path / "in", tmp_path / "back")
    assert files_of(tmp_path / "back") == {"train/0/a.png": png, "train/1/b.bin": b"?"}


def test_images_without_a_label_have_their_own_folder(tmp_path):
    write_tar(tmp_path / "in" / "t.tar", [("a.jpg", encoded(1)), ("b.jpg", encoded(2))])
    imgdata.index(tmp_path / "in")
    imgdata.export(tmp_path / "in", tmp_path / "back")
    assert sorted(files_of(tmp_path / "back")) == ["train/unlabelled/a.jpg", "train/unlabelled/b.jpg"]


@pytest.mark.parametrize(
    ("class_id", "folder"),
    [("cat", "cat"), ("animals/cat", "animals/cat"), ("../../etc", "etc"), ("/abs", "abs"), ("", "_"), ("a\nb", "a_b")],
)
def test_class_folders_stay_inside(class_id, folder):
    assert class_folder(class_id).as_posix() == folder


def test_json_members_without_fields_of_their_own_are_left_out(tmp_path):
    (tmp_path / "raw" / "cat").mkdir(parents=True)
    (tmp_path / "raw" / "cat" / "1.jpg").write_bytes(encoded(1))
    imgdata.shard(tmp_path / "raw", tmp_path / "out", json_members=True)
    assert imgdata.export(tmp_path / "out", tmp_path / "back").left_json
    assert files_of(tmp_path / "back").keys() == {"train/cat/1.jpg"}


@pytest.mark.parametrize(("target", "column"), [("class", "label"), ("multi-label", "tags"), ("regression", "age")])
def test_fields_are_exported_as_metadata_and_read_back(tmp_path, target, column):
    rows = [{"label": "ab"[number % 2], "tags": ["x"] * (number % 2), "age": number / 2} for number in range(4)]
    options = {"target": target, "label_column": column, "shuffle": False}
    imgdata.shard(raw_lines(tmp_path / "raw", rows), tmp_path / "out", **options)
    assert not imgdata.export(tmp_path / "out", tmp_path / "back").left_json
    imgdata.shard(tmp_path / "back", tmp_path / "again", **options)
    before, after = (
        {
            one.fields["age"]: (one.image, one.label, one.fields["tags"])
            for one in imgdata.open(tmp_path / name)["train"]
        }
        for name in ("out", "again")
    )
    assert before == after
    assert imgdata.open(tmp_path / "out").target == imgdata.open(tmp_path / "again").target


@pytest.mark.parametrize("occupy", [lambda path: (path / "x").mkdir(parents=True), lambda path: path.write_bytes(b"")])
def test_an_occupied_folder_is_refused(tmp_path, occupy):
    occupy(tmp_path / "back")
    with pytest.raises(OptionError, match="back: must be a new or an empty folder"):
        imgdata.export(dataset(tmp_path / "out"), tmp_path / "back")


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "back").mkdir()
    assert imgdata.export(dataset(tmp_path / "out"), tmp_path / "back").files == 17


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(OptionError, match="split must be one of train, val, got 'test'"):
        imgdata.export(dataset(tmp_path / "out"), tmp_path / "back", split="test")


def test_a_damaged_image_stops_the_export_and_nothing_is_left(tmp_path):
    folder = dataset(tmp_path / "out")
    row = imgdata.open(folder)["val"].index.row(4)
    flip(folder / row.shard, row.offset + 20)
    with pytest.raises(ShardError, match=r"val/0004 at byte .* differs from the index"):
        imgdata.export(folder, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
