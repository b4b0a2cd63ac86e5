"""What the system fails at while a source is read is no image's fault: it is tried again, then stops the run."""

import errno
import json
import os

import pytest
import simplejpeg
from imgdata_cli.main import main
from PIL import Image

import imgdata
from imgdata import Encoding, ShardOptions
from support.rawdata import class_folders, encoded

PASSING = ["EIO", "EMFILE", "ENFILE", "ESTALE", "ENOMEM", "ETIMEDOUT", "EAGAIN"]
LASTING = ["EACCES", "EPERM", "ENOENT"]


@pytest.fixture
def raw(tmp_path):
    return class_folders(tmp_path / "pets", {"train": 4, "val": 2})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("imgdata.sources.reading.RETRY_S", (0.0, 0.0, 0.0))


@pytest.fixture
def failing(monkeypatch):
    """`failing(call, code, part, times)`: `os.call` fails `times` times for paths with `part` in them."""

    def install(call, code, part, times):
        original, left = getattr(os, call), [times]

        def wrapped(path, *arguments, **options):
            if isinstance(path, str) and part in path and left[0] > 0:
                left[0] -= 1
                raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), path)
            return original(path, *arguments, **options)

        monkeypatch.setattr(os, call, wrapped)

    return install


def sources(out):
    dataset = imgdata.open(out)
    return sorted(name for split in dataset.values() for name in split.index.column("source").to_pylist())


def all_images(raw):
    return sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.jpg"))


@pytest.mark.parametrize("code", PASSING)
def test_an_error_that_passes_costs_no_image(raw, tmp_path, failing, code):
    failing("open", code, "cat/001.jpg", times=2)
    summary = imgdata.shard(raw, tmp_path / "out", workers=1)
    assert summary.rejected == {}
    assert sources(tmp_path / "out") == all_images(raw)


@pytest.mark.parametrize("code", PASSING + LASTING)
def test_an_error_that_stays_stops_the_run_with_the_name_and_the_run_can_be_resumed(
    raw, tmp_path, monkeypatch, capfd, code
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        original = os.open

        def broken(path, *arguments, **options):
            if isinstance(path, str) and "val/dog/001.jpg" in path:
                raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), path)
            return original(path, *arguments, **options)

        patch.setattr(os, "open", broken)
        with pytest.raises(SystemExit) as ended:
            main(["shard", str(raw), str(out), "--shard-samples", "3", "--workers", "1"])
    said = capfd.readouterr().err
    assert ended.value.code == 1
    assert "val/dog/001.jpg" in said
    assert "Traceback" not in said
    assert not (out / "dataset.json").exists()
    summary = imgdata.shard(raw, out, ShardOptions(shard_samples=3), workers=1)
    assert summary.resumed_shards == 0 or summary.samples_written < summary.samples
    assert sources(out) == all_images(raw)
    assert imgdata.verify(out) == []


def no_decoder(*arguments, **options):
    raise ValueError("could not create decoder object")


def no_libjpeg_memory(*arguments, **options):
    raise ValueError("Insufficient memory (case 4)")


def no_memory(*arguments, **options):
    raise MemoryError


@pytest.mark.parametrize("fault", [no_decoder, no_libjpeg_memory, no_memory])
def test_short_memory_stops_the_run_instead_of_rejecting_images(raw, tmp_path, monkeypatch, fault):
    with monkeypatch.context() as patch:
        patch.setattr(simplejpeg, "decode_jpeg", fault)
        with pytest.raises(imgdata.SourceError, match=r"\.jpg: not enough memory .* --workers .* resumes"):
            imgdata.shard(raw, tmp_path / "out", workers=1)
    assert imgdata.shard(raw, tmp_path / "out", workers=1).rejected == {}


def test_memory_that_was_short_once_costs_no_image(raw, tmp_path, monkeypatch):
    original, left = simplejpeg.decode_jpeg, [2]

    def decode(*arguments, **options):
        left[0] -= 1
        return no_decoder() if left[0] >= 0 else original(*arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    assert imgdata.shard(raw, tmp_path / "out", workers=1).rejected == {}


def test_pillow_without_memory_stops_the_run_too(tmp_path, monkeypatch):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.png").write_bytes(encoded(1, format="PNG"))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "resize", no_memory)
        with pytest.raises(imgdata.SourceError, match=r"a/0\.png: not enough memory|in: not enough memory"):
            imgdata.shard(
                tmp_path / "in", tmp_path / "out", ShardOptions(encoding=Encoding(resize=8, format="png")), workers=1
            )


def test_a_file_without_the_right_to_read_it_stops_the_run(unprivileged_folder):
    raw = class_folders(unprivileged_folder / "in", {"": 2})
    (raw / "cat" / "000.jpg").chmod(0)
    with pytest.raises(imgdata.SourceError, match=r"cat/000\.jpg: may not be read .* --exclude"):
        imgdata.shard(raw, unprivileged_folder / "out", workers=1)
    summary = imgdata.shard(raw, unprivileged_folder / "out", ShardOptions(exclude=("cat/000.jpg",)), workers=1)
    assert summary.samples == 5


def test_a_folder_without_the_right_to_list_it_stops_the_run(unprivileged_folder):
    raw = class_folders(unprivileged_folder / "in", {"": 2})
    (raw / "cat").chmod(0)
    try:
        with pytest.raises(imgdata.SourceError, match="cat: can't read"):
            imgdata.shard(raw, unprivileged_folder / "out", workers=1)
    finally:
        (raw / "cat").chmod(0o700)


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "EMFILE"])
def test_an_entry_that_the_system_can_not_look_at_is_never_passed_over(raw, tmp_path, failing, code):
    # A link to a folder of images: whether it is a folder is asked of the system.
    (raw / "train" / "zebra").symlink_to(class_folders(tmp_path / "more", {"": 1}) / "cat")
    failing("stat", code, "zebra", times=1000)
    with pytest.raises(imgdata.SourceError, match="zebra"):
        imgdata.shard(raw, tmp_path / "out", workers=1)


def test_the_bytes_own_faults_are_still_left_out_with_the_reason(raw, tmp_path):
    (raw / "train" / "cat" / "000.jpg").write_bytes(encoded(2)[:-300])
    out = tmp_path / "out"
    assert imgdata.shard(raw, out, workers=1).rejected == {"truncated": 1}
    [line] = (out / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "train/cat/000.jpg"
