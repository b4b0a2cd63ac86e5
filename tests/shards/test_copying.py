"""Images that are copied as they are: the compiled way and Python's write the same bytes, and refuse the same files."""

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import xxhash

import imgdata
from imgdata import ShardOptions, native
from imgdata.errors import ImageError, SourceError
from imgdata.images.probe import probe
from imgdata.native.copying import GO_ON, LEFT, Block, SamplesToCopy, TarHash, copy_samples, makes_tar_hash
from imgdata.shards import copying, tar_file, writer
from imgdata.shards.engines import local
from imgdata.shards.hashing import new_hash
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from imgdata.sources.reading import with_states
from imgdata.tar.archive import members, ustar_header
from support.pictures import can_write, cmyk_jpeg, exif, with_segment
from support.rawdata import class_folders, encoded
from support.rawdata import picture as pixels
from support.tars import pairs, write_tar

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")


def picture(format, mode="RGB", size=(40, 30), **options):
    target = io.BytesIO()
    pixels(3, size).convert(mode).save(target, format, **options)
    return target.getvalue()


def zoo():
    """Name -> bytes: usual pictures, odd ones, bad ones, and no pictures."""
    plain = encoded(1)
    start = plain.index(b"\xff\xdb")
    files = {
        "plain.jpg": plain,
        "gray.jpg": picture("JPEG", "L"),
        "progressive.jpg": picture("JPEG", progressive=True),
        **{f"cmyk{transform}.jpg": cmyk_jpeg(transform) for transform in (None, 0, 2)},
        "fill-bytes.jpg": plain[:2] + b"\xff" * 5 + plain[2:],
        "bytes-between-segments.jpg": plain[:start] + b"\0\1\2\3" + plain[start:],
        "stuffed.jpg": plain[:start] + b"\xff\x00\xff\x01" + plain[start:],
        "empty-segment.jpg": plain[:2] + b"\xff\xe1\0\2" + plain[2:],
        "short-app1.jpg": plain[:2] + b"\xff\xe1\0\5Exi" + plain[2:],
        "no-length.jpg": plain[:2] + b"\xff\xe1\0\1" + plain[2:],
        "adobe.jpg": plain[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1" + plain[2:],
        "twelve-bits.jpg": plain.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "no-width.jpg": plain.replace(b"\xff\xc0\0\x11\x08\0", b"\xff\xc0\0\x11\x08\0\0\0\0", 1),
        "two-components.jpg": plain.replace(b"\xff\xc0\0\x11", b"\xff\xc0\0\x11", 1).replace(
            b"\x03\x01", b"\x02\x01", 1
        ),
        "many-scans.jpg": picture("JPEG", progressive=True) + b"\xff\xda" * 101,
        "cut-in-header.jpg": plain[:100],
        "cut-in-picture.jpg": plain[:-100],
        "only-start.jpg": b"\xff\xd8",
        "ends-at-once.jpg": b"\xff\xd8\xff\xd9",
        "no-frame.jpg": b"\xff\xd8\xff\xda\0\x0c" + bytes(40),
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "zeros.jpg": bytes(2000),
        "html.jpg": b"<!doctype html><html>",
        "riff.jpg": b"RIFF",
        "png-in-disguise.jpg": picture("PNG"),
        "animated.gif": picture("GIF"),
        "picture.bmp": picture("BMP"),
        **{f"turned{number}.jpg": with_segment(plain, 0xE1, exif(number)) for number in (1, 3, 6, 8, 9)},
        **{f"png-{mode}.png": picture("PNG", mode) for mode in ("L", "LA", "P", "RGB", "RGBA", "1", "I;16")},
        "png-pa.png": picture("PNG", "P", transparency=0),
        "png-cut.png": picture("PNG")[:60],
        "png-signature.png": picture("PNG")[:8],
        "png-no-header.png": picture("PNG")[:8] + picture("PNG")[33:],
        "png-type.png": picture("PNG")[:25] + b"\x05" + picture("PNG")[26:],
        "png-huge.png": picture("PNG")[:16] + b"\x7f\xff\xff\xff" * 2 + picture("PNG")[24:],
        "block.jpg": plain + bytes(-len(plain) % 512),
        "almost-a-block.jpg": plain + bytes(511 - len(plain) % 512),
        "larger-than-a-block-of-the-tar.jpg": plain + bytes(70_000),
        ("long-" + "n" * 150) + ".jpg": encoded(2),
        "\u00fcml\u00e4ut \u540d.jpg": encoded(3),
        "dots.and,commas.jpg": encoded(4),
    }
    if can_write("WEBP"):
        files |= {
            "lossy.webp": picture("WEBP"),
            "lossless.webp": picture("WEBP", lossless=True),
            "alpha.webp": picture("WEBP", "RGBA", lossless=True),
            "cut.webp": picture("WEBP")[:20],
            "vp8-broken.webp": picture("WEBP")[:23] + b"xxx" + picture("WEBP")[26:],
        }
    return files


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo") / "raw"
    for number, (name, data) in enumerate(sorted(zoo().items())):
        path = root / ("abc"[number % 3]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    # A name that is no text.
    (root / "a" / os.fsdecode(b"latin-\xe4.jpg")).write_bytes(encoded(5))
    return root


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def both_ways(raw, tmp_path, monkeypatch, options, read=None):
    """Digests of the folders that the compiled way and Python's write, and how many samples the first left."""
    left = []
    take = writer._Shard._take
    with monkeypatch.context() as patch:
        patch.setattr(writer._Shard, "_take", lambda self, ref, found: (left.append(ref.name), take(self, ref, found)))
        imgdata.shard(raw, tmp_path / "compiled", options, read=read, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(native, "AVAILABLE", False)
        imgdata.shard(raw, tmp_path / "python", options, read=read, workers=1)
    return digests(tmp_path / "compiled"), digests(tmp_path / "python"), left


@pytest.mark.parametrize("check", ["header", "none"])
@pytest.mark.parametrize("hash", ["sha256", "xxh128", "none"])
@pytest.mark.parametrize("cores", [1, 2])
def test_a_zoo_of_files_gives_the_same_folder_both_ways(raw, tmp_path, monkeypatch, check, hash, cores):
    monkeypatch.setattr(local, "own_cores", lambda: [0] * cores)
    options = ShardOptions(name="zoo", check=check, hash=hash, shard_samples=7)
    compiled, python, left = both_ways(raw, tmp_path, monkeypatch, options)
    assert compiled == python
    assert 0 < len(left) < len(zoo()) - 25
    assert imgdata.verify(tmp_path / "compiled", workers=1) == []


@pytest.mark.parametrize("block_bytes", [4096, 10_000, 1 << 20])
@pytest.mark.parametrize("cores", [1, 2])
def test_blocks_of_every_size_give_the_same_tar(raw, tmp_path, monkeypatch, block_bytes, cores):
    monkeypatch.setattr(local, "own_cores", lambda: [0] * cores)
    monkeypatch.setitem(tar_file.TarFile.__init__.__kwdefaults__, "block_bytes", block_bytes)
    options = ShardOptions(name="zoo", check="header")
    compiled, python, left = both_ways(raw, tmp_path, monkeypatch, options)
    assert compiled == python
    assert any("larger-than" in name for name in left) == (block_bytes < 70_000)


def test_images_without_labels_are_copied_alone(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "raw", {"": 3})
    compiled, python, left = both_ways(
        raw, tmp_path, monkeypatch, ShardOptions(check="header"), SourceOptions(label_from="none")
    )
    assert compiled == python
    assert not left
    [tar] = (tmp_path / "compiled").glob("*.tar")
    assert all(member.name.endswith(".jpg") for member in members(tar))


def test_images_in_tars_are_copied_out_of_them(tmp_path, monkeypatch):
    write_tar(tmp_path / "raw" / "x-train-000000.tar", pairs(12))
    compiled, python, left = both_ways(tmp_path / "raw", tmp_path, monkeypatch, ShardOptions(check="header"))
    assert compiled == python
    assert not left


def test_no_file_stays_open(tmp_path):
    raw = class_folders(tmp_path / "raw", {"": 30})
    # Left to Python while others are open ahead.
    (raw / "dog" / "004.jpg").write_bytes(b"text")
    write_tar(tmp_path / "tars" / "x-train-000000.tar", pairs(40))
    before = os.listdir("/proc/self/fd")
    for number, source in enumerate((raw, tmp_path / "tars") * 2):
        imgdata.shard(source, tmp_path / f"out{number}", ShardOptions(check="header"), workers=1)
    # The reader of the tars keeps theirs open until it goes.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2


def test_a_picture_with_more_pixels_than_allowed_is_bad_both_ways(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "raw", {"": 2})
    (raw / "cat" / "large.jpg").write_bytes(picture("JPEG", size=(90, 60)))
    compiled, python, left = both_ways(raw, tmp_path, monkeypatch, ShardOptions(check="header", max_pixels=5000))
    assert compiled == python
    assert left == ["cat/large.jpg"]
    assert json.loads((tmp_path / "compiled" / "rejects.jsonl").read_text())["reason"] == "too-large"


def test_a_limit_of_pixels_may_be_any_number(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "raw", {"": 2})
    compiled, python, left = both_ways(raw, tmp_path, monkeypatch, ShardOptions(check="header", max_pixels=10**30))
    assert compiled == python
    assert left == []


@pytest.mark.parametrize(
    "options", [{"check": "decode"}, {"on_bad": "repair"}, {"json_members": True}, {"crop_ready": True}]
)
def test_what_needs_more_than_a_copy_is_not_copied(tmp_path, monkeypatch, options):
    monkeypatch.setattr(tar_file, "copy_samples", None)
    raw = class_folders(tmp_path / "raw", {"": 2})
    summary = imgdata.shard(raw, tmp_path / "out", ShardOptions(**{"check": "header", **options}), workers=1)
    assert summary.samples_written == 6


# What changes between listing and reading.


def reach(raw):
    listing, state = with_states(list_source(str(raw), SourceOptions()))
    return listing, state


def shard_after(raw, out, change, monkeypatch):
    """Shard `raw`, which `change` changes when it is listed."""
    make_plan = writer.__dict__.get("make_plan")
    assert make_plan is None
    from imgdata.shards import begun

    original = begun.make_plan

    def changed(*arguments):
        plan = original(*arguments)
        change()
        return plan

    monkeypatch.setattr(begun, "make_plan", changed)
    monkeypatch.setattr("imgdata.sources.reading.RETRY_S", (0.0, 0.0, 0.0))
    return imgdata.shard(raw, out, ShardOptions(check="header"), workers=1)


@pytest.mark.parametrize("way", ["compiled", "python"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "changed between listing and reading"),
        (lambda path: os.truncate(path, 100), "changed between listing and reading"),
        (lambda path: os.utime(path, ns=(1, 1)), "changed between listing and reading"),
        (lambda path: path.unlink(), "was listed and is gone"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "a named pipe, must be a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "a folder, must be a regular file"),
        (lambda path: (path.unlink(), path.symlink_to(path.name)), "Too many levels of symbolic links"),
        (lambda path: (path.unlink(), path.symlink_to("/proc/self/mem")), "Input/output error"),
    ],
)
def test_a_file_that_is_not_as_it_was_listed_stops_the_run_with_its_name(tmp_path, monkeypatch, way, change, message):
    raw = class_folders(tmp_path / "raw", {"": 5})
    path = raw / "dog" / "002.jpg"
    monkeypatch.setattr(native, "AVAILABLE", way == "compiled")
    with pytest.raises(SourceError, match=message) as raised:
        shard_after(raw, tmp_path / "out", lambda: change(path), monkeypatch)
    assert "dog/002.jpg" in str(raised.value)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_file_of_the_same_size_that_was_written_anew_stops_the_run(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "raw", {"": 5})
    path = raw / "dog" / "002.jpg"

    def change():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes(len(data)))
        os.utime(path, ns=(2, 2))

    with pytest.raises(SourceError, match=r"002\.jpg: changed between listing and reading"):
        shard_after(raw, tmp_path / "out", change, monkeypatch)


def test_the_states_of_files_are_the_same_both_ways(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "raw", {"train": 5, "val": 2})
    (raw / "train" / "cat" / "link.jpg").symlink_to(raw / "train" / "cat" / "000.jpg")
    (raw / "train" / "cat" / "nowhere.jpg").symlink_to("nothing.jpg")
    (raw / "train" / "cat" / "folder.jpg").mkdir()
    os.mkfifo(raw / "train" / "cat" / "pipe.jpg")
    compiled, state = reach(raw)
    monkeypatch.setattr(native, "AVAILABLE", False)
    python, same = reach(raw)
    assert state == same
    assert compiled.state_N.tolist() == python.state_N.tolist()
    assert compiled.size_N.tolist() == python.size_N.tolist()
    assert compiled.skipped == python.skipped


# The parts.


def copied(data, tmp_path, max_pixels=10**9):
    """What `copy_samples` finds in `data`: its facts, or None where it leaves the file to Python."""
    path = tmp_path / "one"
    path.write_bytes(data)
    samples = SamplesToCopy(
        paths=native.zero_ended([str(path)]),
        keys=b"key\0",
        wanted_N6=np.array([[0, 0, len(data), -1, -1, 0]], np.int64),
        extension="jpg",
        steady_devices=np.zeros(0, np.uint64),
    )
    found_N6 = np.zeros((1, 6), np.int64)
    block = memoryview(bytearray(1 << 20))
    room = Block(block, 0, 0, TarHash("none"))
    done, used, position, outcome, _ = copy_samples(samples, found_N6, first=0, block=room, max_pixels=max_pixels)
    if outcome == LEFT:
        assert (done, used) == (0, 0)
        return None
    assert (done, position, outcome) == (1, 0, GO_ON)
    assert bytes(block[:used]) == bytes(ustar_header(b"key.jpg", len(data))) + data + bytes(-len(data) % 512)
    offset, xxh64, *facts = found_N6[0].tolist()
    assert offset == 512
    assert xxh64 % 2**64 == xxhash.xxh64_intdigest(data)
    return copying._info(*facts)


def expected(data):
    try:
        return probe(data)
    except ImageError:
        return None


def test_what_the_compiled_part_says_of_a_header_is_what_probe_says(tmp_path):
    known = 0
    for name, data in zoo().items():
        found = copied(data, tmp_path)
        assert found in (None, expected(data)), name
        known += found is not None
    assert known >= 30


def test_damaged_headers_get_the_same_verdict_or_none(tmp_path):
    generator = random.Random(7)
    whole = [data for data in zoo().values() if len(data) > 40]
    for _ in range(1500):
        data = bytearray(generator.choice(whole))
        for _ in range(generator.randint(1, 6)):
            data[generator.randrange(min(len(data), 700))] = generator.choice((0, 1, 0xFF, generator.randrange(256)))
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        assert copied(bytes(data), tmp_path) in (None, expected(bytes(data))), bytes(data[:700]).hex()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("value", [0, 1, 5, 8, 9, 1 << 16])
@pytest.mark.parametrize("count", [0, 1, 2, 400])
def test_orientations_are_read_as_probe_reads_them(tmp_path, order, kind, value, count):
    packed = struct.pack(order + "H2x", value & 0xFFFF) if kind == 3 else struct.pack(order + "I", value)
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count)
    tiff += struct.pack(order + "HHI", 0x100, 3, 1) + bytes(4) + struct.pack(order + "HHI", 0x112, kind, 1) + packed
    payload = b"Exif\0\0" + tiff
    plain = encoded(1)
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + plain[2:]
    assert copied(data, tmp_path) == expected(data)


@pytest.mark.parametrize("size", [*range(0, 80), 1000, 86_000])
def test_hashes_are_those_of_xxhash_for_every_length(tmp_path, size):
    data = encoded(1) + random.Random(size).randbytes(size)
    assert copied(data, tmp_path) is not None


@pytest.mark.parametrize("kind", ["xxh128", "sha256", "none"])
@pytest.mark.parametrize("piece", [64, 1024, 10_240, 1 << 20])
def test_hashes_of_tars_are_those_of_other_programs(kind, piece):
    if not makes_tar_hash(kind):
        pytest.skip(f"this processor has no instructions for {kind}")
    for blocks in (1, 2, 3, 15, 16, 17, 33, 1000):
        data = random.Random(blocks).randbytes(512 * blocks)
        ours, theirs = TarHash(kind), new_hash(kind)
        for start in range(0, len(data), piece):
            ours.update(data[start : start + piece])
            ours.update(b"")
        theirs.update(data)
        assert ours.hexdigest() == theirs.hexdigest(), blocks


def test_arguments_out_of_range_are_refused(tmp_path):
    path = tmp_path / "one"
    path.write_bytes(encoded(1))
    name = native.zero_ended([str(path)])
    good = np.array([[0, 0, path.stat().st_size, -1, 3, 0]], np.int64)
    block = memoryview(bytearray(1 << 16))

    def call(wanted=good, keys=b"key\0", found=None, first=0, used=0, paths=name, hash=None, tar=-1):
        samples = SamplesToCopy(paths, keys, wanted, "jpg", np.zeros(0, np.uint64))
        found = np.zeros((len(wanted), 6), np.int64) if found is None else found
        room = Block(block, used, 0, hash or TarHash("none"), tar)
        return copy_samples(samples, found, first=first, block=room, max_pixels=10**9)

    other = TarHash("xxh128")
    other.state = np.zeros(3, np.uint64)

    assert call()[0] == 1
    for column, value in ((0, 500), (0, -1), (1, 4), (2, -1), (2, 2**62), (4, 2**31)):
        wrong = good.copy()
        wrong[0, column] = value
        with pytest.raises(ValueError, match="out of range"):
            call(wrong)
    for wrong in (
        {"keys": b"k" * 97 + b"\0"},
        {"keys": b"key"},
        {"paths": b"/tmp"},
        {"found": np.zeros((2, 6), np.int64)},
        {"first": 2},
        {"first": -1},
        {"used": -1},
        {"used": (1 << 16) + 1},
        {"hash": other, "tar": 0},
    ):
        with pytest.raises(ValueError, match="out of range"):
            call(**wrong)
    for call_hash in (lambda: other.update(bytes(64)), other.hexdigest, lambda: TarHash("none").update(bytes(63))):
        with pytest.raises(ValueError, match=r"no state of one|in blocks"):
            call_hash()
    with pytest.raises(ValueError, match="a row of facts"):
        native._compiled.stat_files(b"/\0", np.zeros((2, 7), np.int64))
    with pytest.raises(ValueError, match="pairs"):
        native.is_tar_of(0, b"name", np.zeros((1, 2), np.int64))


def test_a_finished_tar_is_compared_with_what_was_meant(tmp_path):
    out = tmp_path / "out"
    imgdata.shard(class_folders(tmp_path / "raw", {"": 4}), out, ShardOptions(check="header"), workers=1)
    [tar] = out.glob("*.tar")
    found = list(members(tar))
    names = "".join(f"{member.name}\0" for member in found).encode()
    place_M2 = np.array([member[1:] for member in found], np.int64)
    data = tar.read_bytes()

    def is_right(data=data, names=names, place_M2=place_M2):
        tar.write_bytes(data)
        with open(tar, "rb") as file:
            return native.is_tar_of(file.fileno(), names, place_M2)

    assert is_right()
    assert not is_right(data[:-512])
    assert not is_right(data + bytes(512))
    assert not is_right(names=names[: names.rindex(b"\0", 0, -1) + 1])
    assert not is_right(place_M2=place_M2[:-1])
    header = int(place_M2[2, 0]) - 512
    for at in (0, 130, 150, 156, 345, header, header + 124, len(data) - 1, len(data) - 1024):
        assert not is_right(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]), at
    moved = place_M2.copy()
    moved[1, 0] += 512
    assert not is_right(place_M2=moved)


def test_a_shard_that_is_not_what_was_meant_is_no_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_file, "END_OF_ARCHIVE", b"x" * 1024)
    with pytest.raises(imgdata.ShardError, match="the disk or the memory of this machine may be faulty"):
        imgdata.shard(
            class_folders(tmp_path / "raw", {"": 4}), tmp_path / "out", ShardOptions(check="header"), workers=1
        )
    assert not list((tmp_path / "out").glob("*.tar"))


# Whoever wants to stop, and disks that are full.


def test_ctrl_c_ends_a_run_of_copies_at_once_and_it_can_be_resumed(tmp_path):
    raw = tmp_path / "raw"
    first = None
    for number in range(3000):
        path = raw / str(number % 3) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            path.write_bytes(encoded(1, (300, 200)))
            first = path
        else:
            os.link(first, path)
    options = ["--check", "header", "--hash", "none", "--shard-samples", "100", "--workers", "2", "--quiet"]
    script = "import imgdata_cli.main as m; m.main()"
    slow = (
        "import time; from imgdata.shards import tar_file as t; copy = t.TarFile.copy\n"
        "def slowly(self, *what, **more): time.sleep(0.3); return copy(self, *what, **more)\n"
        "t.TarFile.copy = slowly\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", slow + script, "shard", str(raw), str(out), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list((out / ".imgdata").glob("*.tmp")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert not (out / "dataset.json").exists()
    subprocess.run([sys.executable, "-c", script, "shard", str(raw), str(out), *options], check=True)
    assert imgdata.verify(out, workers=1) == []


@pytest.mark.parametrize("hash", ["sha256", "none"])
@pytest.mark.parametrize("cores", [1, 2])
def test_a_disk_that_is_full_is_said_once(tmp_path, monkeypatch, hash, cores):
    open_file = os.open

    def full(path, flags, *mode, **options):
        # The tar alone: its bytes go to a device that has no room for any.
        is_tar = ".tar." in str(path) and flags & os.O_WRONLY
        return open_file("/dev/full" if is_tar else path, flags, *mode, **options)

    monkeypatch.setattr(local, "own_cores", lambda: [0] * cores)
    monkeypatch.setitem(tar_file.TarFile.__init__.__kwdefaults__, "block_bytes", 8192)
    raw = class_folders(tmp_path / "raw", {"": 20})
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(imgdata.OutputError, match="no space left on the disk"):
            imgdata.shard(raw, tmp_path / "out", ShardOptions(check="header", hash=hash), workers=1)
    assert not list((tmp_path / "out").glob("*.tar"))
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "out" / ".imgdata").glob("*.tmp"))
    imgdata.shard(raw, tmp_path / "out", ShardOptions(check="header", hash=hash), workers=1)
    assert imgdata.verify(tmp_path / "out", workers=1) == []
