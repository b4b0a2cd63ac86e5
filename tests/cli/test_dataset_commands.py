"""The commands around a dataset: each prints what the library found, and exits as it should."""

import json

import pytest
from click.testing import CliRunner
from imgdata_cli.commands.export import command as export
from imgdata_cli.commands.index import command as index
from imgdata_cli.commands.inspect import command as inspect
from imgdata_cli.commands.save_view import command as save_view
from imgdata_cli.commands.verify import command as verify
from PIL import Image

import imgdata
from imgdata.errors import OptionError, OutputError
from imgdata.views.saved import open_view
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


def test_inspect_prints_the_facts_of_a_sample_and_writes_its_image_only_when_asked(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    text = run(inspect, folder, "--sample", "val/0003").stdout
    assert "demo-val-000000.tar" in text
    assert sorted(tmp_path.iterdir()) == before
    facts = json.loads(run(inspect, folder, "--sample", "val/0003", "-o", "x.bin", "--json").stdout)
    assert (facts["split"], facts["position"], facts["label"], facts["saved"]) == ("val", 3, 0, "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == imgdata.open(folder)["val"].read(3)
    assert int(facts["xxh64"], 16) == imgdata.open(folder)["val"].index.row(3).xxh64, "text: JSON's numbers lose digits"


def test_inspect_draws_pictures_of_each_class_as_stored_and_as_the_recipe_makes_them(folder, tmp_path):
    for name, options in (
        ("stored.png", ()),
        ("made.jpg", ("--augmented",)),
        ("wide.png", ("--recipe", "imagenet_eval")),
    ):
        result = run(inspect, folder, "--sheet", tmp_path / name, "--split", "train", *options)
        assert str(tmp_path / name) in result.stderr
        with Image.open(tmp_path / name) as sheet:
            assert sheet.mode == "RGB"
            # The three classes of the dataset, a row each.
            assert sheet.height == 3 * 118 + 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--augmented",), "--augmented needs --sheet FILE.png"),
        (("-o", "x.jpg"), "-o needs --sample KEY"),
        (("--sheet", "sheet.gif"), r"--sheet must end in \.png, \.jpg or \.webp, got sheet\.gif"),
        (("--sheet", "none/sheet.png"), "there is no folder .*none; make it first"),
    ],
)
def test_inspect_says_what_is_missing(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        run(inspect, folder, *arguments)


def test_a_saved_view_is_listed_with_its_steps(folder):
    result = run(save_view, folder, "half", "fraction=0.5", "--json")
    assert f"saved half: 6 of 12 samples of train: {folder / 'views' / 'half.json'}" in result.stderr
    assert json.loads(result.stdout)["samples"] == 6
    assert run(inspect, folder).stdout.splitlines()[-1].split() == ["half", "train", "6", "fraction=0.5"]
    (view,) = json.loads(run(inspect, folder, "--json").stdout)["views"]
    assert view == {"name": "half", "split": "train", "expression": "fraction=0.5", "samples": 6}
    with pytest.raises(OutputError, match="half"):
        run(save_view, folder, "half", "fraction=0.2")
    run(save_view, folder, "half", "fraction=0.25", "--overwrite", "--quiet")
    assert len(open_view(imgdata.open(folder), "train", "half")) == 3


def test_a_view_of_an_unknown_split_names_the_known_ones(folder):
    with pytest.raises(OptionError, match="split must be one of train, val, got 'test'"):
        run(save_view, folder, "half", "fraction=0.5", "--split", "test")


def test_the_summary_prints_as_the_command_does(folder):
    shown = str(imgdata.inspect(folder))
    assert shown.splitlines() == [line.rstrip() for line in run(inspect, folder).stdout.splitlines()]
    assert "<pre" in imgdata.inspect(folder)._repr_html_()


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
