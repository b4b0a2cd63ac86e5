"""What foreign files say reaches the terminal as text, and whatever ends a command is one line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from imgdata_cli import main as command_line

import imgdata
from imgdata.tables import new_console, new_table, printable
from support.patience import PATIENCE_S
from support.rawdata import encoded
from support.tars import dataset, write_tar

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def run(*arguments, **options):
    words = [sys.executable, "-m", "imgdata_cli.main", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, **options)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ESCAPE, r"\x1b]0;owned\x07\x1b[2J"),
        ("a\rb\x9bc\x7f", r"a\rb\x9bc\x7f"),
        ("a\u202eb\u2028", r"a\u202eb\u2028"),
        ("\udcff", r"\udcff"),
        ("lines\nand\ttabs, ä 😀 日本", "lines\nand\ttabs, ä 😀 日本"),
    ],
)
def test_control_characters_are_written_out(text, shown, capsys):
    assert printable(text) == shown
    new_console(width=200).print(text)
    table = new_table()
    table.add_column("title")
    table.add_row(text)
    new_console(width=200).print(table)
    printed = capsys.readouterr().out
    assert not any(letter in printed for letter in "\x1b\x07\r\x9b\x7f\u202e\udcff")


def test_names_and_classes_of_a_dataset_can_not_reach_the_terminal(tmp_path):
    tar = write_tar(tmp_path / "a.tar", [(f"{ESCAPE}a.jpg", encoded(0)), (f"{ESCAPE}a.txt", ESCAPE.encode())])
    imgdata.index(tar, label_from="txt")
    (tmp_path / "a.tar").write_bytes(tar.read_bytes()[:700])
    for arguments in (
        ["inspect", tmp_path],
        ["inspect", tmp_path, "--sample", "x"],
        ["verify", tmp_path],
        ["index", tmp_path],
    ):
        done = run(*arguments)
        assert "\x1b" not in done.stdout + done.stderr, arguments
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(5, "Input/output error", "/data/x"), "imgdata: /data/x: Input/output error"),
        (OSError("no more"), "imgdata: no more"),
        (MemoryError(), "imgdata: the memory is used up"),
        (RecursionError(), "imgdata: folders or data are nested too deeply"),
        (imgdata.ShardError(f"x{ESCAPE}"), r"imgdata: x\x1b]0;owned"),
    ],
)
def test_whatever_ends_a_command_is_one_line(monkeypatch, capsys, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(command_line.cli, "main", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        command_line.main([])
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith(line)
    assert told.count("\n") == 1


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(command_line.cli, "main", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        command_line.main([])


def test_debug_shows_where(tmp_path):
    long = "n" * 300
    plain, debug = (
        run("export", dataset(tmp_path / "own"), tmp_path / long),
        run("--debug", "export", tmp_path / "own", long),
    )
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert plain.stderr.startswith("imgdata: ")
    assert plain.stderr.count("\n") == 1
    assert "Traceback" in debug.stderr
    assert "File name too long" in debug.stderr


def test_an_interruption_while_modules_are_imported_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == os.environ['INTERRUPT_AT']:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    for module in ("click", "imgdata.tables", "imgdata_cli.commands.verify", "pyarrow"):
        paths = os.pathsep.join([str(tmp_path), *os.environ["PYTHONPATH"].split(os.pathsep)])
        done = run("verify", tmp_path, env={**os.environ, "PYTHONPATH": paths, "INTERRUPT_AT": module})
        assert done.returncode == 130, (module, done.stderr)
        assert "Traceback" not in done.stderr


def reads(program, path):
    """Whether a program that was started has the file open, or has ended."""
    if program.poll() is not None:
        return True
    with contextlib.suppress(OSError):
        return any(os.path.realpath(one) == str(path) for one in Path(f"/proc/{program.pid}/fd").iterdir())
    return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks in /proc for what a program has open")
def test_ctrl_c_ends_index_within_seconds(tmp_path):
    tar = write_tar(tmp_path / "a.tar", [(f"s{i:06d}.jpg", encoded(i % 7, (32, 32))) for i in range(30_000)])
    words = [sys.executable, "-m", "imgdata_cli.main", "index", str(tmp_path)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as program:
        end = time.monotonic() + PATIENCE_S
        while not reads(program, tar) and time.monotonic() < end:
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        _, told = program.communicate(timeout=PATIENCE_S)
    # It may have been done before.
    assert program.returncode in (130, 0)
    assert "Traceback" not in told
    assert program.returncode == 0 or not (tmp_path / "dataset.json").exists()


def test_json_output_is_json_whatever_the_names(tmp_path):
    tar = write_tar(tmp_path / "a.tar", [(f"{ESCAPE}a.jpg", encoded(0)), (f"{ESCAPE}a.cls", b"0")])
    done = run("index", tar, "--json", "--quiet")
    assert json.loads(done.stdout)["samples"] == {"train": 1}
