"""What commands print: data is never taken for markup, and where there is no terminal lines come now and then."""

import io
import json
from contextlib import ExitStack

import pytest
from click.testing import CliRunner
from imgdata_cli.commands.export import command as export
from imgdata_cli.commands.index import command as index
from imgdata_cli.commands.inspect import command as inspect
from imgdata_cli.commands.shard import command as shard
from imgdata_cli.commands.verify import command as verify
from imgdata_cli.display import console, reading
from imgdata_cli.display.console import Counting, Display
from imgdata_cli.display.shard import ShardDisplay, print_plan
from rich.console import Console

from imgdata.errors import OptionError
from support.rawdata import class_folders, encoded
from support.tars import write_tar


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def raw(tmp_path):
    """Class folders below a path with markup in it; `[/INST]` has images in val alone, which is warned of."""
    raw = class_folders(tmp_path / "[bold]in", {"train": 3, "val": 1}, ("[red]cat", ":dog:"))
    (raw / "val" / "[/INST]").mkdir(parents=True)
    (raw / "val" / "[/INST]" / "x.jpg").write_bytes(encoded(1))
    (raw / "train" / ":dog:" / "bad.jpg").write_bytes(b"")
    return raw


def test_markup_in_names_and_paths_is_printed_as_it_is(raw, tmp_path):
    out, back = tmp_path / "[/b]out", tmp_path / "[i]back"
    plan = run(shard, raw, out, "--dry-run", "--workers", 1)
    assert "not in train: [/INST]" in plan.stdout
    made = run(shard, raw, out, "--workers", 1)
    assert "note 1 of the classes in val are not in train: [/INST]" in made.stderr
    assert f"see {out}/rejects.jsonl" in made.stderr
    assert f"): {out}" in made.stderr
    again = run(shard, raw, out, "--workers", 1)
    assert f"{out} is complete already" in again.stderr
    assert "note 1 of the classes in val are not in train: [/INST]" in run(index, out).stderr
    assert f"as it was written: {out}" in run(verify, out).stderr
    assert f": {back}" in run(export, out, back).stderr
    shown = run(inspect, out).stdout
    assert all(name in shown for name in ("[red]cat", ":dog:", "[/INST]", "not in train: [/INST]"))


def test_a_name_with_markup_is_inspected_as_it_is(tmp_path):
    write_tar(tmp_path / "x-train-0.tar", [("[b]k.jpg", encoded(1)), ("[b]k.txt", b"[/x]")])
    run(index, tmp_path)
    assert "[/x]" in run(inspect, tmp_path).stdout
    assert "[b]k" in run(inspect, tmp_path, "--sample", "[b]k", "-o", tmp_path / "k.jpg").stdout


def test_a_plan_with_markup_in_its_name_is_printed(capsys):
    split = {"samples": 1, "shards": 1, "bytes": 1, "first": "[/a].tar", "last": "[/a].tar"}
    figures = {"classes": 1, "bytes": 1, "seconds": 1.0, "image_extension": "jpg"}
    print_plan({"name": "[/a]", "source": "x", "splits": {"[/s]": split}, "skipped": {}, "warnings": [], **figures})
    said = capsys.readouterr().out
    assert said.startswith("[/a]  x source")
    assert "\n[/s]" in said
    assert "  [/a].tar" in said


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns in place of standard error; what was written to it."""
    written = io.StringIO()
    screen = Console(file=written, force_terminal=True, width=80, highlight=False, markup=False, emoji=False)
    monkeypatch.setattr(console, "screen", lambda **_: screen)
    return written


def test_a_terminal_gets_a_bar_that_goes_away(terminal):
    with Counting("verifying", "shards", quiet=False) as counting:
        counting.progress(3, 4)
        counting.bar.refresh()
        assert "3/4" in terminal.getvalue()
    # The last thing written takes the line away.
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize(
    "make", [lambda: Counting("verifying", "shards", quiet=True), lambda: ShardDisplay(quiet=True)]
)
def test_a_quiet_display_writes_nothing_to_a_terminal(terminal, make):
    with make() as shown:
        if isinstance(shown, Counting):
            shown.progress(3, 4)
        else:
            shown.advanced(3, 4, 0)
    assert terminal.getvalue() == ""


def test_notes_wrap_between_words_on_a_terminal_only(terminal, capsys):
    text = "word " * 30
    console.note(console.screen(), text)
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.rstrip().endswith("word") for line in lines)
    console.note(Console(stderr=True), text)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_plain_lines_come_now_and_then(monkeypatch, capsys, seconds):
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", seconds)
    with Counting("exporting", "files", quiet=False) as counting:
        counting.progress(1_000, 3_000)
        counting.progress(2_000, 3_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == (["exporting: 1,000 of 3,000 files", "exporting: 2,000 of 3,000 files"] if not seconds else [])


def report(reading, *counts, what="reading headers", total=9):
    for count in counts:
        reading.progress(what, count, total)


def test_a_long_first_reading_has_a_bar_that_goes_away(terminal, monkeypatch):
    monkeypatch.setattr(reading, "_QUIET_SECONDS", 0.0)
    with reading.Reading(quiet=lambda: False) as shown:
        report(shown, 1, 4)
        assert "reading headers" in terminal.getvalue()
        report(shown, 9)
        assert terminal.getvalue().rstrip().endswith("\x1b[2K")
        before = len(terminal.getvalue())
    assert len(terminal.getvalue()) == before


@pytest.mark.parametrize(("quiet", "seconds"), [(True, 0.0), (False, 1e9)])
def test_a_quiet_or_a_short_first_reading_shows_nothing(terminal, monkeypatch, quiet, seconds):
    monkeypatch.setattr(reading, "_QUIET_SECONDS", seconds)
    with reading.Reading(quiet=lambda: quiet) as shown:
        report(shown, 1, 4, 9)
    assert terminal.getvalue() == ""


def test_a_first_reading_under_the_bar_of_a_command_has_lines_above_it(terminal, monkeypatch):
    monkeypatch.setattr(reading, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(reading, "PLAIN_LINE_SECONDS", 0.0)
    with Counting("computing", "batches", quiet=False), reading.Reading(quiet=lambda: False) as shown:
        report(shown, 1, 4, 9)
    said = terminal.getvalue()
    assert "reading headers: 4 of 9 images" in said
    assert "4/9" not in said, "no second bar"


def test_an_interrupted_first_reading_takes_its_bar_away(terminal, monkeypatch):
    monkeypatch.setattr(reading, "_QUIET_SECONDS", 0.0)
    stack = ExitStack()
    report(stack.enter_context(reading.Reading(quiet=lambda: False)), 1, 4)
    stack.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")
    assert Display.shown is None


def plan_classes(raw, tmp_path, classes):
    return json.loads(run(shard, raw, tmp_path / "out", "--dry-run", "--json", "--classes", classes).stdout)["classes"]


@pytest.mark.parametrize("text", [b":dog:\n\n[red]cat\n", b"\xef\xbb\xbf:dog:\r\n[red]cat"])
def test_classes_are_read_from_a_file(raw, tmp_path, text):
    (tmp_path / "wanted").write_bytes(text)
    assert plan_classes(raw, tmp_path, tmp_path / "wanted") == 2


def test_more_classes_than_a_path_is_long_are_taken_for_classes(raw, tmp_path):
    many = ",".join(f"n{i:08d}" for i in range(1000))
    with pytest.raises(OptionError, match="the source has no n00000000, "):
        plan_classes(raw, tmp_path, many)


def test_a_folder_with_the_name_of_a_class_is_not_read(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ":dog:").mkdir()
    assert plan_classes(raw, tmp_path, ":dog:") == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"wanted\.txt: no such file; give a file with one class a line, or ids with commas between"),
        (b"cat\n\xff\xd8", r"wanted\.txt must be a text file with one class a line, got other data at byte 4"),
    ],
)
def test_a_list_of_classes_that_cannot_be_read_is_named(raw, tmp_path, data, message):
    path = tmp_path / "wanted.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(OptionError, match=message):
        plan_classes(raw, tmp_path, path)
