"""Pixels that change under the same names and sizes are noticed: while sharding, by a resume, by the next run."""

import os
import shutil
import tarfile

import pytest

import imgdata
from imgdata import Encoding, ShardOptions
from support.rawdata import class_folders, encoded

OPTIONS = ShardOptions(shard_samples=2)


@pytest.fixture
def raw(tmp_path):
    return class_folders(tmp_path / "pets", {"train": 3, "val": 2})


def other_pixels(path):
    """Change the picture, but neither the name nor the size of the file."""
    size = path.stat().st_size
    data = encoded(977, (40, 30))
    assert len(data) <= size
    # Bytes behind the end marker belong to no picture.
    path.write_bytes(data + bytes(size - len(data)))


def touched(path):
    """The same bytes, written again."""
    path.write_bytes(path.read_bytes())


def replaced_with_the_same_time(path):
    info = path.stat()
    spare = path.with_suffix(".new")
    shutil.copy2(path, spare)
    other_pixels(spare)
    os.utime(spare, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.replace(spare, path)


def rewritten_with_the_same_time(path):
    info = path.stat()
    other_pixels(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


CHANGES = [other_pixels, replaced_with_the_same_time, rewritten_with_the_same_time]


def run(raw, out, *, overwrite=False, options=OPTIONS, watch=None):
    return imgdata.shard(raw, out, options, workers=1, overwrite=overwrite, watch=watch)


class Stop(imgdata.Watcher):
    """Ends the run when the first shard is finished."""

    def __init__(self, out):
        self.out = out

    def advanced(self, samples, num_bytes, rejects):
        if list(self.out.rglob("*.tar")):
            raise KeyboardInterrupt


def stored(out, name):
    for split in imgdata.open(out).values():
        for row, source in enumerate(split.index.column("source").to_pylist()):
            if source == name:
                return split[row].image
    raise AssertionError(name)


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_dataset_is_not_complete_when_pixels_have_changed(raw, tmp_path, change):
    out = tmp_path / "out"
    run(raw, out)
    change(raw / "val" / "dog" / "001.jpg")
    with pytest.raises(imgdata.OutputError, match=r"1 image of the source had other bytes, such as val/dog/001\.jpg"):
        run(raw, out)
    run(raw, out, overwrite=True)
    assert stored(out, "val/dog/001.jpg") == (raw / "val/dog/001.jpg").read_bytes()
    assert run(raw, out).already_complete


def test_pixels_that_are_encoded_anew_are_compared_as_well(raw, tmp_path):
    options = ShardOptions(encoding=Encoding(resize=24))
    run(raw, tmp_path / "out", options=options)
    touched(raw / "val" / "dog" / "000.jpg")
    assert run(raw, tmp_path / "out", options=options).already_complete
    other_pixels(raw / "val" / "dog" / "001.jpg")
    with pytest.raises(imgdata.OutputError, match=r"val/dog/001\.jpg"):
        run(raw, tmp_path / "out", options=options)


def test_a_reject_that_was_mended_under_the_same_size_is_noticed(raw, tmp_path):
    path = raw / "train" / "cat" / "000.jpg"
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    assert run(raw, tmp_path / "out").rejected == {"not-an-image": 1}
    assert run(raw, tmp_path / "out").already_complete
    path.write_bytes(whole)
    with pytest.raises(imgdata.OutputError, match=r"such as train/cat/000\.jpg"):
        run(raw, tmp_path / "out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_never_mixes_old_and_new(raw, tmp_path, change, overwrite):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, watch=Stop(out), options=ShardOptions(shard_samples=2, shuffle=False))
    change(raw / "train" / "cat" / "000.jpg")
    options = ShardOptions(shard_samples=2, shuffle=False)
    if not overwrite:
        with pytest.raises(imgdata.OutputError, match=r"was begun .* such as train/cat/000\.jpg; use --overwrite"):
            run(raw, out, options=options)
    run(raw, out, options=options, overwrite=True)
    for path in raw.rglob("*.jpg"):
        assert stored(out, path.relative_to(raw).as_posix()) == path.read_bytes()


@pytest.mark.parametrize("begun", [False, True])
def test_a_copied_or_touched_source_is_compared_and_found_the_same(raw, tmp_path, begun):
    out = tmp_path / "out"
    if begun:
        with pytest.raises(KeyboardInterrupt):
            run(raw, out, watch=Stop(out))
    else:
        run(raw, out)
    moved = tmp_path / "elsewhere" / "pets"
    shutil.copytree(raw, moved, copy_function=shutil.copyfile)
    heard = []

    class Hear(imgdata.Watcher):
        def stage(self, what):
            heard.append(what)

    summary = run(moved, out, watch=Hear())
    assert "comparing images with the source" in heard
    assert summary.already_complete is not begun
    assert summary.resumed_shards == 0 or begun
    heard.clear()
    # Noted for the next time, where the file system has extended attributes.
    assert run(moved, out, watch=Hear()).already_complete


def test_a_dataset_of_which_no_state_is_known_is_compared_with_the_source(raw, tmp_path):
    # As earlier versions wrote them, and as copies without extended attributes are.
    run(raw, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    assert run(raw, tmp_path / "copy").already_complete
    other_pixels(raw / "train" / "cat" / "000.jpg")
    with pytest.raises(imgdata.OutputError, match=r"train/cat/000\.jpg"):
        run(raw, tmp_path / "copy")


class Change(imgdata.Watcher):
    """Changes a file between listing and reading."""

    def __init__(self, change, path):
        self.change, self.path = change, path

    def planned(self, plan, samples_done):
        self.change(self.path)


def grown(path):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [*CHANGES[:2], grown, lambda path: path.unlink()])
def test_a_file_that_changes_between_listing_and_reading_stops_the_run_and_the_next_run_is_whole(raw, tmp_path, change):
    path = raw / "val" / "newt" / "001.jpg"
    with pytest.raises(
        imgdata.SourceError, match=r"val/newt/001\.jpg: (changed between listing and reading|was listed)"
    ):
        run(raw, tmp_path / "out", watch=Change(change, path))
    assert not (tmp_path / "out" / "dataset.json").exists()
    run(raw, tmp_path / "out", overwrite=True)
    assert all(
        path.read_bytes() == stored(tmp_path / "out", path.relative_to(raw).as_posix()) for path in raw.rglob("*.jpg")
    )


def test_a_tar_that_changes_between_listing_and_reading_stops_the_run(raw, tmp_path):
    run(raw, tmp_path / "first")
    tar = next((tmp_path / "first").glob("pets-val-000000.tar"))

    def spoil(path):
        with tarfile.open(path) as archive:
            member = next(member for member in archive if member.name.endswith(".jpg"))
        with open(path, "r+b") as file:
            file.seek(member.offset_data)
            file.write(encoded(5, (40, 30))[:100])

    with pytest.raises(imgdata.SourceError, match=r"pets-val-000000\.tar: changed between listing and reading"):
        run(tmp_path / "first", tmp_path / "second", watch=Change(spoil, tar))


def test_the_state_of_the_source_is_no_part_of_the_files(raw, tmp_path):
    run(raw, tmp_path / "one")
    moved = tmp_path / "elsewhere" / "pets"
    shutil.copytree(raw, moved, copy_function=shutil.copyfile)
    run(moved, tmp_path / "two")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
