"""`imgdata audit`: what it prints, how it exits, what the view of a fix is shown to do."""

import json
import shutil

import pytest
from click.testing import CliRunner
from imgdata_cli.main import cli

import imgdata
from imgdata.auditing import fixing
from imgdata.auditing import run as audit_run
from imgdata.errors import OptionError, OutputError
from support.animals import animals, keys
from support.audits import failing, made_up_checks
from support.inline_ray import inline_ray

__all__ = ["inline_ray"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A dataset whose checks find what is made up."""
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(made, tmp_path / "out")
    use(monkeypatch, made_up_checks(folder))
    return folder


def use(monkeypatch, checks):
    for module in (audit_run, fixing):
        monkeypatch.setattr(module, "CHECKS", checks)


def run(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], env={"COLUMNS": "100"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_an_audit_prints_what_it_found_and_where_the_report_is(folder, tmp_path):
    done = run("audit", folder, "-o", tmp_path / "report")
    assert "1 leak, 2 labels to look at, 1 exact duplicate, 1 near duplicate, 1 hidden bias" in done.stdout
    assert "cat/000: made up" in done.stdout
    assert f"report {tmp_path / 'report' / 'index.html'}" in done.stderr
    assert "note note of labels" in done.stderr
    assert len(imgdata.read_findings(tmp_path / "report")) == 6


def test_on_a_cluster_the_same_is_printed_and_saved(folder, inline_ray):
    here = run("audit", folder)
    assert run("audit", folder, "--engine", "ray", "--task-cpus", "2").stdout == here.stdout
    fixed = run("audit", folder, "--fix", "exclude-leaks", "-o", "clean", "--engine", "ray")
    assert "saved clean" in fixed.stderr
    with pytest.raises(OptionError, match="--task-cpus is for --engine ray"):
        run("audit", folder, "--task-cpus", "2")


def test_without_a_folder_nothing_is_written(folder, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    assert "1 leak" in run("audit", folder).stdout
    assert sorted({path.name for path in tmp_path.iterdir()} - {"cache"}) == before


def test_json_has_counts_figures_and_notes(folder):
    done = json.loads(run("audit", folder, "--json", "--quiet").stdout)
    assert done["counts"] == {"leak": 1, "label": 2, "exact-duplicate": 1, "near-duplicate": 1, "bias": 1}
    assert done["checks"]["duplicates"]["figures"] == {"compared": 26}
    assert (done["findings"], done["report"]) == (6, None)


@pytest.mark.parametrize(
    ("limit", "code"),
    [("leak", 1), ("leak>1", 0), ("quality", 0), ("label>1", 1), ("leak>1,label>2", 0), ("bias,leak>5", 1)],
)
def test_the_exit_code_says_whether_there_is_more_than_allowed(folder, limit, code):
    done = run("audit", folder, "--fail-on", limit, "--quiet", code=code)
    assert ("failed" in done.stderr) == bool(code)


def test_checks_are_named_with_commas_between(folder):
    assert "leak" not in run("audit", folder, "--only", "labels,bias").stdout
    assert "leak" not in run("audit", folder, "--skip", "duplicates").stdout
    with pytest.raises(OptionError, match="only must be checks out of duplicates, labels, bias, got 'label'"):
        run("audit", folder, "--only", "label")


def test_a_fix_says_what_it_does_and_inspect_shows_it_again(folder):
    done = run("audit", folder, "--fix", "exclude-duplicates,exclude-leaks,relabel>0.95", "-o", "clean")
    lines = done.stderr.splitlines()
    assert lines[:3] == [
        "2 left out by exclude-duplicates",
        "1 left out by exclude-leaks",
        "1 relabelled by relabel>0.95",
    ]
    assert lines[-1].startswith("saved clean: 17 of 20 samples of train, by a new audit: ")
    shown = run("inspect", folder, "--view", "clean").stdout
    assert "clean: 17 of 20 samples of train" in shown
    for part in ("1 exact-duplicate: same bytes", "1 near-duplicate: same bytes", "1 leak: same bytes", "1 cat -> dog"):
        assert part in shown
    facts = json.loads(run("inspect", folder, "--view", "clean", "--json").stdout)
    assert [step["left_out"] for step in facts["steps"]] == [2, 1, 0]
    assert facts["steps"][2]["relabelled"] == [{"was": "cat", "now": "dog", "samples": 1}]


def test_a_fix_can_be_taken_in_json(folder):
    done = json.loads(run("audit", folder, "--fix", "exclude-leaks", "-o", "clean", "--json", "--quiet").stdout)
    assert (done["name"], done["split"], done["samples"], done["before"]) == ("clean", "train", 19, 20)
    assert done["applied"] == [{"fix": "exclude-leaks", "samples": 1, "elsewhere": 0}]


def test_a_fix_of_another_split_is_a_view_of_that_split(folder):
    done = run("audit", folder, "--fix", "exclude-duplicates,exclude-leaks", "--split", "val", "-o", "clean-val")
    assert "0 left out by exclude-duplicates; 2 in other splits are left alone" in done.stderr
    assert "note a view is of one split; for train, run it again with --split and another name" in done.stderr
    view = imgdata.load_view(imgdata.open(folder), "clean-val")
    assert (view.split, len(view)) == ("val", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fix", "exclude-leaks"), "--fix needs -o NAME"),
        (("--fix", "exclude-leaks", "-o", "x", "--fail-on", "leak"), "--fail-on is for an audit"),
        (("--report", "r"), "--report is for --fix; -o names the report"),
        (("--overwrite",), "--overwrite is for --fix"),
        (("--fix", "exclude-everything", "-o", "x"), "fix must be one of exclude-leaks"),
        (("--fail-on", "leaks"), "fail-on must be KIND or KIND>N"),
        (("--fix", "exclude-leaks", "-o", "report/"), "a name must be of a-z"),
        (("--split", "test"), "split must be one of train, val, got 'test'"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(folder, arguments, message):
    with pytest.raises(OptionError, match=message):
        run("audit", folder, *arguments)


def test_a_report_that_is_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files that are no report of an audit"):
        run("audit", folder, "-o", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_ctrl_c_says_how_to_resume(folder, monkeypatch):
    use(monkeypatch, (*made_up_checks(folder)[:1], failing("labels", KeyboardInterrupt, ("label",))))
    result = CliRunner().invoke(cli, ["audit", str(folder)])
    assert result.exit_code != 0
    assert "the same command resumes: checks that are finished are kept" in result.stderr


def test_shards_of_a_view_hold_what_the_view_holds(folder, tmp_path):
    run("audit", folder, "--fix", "exclude-duplicates,exclude-leaks,relabel>0.95", "-o", "clean", "--quiet")
    run("shard", folder, tmp_path / "clean", "--view", "clean", "--workers", 1, "--quiet")
    old, new = imgdata.open(folder), imgdata.open(tmp_path / "clean")
    view = imgdata.load_view(old, "clean")
    assert {name: len(split) for name, split in new.items()} == {"train": 17, "val": 6}
    baked = {sample.key: new.classes[sample.label].id for sample in new["train"]}
    assert baked == {key: view.classes[label].id for key, label in zip(keys(view), view.label_N.tolist(), strict=True)}
    assert baked["cat/004"] == "dog"
    assert new["train"]["cat/005"].image == old["train"]["cat/005"].image
