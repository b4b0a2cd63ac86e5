"""Bad input through the command line: one clear message, a non-zero exit code, nothing half-written."""

import errno
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import pytest
from click.testing import CliRunner
from imgdata_cli.main import cli, main
from PIL import Image

import imgdata
from imgdata import ShardOptions
from support.rawdata import class_folders, encoded, picture


@pytest.fixture
def shard(capfd):
    """Run `imgdata shard ...` in this process; returns exit code, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["shard", *map(str, arguments), "--workers", "1"])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return run


def one_class(root, files):
    (root / "a").mkdir(parents=True)
    (root / "a" / "good.jpg").write_bytes(encoded(1))
    for name, data in files.items():
        (root / "a" / name).write_bytes(data)
    return root


def png_header(width, height):
    """A PNG that promises much and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.mkdir(), "empty"),
        (lambda root: None, "no such file or folder"),
        (lambda root: one_class(root, {}) / "a", "no labels"),
        (lambda root: (root.mkdir(), (root / "notes.docx").write_bytes(b"x")), "looked for"),
    ],
    ids=["empty", "absent", "no labels", "unknown layout"],
)
def test_sources_that_can_not_be_used(tmp_path, shard, make, message):
    made = make(tmp_path / "in")
    source = made if made is not None and not isinstance(made, tuple) else tmp_path / "in"
    code, _, said = shard(source, tmp_path / "out")
    assert code == 1
    assert message in said.lower()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("zero.jpg", b"", "empty"),
        ("cut.jpg", encoded(2)[:-300], "truncated"),
        ("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "not-an-image"),
        ("bomb.png", png_header(60_000, 60_000), "too-large"),
        ("header.png", png_header(10, 10)[:20], "truncated"),
    ],
)
def test_bad_images_are_left_out_with_the_reason(tmp_path, shard, name, data, reason):
    one_class(tmp_path / "in", {name: data})
    code, out, _ = shard(tmp_path / "in", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["rejected"] == {reason: 1}
    [line] = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert {k: json.loads(line)[k] for k in ("split", "source", "reason")} == {
        "split": "train",
        "source": f"a/{name}",
        "reason": reason,
    }
    assert [sample.key for sample in imgdata.open(tmp_path / "out")["train"]] == ["a/good"]


def test_on_bad_fail_stops_at_the_first_bad_image_and_names_it(tmp_path, shard):
    one_class(tmp_path / "in", {"cut.jpg": encoded(2)[:-300]})
    code, _, said = shard(tmp_path / "in", tmp_path / "out", "--on-bad", "fail")
    assert code == 1
    assert "a/cut.jpg" in said
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_split_without_one_usable_image_is_an_error(tmp_path, shard):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.jpg").write_bytes(b"")
    code, _, said = shard(tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert "not one of its 1 images can be used" in said


def test_a_huge_header_takes_no_memory(tmp_path):
    one_class(tmp_path / "in", {"bomb.png": png_header(60_000, 60_000)})
    script = (
        "import sys, imgdata; imgdata.shard(sys.argv[1], sys.argv[2], workers=1);"
        "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "in", tmp_path / "out"], stdout=subprocess.PIPE, check=True
    )
    # The largest resident set in KB. Decoded, the image would take 10 GB.
    assert int(done.stdout) / 1024 < 500


def exif_rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture(3).save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def animated_gif():
    buffer = io.BytesIO()
    picture(1).save(buffer, "GIF", save_all=True, append_images=[picture(2)])
    return buffer.getvalue()


ODD = {
    "cmyk.jpg": (encoded(4, mode="CMYK"), "cmyk"),
    "png_named.jpg": (encoded(5, format="PNG"), "png as jpg"),
    "turned.jpg": (exif_rotated(6), "rotated"),
    "moving.gif": (animated_gif(), "animated"),
}


@pytest.mark.parametrize("name", ODD)
def test_repair_makes_odd_images_upright_rgb_and_says_so(tmp_path, shard, name):
    data, what = ODD[name]
    one_class(tmp_path / "in", {name: data, "good2.jpg": encoded(9)})
    code, _, _ = shard(tmp_path / "in", tmp_path / "out", "--on-bad", "repair")
    assert code == 0
    split = imgdata.open(tmp_path / "out")["train"]
    key = "a/" + name.split(".")[0]
    image = Image.open(io.BytesIO(split[split.find(key)].image))
    assert (image.format, image.mode, image.getexif().get(0x0112, 1)) == ("JPEG", "RGB", 1)
    [line] = (tmp_path / "out" / "repairs.jsonl").read_text().splitlines()
    assert what in json.loads(line)["repaired"]
    # The others keep their bytes.
    assert split[split.find("a/good")].image == encoded(1)


def test_by_default_odd_images_keep_their_bytes_and_are_counted(tmp_path, shard):
    one_class(tmp_path / "in", {name: data for name, (data, _) in ODD.items() if not name.endswith("gif")})
    code, _, said = shard(tmp_path / "in", tmp_path / "out")
    assert code == 0
    split = imgdata.open(tmp_path / "out")["train"]
    for name, (data, _) in ODD.items():
        if not name.endswith("gif"):
            assert split[split.find("a/" + name.split(".")[0])].image == data
    assert "1 CMYK" in said
    assert "1 EXIF-rotated" in said
    assert "1 png images are stored as .jpg" in said


def test_truncated_images_are_never_repaired_into_gray(tmp_path, shard):
    one_class(tmp_path / "in", {"cut.jpg": encoded(2, (400, 300))[:-2000]})
    code, out, _ = shard(tmp_path / "in", tmp_path / "out", "--on-bad", "repair", "--resize", "32", "--json")
    assert code == 0
    assert json.loads(out)["rejected"] == {"truncated": 1}


def test_strange_names_become_keys_that_every_reader_takes(tmp_path, shard):
    names = ["a.b.c.jpg", "two words.jpg", "größe.jpg", "日本.jpg", "x" * 240 + ".jpg", "a_b_c.jpg", "a b c.jpg"]
    one_class(tmp_path / "in", {name: encoded(i) for i, name in enumerate(names)})
    code, _, _ = shard(tmp_path / "in", tmp_path / "out")
    assert code == 0
    split = imgdata.open(tmp_path / "out")["train"]
    keys = split.index.column("key").to_pylist()
    assert len(set(keys)) == len(names) + 1
    assert all(key.isascii() and " " not in key and "." not in key and len(key) < 93 for key in keys)
    by_source = dict(zip(split.index.column("source").to_pylist(), split, strict=True))
    for i, name in enumerate(names):
        assert by_source[f"a/{name}"].image == encoded(i)


def test_names_that_are_not_utf_8_survive(tmp_path, shard):
    one_class(tmp_path / "in", {})
    with open(os.fsencode(tmp_path / "in" / "a") + b"/caf\xe9.jpg", "wb") as file:
        file.write(encoded(7))
    code, _, _ = shard(tmp_path / "in", tmp_path / "out")
    assert code == 0
    assert encoded(7) in [sample.image for sample in imgdata.open(tmp_path / "out")["train"]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("picture,kind\n0.jpg,a\n", "--path-column"),
        ("path,label\n0.jpg,a\nmissing.jpg,b\nanother.jpg,b\n", "missing.jpg"),
        ("path,label\n0.jpg,\n", "line 2"),
    ],
    ids=["columns", "most files missing", "empty label"],
)
def test_tables_that_do_not_fit_their_folder(tmp_path, shard, table, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jpg").write_bytes(encoded(1))
    (tmp_path / "in" / "labels.csv").write_text(table)
    code, _, said = shard(tmp_path / "in", tmp_path / "out", "--table", tmp_path / "in" / "labels.csv")
    assert code == 1
    assert message in said


def test_a_few_files_that_a_table_names_and_that_are_missing_are_left_out_with_the_reason(tmp_path):
    one_class(tmp_path / "in", {"2.jpg": encoded(2)})
    rows = "path,label\na/good.jpg,x\na/gone.jpg,x\na/2.jpg,y\n"
    (tmp_path / "in" / "labels.csv").write_text(rows)
    assert imgdata.shard(tmp_path / "in", tmp_path / "out", workers=1).rejected == {"missing": 1}
    assert imgdata.shard(tmp_path / "in", tmp_path / "out", workers=1).already_complete


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "EACCES"])
def test_a_file_that_the_system_can_not_look_at_is_not_called_missing(tmp_path, monkeypatch, code):
    one_class(tmp_path / "in", {"2.jpg": encoded(2), "3.jpg": encoded(3)})
    rows = "path,label\na/good.jpg,x\na/3.jpg,x\na/2.jpg,y\n"
    (tmp_path / "in" / "labels.csv").write_text(rows)
    stat = os.stat

    def failing(path, *arguments, **options):
        if isinstance(path, str) and path.endswith("a/3.jpg"):
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), path)
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(imgdata.SourceError, match=r"3\.jpg: can't"):
        imgdata.shard(tmp_path / "in", tmp_path / "out", workers=1)


def test_a_class_that_only_val_has_is_pointed_out(tmp_path, shard):
    raw = class_folders(tmp_path / "in", {"train": 2, "val": 1})
    (raw / "val" / "zebra").mkdir()
    (raw / "val" / "zebra" / "0.jpg").write_bytes(encoded(5))
    code, _, said = shard(raw, tmp_path / "out")
    assert code == 0
    assert "zebra" in said


def test_a_class_that_lost_all_its_images_is_pointed_out(tmp_path):
    raw = class_folders(tmp_path / "in", {"": 2})
    for path in (raw / "newt").iterdir():
        path.write_bytes(b"")
    summary = imgdata.shard(raw, tmp_path / "out", workers=1)
    assert any("newt has no usable image left in train" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard-size", "big"], "not a size"),
        (["--shard-size", "5"], "at least"),
        (["--split", "train=0.5"], "1"),
        (["--check", "none", "--on-bad", "repair"], "can't be combined"),
        (["--resize", "0"], "0"),
        (["--source", "floppy"], "floppy"),
    ],
)
def test_options_without_a_meaning(tmp_path, shard, arguments, message):
    raw = class_folders(tmp_path / "in", {"": 1})
    code, _, said = shard(raw, tmp_path / "out", *arguments)
    assert code in (1, 2)
    assert message in said
    assert not (tmp_path / "out").exists()


def test_check_none_trusts_even_what_is_no_image(tmp_path):
    one_class(tmp_path / "in", {"page.jpg": b"<html>"})
    imgdata.shard(tmp_path / "in", tmp_path / "out", ShardOptions(check="none"), workers=1)
    split = imgdata.open(tmp_path / "out")["train"]
    assert {sample.format for sample in split} == {"jpeg", "unknown"}


@pytest.mark.parametrize(("check", "kept"), [("decode", 1), ("header", 2)])
def test_check_decides_whether_damage_behind_the_header_is_found(tmp_path, check, kept):
    one_class(tmp_path / "in", {"cut.jpg": encoded(2)[:-300]})
    imgdata.shard(tmp_path / "in", tmp_path / "out", ShardOptions(check=check), workers=1)
    assert len(imgdata.open(tmp_path / "out")["train"]) == kept


def test_help_names_every_command():
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert all(name in shown for name in ("shard", "index", "verify", "inspect", "export"))


def test_quiet_prints_nothing(tmp_path, shard):
    raw = class_folders(tmp_path / "in", {"": 1})
    assert shard(raw, tmp_path / "out", "--quiet") == (0, "", "")
