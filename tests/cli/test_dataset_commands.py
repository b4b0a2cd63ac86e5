"""The commands around a dataset: each prints what the library found, and exits as it should."""

import json

import pytest
from click.testing import CliRunner
from imgdata_cli.commands.export import command as export
from imgdata_cli.commands.index import command as index
from imgdata_cli.commands.inspect import command as inspect
from imgdata_cli.commands.verify import command as verify

import imgdata
from imgdata.errors import OptionError, OutputError
from support.rawdata import encoded
from support.tars import dataset, flip, pairs, shard_writer, write_tar


def run(command, *arguments, code=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def folder(tmp_path):
    return dataset(tmp_path / "out")


def test_index_prints_what_it_found(tmp_path):
    shard_writer(tmp_path, {"train": 7, "val": 2})
    result = run(index, tmp_path / "demo-{train,val}-*.tar", "--json")
    assert "done demo: train 7, val 2; 3 classes" in result.stderr
    assert json.loads(result.stdout) == {
        "name": "demo",
        "out": str(tmp_path),
        "samples": {"train": 7, "val": 2},
        "shards": {"train": 2, "val": 1},
        "classes": 3,
        "label_from": "cls",
        "warnings": [],
    }


def test_index_passes_its_options_on_and_shows_notes(tmp_path):
    files = [("k.a.png", encoded(1, format="PNG")), ("k.b.jpg", b"?"), ("k.json", b'{"kind": "ant"}')]
    write_tar(tmp_path / "x.tar", files)
    result = run(index, tmp_path / "x.tar", "--image-ext", "b.jpg", "--label-from", "json:kind", "--name", "y")
    assert "note 1 images can't be recognised" in result.stderr
    assert [name.id for name in imgdata.open(tmp_path).classes] == ["ant"]
    assert (tmp_path / "y-train.index.parquet").exists()


def test_verify_says_that_all_is_well(folder):
    result = run(verify, folder, "--deep")
    assert "everything is as it was written" in result.stderr
    assert result.stdout == ""


def test_verify_names_faults_and_exits_with_1(folder):
    row = imgdata.open(folder)["train"].index.row(6)
    flip(folder / row.shard, row.offset + 9)
    result = run(verify, folder, code=1)
    assert result.stdout.startswith(f"{row.shard} byte {row.offset} key train/0006: image differs")
    assert f"1 fault: {folder}" in result.stderr
    faults = json.loads(run(verify, folder, "--json", code=1).stdout)["faults"]
    assert [(fault["shard"], fault["key"], fault["byte"]) for fault in faults] == [(row.shard, row.key, row.offset)]


def test_verify_tells_of_an_edited_card_and_exits_with_0(folder):
    (folder / "README.md").write_text("# Mine\n")
    result = run(verify, folder)
    assert result.stdout == ""
    assert "note README.md byte 0: edited since it was written" in result.stderr
    assert f"everything else is as it was written: {folder}" in result.stderr
    (fault,) = json.loads(run(verify, folder, "--json").stdout)["faults"]
    assert (fault["shard"], fault["serious"]) == ("README.md", False)


@pytest.mark.parametrize("command", [verify, inspect])
def test_the_file_of_the_dataset_stands_for_its_folder(folder, command):
    shown = [run(command, place).stdout for place in (folder, folder / "dataset.json")]
    assert shown[0] == shown[1]


def test_quiet_prints_nothing_at_all(folder, tmp_path):
    for arguments in ((index, folder), (verify, folder), (export, folder, tmp_path / "back")):
        result = run(*arguments, "--quiet")
        assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("command", [index, verify])
def test_the_first_line_off_a_terminal_is_not_empty(folder, command):
    assert run(command, folder).stderr.splitlines()[0].strip()


def test_inspect_shows_figures_within_80_columns(tmp_path):
    write_tar(tmp_path / "big-train-0.tar", pairs(40, classes=30))
    write_tar(tmp_path / "big-val-0.tar", [("a" * 70 + ".jpg", encoded(1, (900, 600))), ("a" * 70 + ".cls", b"3")])
    imgdata.index(tmp_path)
    text = run(inspect, tmp_path).stdout
    assert max(map(len, text.splitlines())) <= 80
    for part in ("41 samples, 30 classes", "jpeg 40", "width    32 to 38, median 35", "20 more", "512-767", "█"):
        assert part in text
    assert "29 classes are empty" in text
    assert len(run(inspect, tmp_path, "--all-classes").stdout.splitlines()) == len(text.splitlines()) + 19


def test_inspect_gives_all_figures_as_json(folder):
    assert json.loads(run(inspect, folder, "--json").stdout)["splits"]["train"]["samples"] == 12


def test_inspect_saves_one_sample_and_prints_its_facts(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run(inspect, folder, "--sample", "val/0003").stdout
    assert (tmp_path / "0003.jpg").read_bytes() == imgdata.open(folder)["val"].read(3)
    assert "demo-val-000000.tar" in text
    with pytest.raises(OptionError, match=r"0003\.jpg: exists already; choose another with -o FILE"):
        run(inspect, folder, "--sample", "val/0003")
    facts = json.loads(run(inspect, folder, "--sample", "val/0003", "-o", "x.bin", "--json").stdout)
    assert (facts["split"], facts["position"], facts["label"], facts["saved"]) == ("val", 3, 0, "x.bin")
    assert (tmp_path / "x.bin").exists()


def test_inspect_names_the_file_that_it_cannot_write(folder, tmp_path):
    with pytest.raises(OutputError, match=r"nowhere/x\.jpg: can't be written: No such file or directory"):
        run(inspect, folder, "--sample", "val/0003", "-o", tmp_path / "nowhere" / "x.jpg")


def test_inspect_suggests_keys_that_look_alike(folder):
    with pytest.raises(OptionError, match=r"no sample 'train/3' in train, val; near: .*train/0003"):
        run(inspect, folder, "--sample", "train/3")
    with pytest.raises(OptionError, match="split must be one of train, val, got 'test'"):
        run(inspect, folder, "--sample", "train/0003", "--split", "test")


def test_export_counts_its_files(folder, tmp_path):
    result = run(export, folder, tmp_path / "back", "--split", "val", "--json")
    assert json.loads(result.stdout)["files"] == 5
    assert "done 5 files" in result.stderr
    assert sum(path.is_file() for path in (tmp_path / "back").rglob("*")) == 5
