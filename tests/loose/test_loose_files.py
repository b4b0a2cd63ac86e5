"""The user's files are read as they were listed: what changed, vanished or can't be read is one clear error."""

import os
import pickle
import shutil
from pathlib import Path

import pytest

import imgdata
from imgdata.errors import ImageError, OptionError, ShardError, SourceError
from imgdata.images import probe
from imgdata.loose import headers
from imgdata.storage.cache_folder import CacheWarning
from support.loose import OLD_S, aged, batches, samples
from support.rawdata import class_folders, encoded
from support.tars import pairs, write_tar


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return class_folders(tmp_path / "raw", {"train": 4, "val": 2})


@pytest.fixture
def read_names(monkeypatch):
    """Paths of the files whose headers are read."""
    names: list[str] = []
    opened = headers.open_regular

    def noted(path, flags=0):
        names.append(os.path.basename(path))
        return opened(path, flags)

    monkeypatch.setattr(headers, "open_regular", noted)
    return names


# --- What is kept ---------------------------------------------------------------------------------------


def test_headers_are_read_once_and_then_only_of_files_that_are_new_or_changed(raw, read_names):
    aged(raw)
    imgdata.open(raw)
    assert len(read_names) == 18
    read_names.clear()
    imgdata.open(raw)
    assert read_names == []
    (raw / "train" / "cat" / "001.jpg").write_bytes(encoded(70, (20, 30)))
    (raw / "train" / "cat" / "new.jpg").write_bytes(encoded(71))
    dataset = imgdata.open(raw)
    assert sorted(read_names) == ["001.jpg", "new.jpg"]
    row = dataset["train"].index.row(dataset["train"].find("cat/001"))
    assert (row.width, row.height, len(dataset["train"])) == (20, 30, 13)


@pytest.mark.parametrize(
    ("change", "samples"),
    [
        (lambda train: (train / "cat" / "000.jpg").unlink(), 11),
        (lambda train: (train / "cat" / "000.jpg").rename(train / "dog" / "moved.jpg"), 12),
        (lambda train: shutil.rmtree(train / "cat"), 8),
        (lambda train: shutil.copytree(train / "cat", train / "emu"), 16),
        (lambda train: (train / "cat" / "000.jpg").write_bytes(encoded(99)), 12),
        (lambda train: os.utime(train / "cat" / "000.jpg", (OLD_S + 1, OLD_S + 1)), 12),
    ],
    ids=["gone", "moved", "class gone", "new class", "written to", "touched"],
)
def test_a_change_between_two_runs_is_seen_by_the_next(raw, change, samples):
    aged(raw)
    imgdata.open(raw)
    change(raw / "train")
    dataset = imgdata.open(raw)
    assert len(dataset["train"]) == samples
    for position, sample in enumerate(dataset["train"]):
        assert sample.image == dataset["train"].file(position).read_bytes()


def test_a_table_that_was_written_to_is_read_again(tmp_path):
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    for number in range(4):
        (raw / "images" / f"{number}.jpg").write_bytes(encoded(number))
    table = raw / "labels.csv"
    labels = ["path,label", *(f"images/{number}.jpg,{'ab'[number % 2]}" for number in range(4))]
    table.write_text("\n".join(labels))
    aged(raw)
    assert [one.id for one in imgdata.open(raw).classes] == ["a", "b"]
    table.write_text("\n".join(labels).replace("jpg,b", "jpg,c"))
    os.utime(raw, (OLD_S, OLD_S))
    assert [one.id for one in imgdata.open(raw).classes] == ["a", "c"]


def test_processes_that_open_a_folder_share_its_index(raw):
    first, second = imgdata.open(raw), imgdata.open(aged(raw))
    third = imgdata.open(raw)
    assert second["train"].index.path == third["train"].index.path != first["train"].index.path
    assert samples(pickle.loads(pickle.dumps(third["train"]))) == samples(third["train"])
    assert len(pickle.dumps(third["train"])) < 4000


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_index_in_the_cache_is_made_anew(raw, damage):
    expected = samples(imgdata.open(aged(raw))["train"])
    for path in Path(os.environ["IMGDATA_CACHE"]).rglob("*"):
        if path.is_file() and damage is None:
            path.unlink()
        elif path.is_file():
            path.write_bytes(damage)
    assert samples(imgdata.open(raw)["train"]) == expected


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_damaged_columns_in_the_cache_are_made_anew(raw, damage):
    lines = ["path,label,patient", *(f"train/cat/{name},cat,7" for name in os.listdir(raw / "train" / "cat"))]
    (raw / "labels.csv").write_text("\n".join(lines))
    expected = imgdata.open(aged(raw))["train"].columns.types
    (path,) = Path(os.environ["IMGDATA_CACHE"]).rglob("*.columns.parquet")
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert imgdata.open(raw)["train"].columns.types == expected == {"patient": "whole number"}


def test_without_a_cache_folder_the_index_is_made_for_the_process(raw, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", "/proc/nowhere")
    with pytest.warns(CacheWarning, match="can't be used as cache folder"):
        dataset = imgdata.open(raw)
    assert len(samples(dataset["train"])) == 12


# --- Changes while the dataset is open ---------------------------------------------------------------------


def gone(file: Path) -> None:
    file.unlink()


def other_size(file: Path) -> None:
    file.write_bytes(encoded(99, (30, 30)))


def other_content(file: Path) -> None:
    """The same size, and another time."""
    data = bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)
    os.utime(file, (OLD_S + 5, OLD_S + 5))


def now_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def now_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


CHANGES = [
    (gone, "gone since the folder was opened"),
    (other_size, "changed since the folder was opened"),
    (other_content, "changed since the folder was opened"),
    (now_a_folder, "a folder, must be a regular file"),
    (now_a_pipe, "a named pipe, must be a regular file"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_file_that_changed_since_it_was_listed_is_named_with_the_way_out(raw, change, message):
    split = imgdata.open(aged(raw))["train"]
    change(raw / "train" / "dog" / "002.jpg")
    with pytest.raises(SourceError, match=rf"train/dog/002\.jpg: .*{message}"):
        split["dog/002"]
    assert split["dog/001"].image


@pytest.mark.parametrize(("change", "message"), CHANGES)
@pytest.mark.parametrize("on_bad", ["replace", "raise"])
def test_a_loader_stops_at_a_file_that_changed_whatever_on_bad_says(raw, backend, change, message, on_bad):
    dataset = imgdata.open(aged(raw))
    change(raw / "train" / "dog" / "002.jpg")
    with pytest.raises(SourceError, match=rf"train/dog/002\.jpg: .*{message}"):
        batches(dataset, on_bad=on_bad)


@pytest.mark.filterwarnings("ignore::imgdata.BadImageWarning")
def test_a_bad_picture_is_replaced_and_counted_as_in_shards(raw, backend):
    (raw / "train" / "cat" / "bad.jpg").write_bytes(encoded(5)[:300])
    (raw / "train" / "cat" / "text.jpg").write_text("no picture")
    (raw / "train" / "dog" / "empty.jpg").write_bytes(b"")
    dataset = imgdata.open(raw)
    assert len(dataset["train"]) == 15
    assert any("2 files are no images that can be read" in text for text in dataset.manifest.source["warnings"])
    assert batches(dataset, drop_last=False)
    with pytest.raises(ImageError):
        batches(dataset, drop_last=False, on_bad="raise")


def test_a_tar_that_was_written_to_is_named(tmp_path):
    tar = write_tar(tmp_path / "raw" / "a.tar", pairs(5))
    split = imgdata.open(tmp_path / "raw")["train"]
    with open(tar, "ab") as file:
        file.write(bytes(512))
    with pytest.raises(SourceError, match=r"a\.tar: changed since the folder was opened"):
        split.read(0)


def test_more_loose_files_than_may_be_open_are_read(raw, monkeypatch):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, hard))
    try:
        assert len(batches(raw, batch_size=2, epochs=20)) == 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) < used + 30


# --- Names, links, permissions -------------------------------------------------------------------------------


def test_names_in_any_bytes_and_links_are_read(raw):
    odd = os.fsencode(raw / "train" / "cat") + b"/caf\xe9 \\x.jpg"
    with open(odd, "wb") as file:
        file.write(encoded(80))
    (raw / "elsewhere.dat").write_bytes(encoded(81))
    (raw / "train" / "cat" / "link.jpg").symlink_to("../../elsewhere.dat")
    (raw / "train" / "cat" / "broken.jpg").symlink_to("nowhere.jpg")
    split = imgdata.open(raw)["train"]
    assert len(split) == 14
    found = {sample.key: sample.image for sample in split}
    assert found["cat/link"] == encoded(81)
    assert encoded(80) in found.values()
    os.unlink(odd)
    with pytest.raises(SourceError, match=r"caf\\udce9 .*gone since"):
        list(split)


def test_an_unreadable_file_is_named_when_the_folder_is_opened(unprivileged_folder, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(unprivileged_folder / "cache"))
    raw = class_folders(unprivileged_folder / "raw", {"train": 2})
    (raw / "train" / "cat" / "000.jpg").chmod(0)
    with pytest.raises(ShardError, match=r"train/cat/000\.jpg: may not be read.*make it readable"):
        imgdata.open(raw)


def test_an_empty_class_and_a_file_that_a_table_names_in_vain_are_told(tmp_path):
    raw = class_folders(tmp_path / "raw", {"train": 2})
    (raw / "train" / "owl").mkdir()
    assert any("owl" in text for text in imgdata.open(raw).manifest.source["warnings"])
    other = tmp_path / "table"
    (other / "images").mkdir(parents=True)
    for number in range(3):
        (other / "images" / f"{number}.jpg").write_bytes(encoded(number))
    rows = [f"images/{number}.jpg,{'ab'[number % 2]}" for number in range(4)]
    (other / "labels.csv").write_text("\n".join(["path,label", *rows]))
    dataset = imgdata.open(other)
    assert len(dataset["train"]) == 3
    assert any("1 listed files are not there" in text for text in dataset.manifest.source["warnings"])


# --- Headers -------------------------------------------------------------------------------------------------


def test_a_header_longer_than_what_is_read_first_is_read_whole(raw):
    data = encoded(50, (40, 30))
    comment = b"\xff\xfe\xff\xf0" + bytes(0xFFEE)
    (raw / "train" / "cat" / "long.jpg").write_bytes(data[:2] + comment + data[2:])
    row = imgdata.open(raw)["train"].index.row(imgdata.open(raw)["train"].find("cat/long"))
    assert (row.width, row.height, row.format) == (40, 30, "jpeg")
    assert len(comment) > headers._HEAD_BYTES


def test_headers_say_what_a_probe_of_the_whole_file_says(raw):
    split = imgdata.open(raw)["train"]
    for position in range(len(split)):
        info = probe.probe(split.read(position))
        row = split.index.row(position)
        assert (row.width, row.height, row.mode, row.format, row.orientation) == (
            info.width,
            info.height,
            info.mode,
            info.format,
            info.orientation,
        )


# --- What needs shards ---------------------------------------------------------------------------------------


def test_what_needs_shards_says_so_in_a_line(raw, tmp_path):
    dataset = imgdata.open(raw)
    with pytest.raises(OptionError, match=r"not sharded, and webdataset reads tars; run `imgdata shard .* OUT`"):
        dataset["train"].webdataset()
    for command in (imgdata.verify, lambda path: imgdata.export(path, tmp_path / "folders")):
        with pytest.raises(ShardError, match="not sharded; make a dataset with `imgdata shard"):
            command(raw)


def test_a_loader_takes_a_view_and_the_dataset_it_is_of(raw):
    dataset = imgdata.open(raw)
    view = imgdata.open_view(dataset, "train", "count=6")
    given = {"batch_size": 3, "recipe": "cifar_eval"}
    assert [len(batch[2]) for batch in batches(view, split=None, **given)] == [3, 3]
    assert [len(batch[2]) for batch in batches(dataset, **given)] == [3, 3, 3, 3]
