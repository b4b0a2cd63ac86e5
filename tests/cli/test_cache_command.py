"""`imgdata cache`: what the cache folder holds, its limit, and that it is emptied when asked."""

import json
import os
import re

import pytest
from click.testing import CliRunner
from imgdata_cli.commands.cache import command

from imgdata.errors import OptionError
from imgdata.storage.cache_folder import cache_entries, cache_limit, make_room

HOUR = 3600


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Two decoded splits, the older one first, DALI's file, a lock, and a file that no run finished."""
    folder = tmp_path / "cache"
    (folder / "resident").mkdir(parents=True)
    monkeypatch.setenv("IMGDATA_CACHE", str(folder))
    for age, (name, size) in enumerate([("new.npy", 3000), ("old.npy", 2000), ("old.json", 100)]):
        path = folder / "resident" / name
        path.write_bytes(bytes(size))
        os.utime(path, (1e9 - age, 1e9 - age))
    (folder / "dali-crop.json").write_bytes(bytes(10))
    (folder / "resident" / "old.lock").touch()
    (folder / "resident" / ".old.npy.7.tmp").write_bytes(bytes(500))
    return folder


def run(*arguments):
    result = CliRunner().invoke(command, list(arguments), env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_shows_what_is_kept_the_largest_first(cache):
    shown = run()
    lines = shown.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert [line.split()[-1] for line in lines[1:4]] == ["new.npy", "old.npy", "dali-crop.json"]
    assert "2.1 kB" in lines[2], "both files of a split"
    assert lines[-1].startswith("5.1 kB of ")


def test_a_long_name_of_a_file_is_cut_and_nothing_else(cache):
    (cache / "resident" / f"{'x' * 90}.npy").write_bytes(bytes(10))
    lines = [line for line in run().splitlines() if "xxx" in line]
    assert re.fullmatch(r"decoded split  10 bytes  \d{4}-\d\d-\d\d \d\d:\d\d  x+… *", lines[0]), lines


def test_json_has_every_file(cache):
    told = json.loads(run("--json"))
    assert [entry["bytes"] for entry in told["entries"]] == [3000, 2100, 10]
    assert (told["bytes"], told["freed"], told["folder"]) == (5110, 0, str(cache))


def test_clear_removes_what_is_kept_and_leaves_what_a_run_works_on(cache):
    assert "cleared 5.1 kB" in run("--clear")
    assert cache_entries() == ()
    assert sorted(path.name for path in (cache / "resident").iterdir()) == [".old.npy.7.tmp", "old.lock"]


def test_files_of_a_run_that_was_killed_are_cleared_too(cache):
    left = cache / "resident" / ".old.npy.7.tmp"
    os.utime(left, (left.stat().st_mtime - 2 * HOUR,) * 2)
    assert "unfinished" in run()
    run("--clear")
    assert not left.exists()


def test_a_folder_that_does_not_exist_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "none" / "yet"))
    assert run().startswith("0 bytes of ")
    assert "cleared 0 bytes" in run("--clear")
    assert cache_limit() > 0


def test_room_is_made_by_removing_what_was_written_first(cache, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0.000006")
    assert make_room(1000)
    assert not (cache / "resident" / "old.npy").exists()
    assert (cache / "resident" / "new.npy").exists()
    assert not make_room(10_000), "more than the limit"
    assert (cache / "resident" / "new.npy").exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_is_a_number(monkeypatch, text):
    monkeypatch.setenv("IMGDATA_CACHE_GB", text)
    with pytest.raises(OptionError, match=f"IMGDATA_CACHE_GB must be a number of at least 0, such as 20, got '{text}'"):
        cache_limit()
