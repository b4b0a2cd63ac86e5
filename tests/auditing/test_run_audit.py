"""An audit as a whole: which checks run, on what, what is kept, what is said."""

import errno
import json
import shutil
from dataclasses import asdict, replace

import pytest

import imgdata
from imgdata.auditing.fixing import save_fixed
from imgdata.auditing.kept import keep_settings
from imgdata.auditing.options import AuditOptions, exceeded, parse_limits
from imgdata.auditing.report import files
from imgdata.auditing.run import dataset_id, run_audit
from imgdata.errors import MissingExtraError, OptionError, OutputError, ShardError
from support.animals import animals
from support.audits import animal_findings, check, failing, made_up_checks
from support.rawdata import encoded
from support.tars import write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


@pytest.fixture
def dataset(folder):
    return imgdata.open(folder)


def test_findings_come_by_kind_and_within_a_kind_the_surest_first(folder, dataset):
    found = run_audit(dataset, AuditOptions(), checks=made_up_checks(folder))
    assert [one.kind for one in found] == ["leak", "label", "label", "exact-duplicate", "near-duplicate", "bias"]
    assert [one.score for one in found.of("label")] == [0.97, 0.6]
    assert dict(found.counts) == {"leak": 1, "label": 2, "exact-duplicate": 1, "near-duplicate": 1, "bias": 1}
    assert found.splits == {"train": 20, "val": 6}
    assert found.notes == ("note of duplicates", "note of labels", "note of bias")
    assert "1 leak, 2 labels to look at, 1 exact duplicate" in str(found)
    assert "cat/000: made up" in str(found)
    assert "1 leak" in repr(found)
    assert "<pre" in found._repr_html_()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["duplicates", "labels", "bias"]),
        ({"only": "labels"}, ["labels"]),
        ({"only": ("bias", "duplicates")}, ["duplicates", "bias"]),
        ({"skip": ("labels",)}, ["duplicates", "bias"]),
    ],
)
def test_checks_are_chosen_by_name(folder, dataset, settings, names):
    calls = []
    found = run_audit(dataset, AuditOptions(**settings), checks=made_up_checks(folder, calls))
    assert calls == names == [one.name for one in found.checks]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"only": "leaks"}, "only must be checks out of duplicates, labels, bias, got 'leaks'"),
        ({"skip": "leaks"}, "skip must be checks out of duplicates, labels, bias, got 'leaks'"),
        ({"skip": ("duplicates", "labels", "bias")}, "skip leaves no check to run"),
        ({"splits": "test"}, "split must be one of train, val, got 'test'"),
        ({"views": "nonsense"}, "no view 'nonsense'"),
        ({"views": ("fraction=0.5", "count=3")}, "steps may be given once, for all splits"),
        ({"views": "balance"}, "an audit needs each sample once"),
    ],
)
def test_wrong_settings_are_named(folder, dataset, settings, message):
    with pytest.raises(OptionError, match=message):
        run_audit(dataset, AuditOptions(**settings), checks=made_up_checks(folder))


def test_a_check_cannot_be_both_chosen_and_left_out():
    with pytest.raises(OptionError, match="must not be in both only and skip, got labels"):
        AuditOptions(only="labels", skip="labels")


def test_an_unknown_setting_names_the_known_ones(folder):
    with pytest.raises(OptionError, match=r"settings of an audit must be splits, views, model, .* got color"):
        imgdata.audit(folder, color="red")


def test_a_view_takes_the_place_of_its_split_and_steps_are_for_the_others(folder, dataset):
    imgdata.save_view(imgdata.open_view(dataset, "train", "count=6"), "six")
    options = AuditOptions(views=("six", "count=3"))
    found = run_audit(dataset, options, checks=[check("bias", [], ("bias",))])
    assert found.splits == {"train": 6, "val": 3}
    assert found.views == {"train": "six", "val": "count=3"}
    found = run_audit(dataset, AuditOptions(views=("six",)), checks=[check("bias", [], ("bias",))])
    assert found.splits == {"train": 6, "val": 6}
    with pytest.raises(OptionError, match="view 'six' is of split 'train', which is not among val"):
        run_audit(dataset, AuditOptions(views=("six",), splits="val"), checks=[check("bias", [], ("bias",))])


def test_what_was_found_is_kept_until_the_input_changes(folder, dataset):
    calls = []
    first = run_audit(dataset, AuditOptions(), checks=made_up_checks(folder, calls))
    again = run_audit(dataset, AuditOptions(), checks=made_up_checks(folder, calls))
    assert len(calls) == 3
    assert again.findings == first.findings
    assert [one.figures for one in again.checks] == [one.figures for one in first.checks]
    assert again.notes == first.notes
    run_audit(dataset, AuditOptions(splits="train"), checks=made_up_checks(folder, calls))
    assert len(calls) == 6


def test_an_interrupted_audit_resumes_after_its_last_finished_check(folder, dataset):
    calls = []
    duplicates, labels, bias = made_up_checks(folder, calls)
    with pytest.raises(KeyboardInterrupt):
        run_audit(dataset, AuditOptions(), checks=(duplicates, failing("labels", KeyboardInterrupt, ("label",)), bias))
    assert calls == ["duplicates"]
    found = run_audit(dataset, AuditOptions(), checks=(duplicates, labels, bias))
    assert calls == ["duplicates", "labels", "bias"]
    assert len(found) == 6


def test_damaged_kept_results_are_computed_again(folder, dataset, cache):
    calls = []
    run_audit(dataset, AuditOptions(), checks=made_up_checks(folder, calls))
    for path in (cache / "audit").glob("*.parquet"):
        path.write_bytes(b"PAR1")
    assert len(run_audit(dataset, AuditOptions(), checks=made_up_checks(folder, calls))) == 6
    assert len(calls) == 6


def test_a_missing_extra_skips_its_check_and_is_said(folder, dataset):
    def missing():
        return MissingExtraError("wrong labels need cleanlab: pip install 'imgdata[audit]'")

    checks = (failing("labels", missing, ("label",)), check("bias", [], ("bias",)))
    found = run_audit(dataset, AuditOptions(), checks=checks)
    assert found.notes[0] == "made-up labels not checked: wrong labels need cleanlab: pip install 'imgdata[audit]'"
    assert [bool(one.skipped) for one in found.checks] == [True, False]
    with pytest.raises(MissingExtraError, match=r"imgdata\[audit\]"):
        run_audit(dataset, AuditOptions(only="labels"), checks=checks)


def test_a_check_that_needs_labels_is_skipped_where_there_are_none(tmp_path):
    write_tar(tmp_path / "x-train-0.tar", [(f"{number}.jpg", encoded(number)) for number in range(3)])
    imgdata.index(tmp_path)
    needs = replace(check("labels", [], ("label",)), needs=frozenset({"labels"}))
    found = run_audit(imgdata.open(tmp_path), AuditOptions(), checks=[needs])
    assert found.notes == ("made-up labels not checked: labels needs labels, and no sample has one",)


def test_the_report_has_three_files_and_replaces_only_a_report(folder, tmp_path):
    report = tmp_path / "report"
    result = run_audit(imgdata.open(folder), AuditOptions(), checks=made_up_checks(folder))
    for _ in range(2):
        files.write_report(result, imgdata.open(folder), report)
        assert sorted(path.name for path in report.iterdir()) == ["findings.json", "findings.parquet", "index.html"]
    assert imgdata.read_findings(report) == result.findings
    assert len(json.loads((report / "findings.json").read_text())["findings"]) == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my page")
    with pytest.raises(OutputError, match="mine: holds files that are no report of an audit; choose a new or empty"):
        files.write_report(result, imgdata.open(folder), tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "my page"


def test_a_folder_that_cannot_be_a_report_is_refused_before_anything_is_computed(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file: must be a folder for the report, got a file"):
        imgdata.audit(folder, tmp_path / "file")


def test_a_read_only_folder_is_named(folder, unprivileged_folder):
    shut = unprivileged_folder / "shut"
    shut.mkdir(mode=0o555)
    with pytest.raises(OutputError, match=r"shut: can't be written \(Permission denied\); choose a folder"):
        files.check_report_folder(shut)


def test_a_full_disk_leaves_the_old_report(folder, tmp_path, monkeypatch):
    dataset, report = imgdata.open(folder), tmp_path / "report"
    result = run_audit(dataset, AuditOptions(), checks=made_up_checks(folder))
    files.write_report(result, dataset, report)
    before = {path.name: path.read_bytes() for path in report.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_parquet", full)
    with pytest.raises(OutputError, match="no space left on the disk; free some and run the same command again"):
        files.write_report(result, dataset, report)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_a_damaged_index_is_named(folder, tmp_path):
    path = next(folder.glob("*-train.index.parquet"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ShardError, match="damaged index"):
        imgdata.audit(folder)


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        (["leak"], {"leak": 0}),
        (["leak,near-duplicate>100"], {"leak": 0, "near-duplicate": 100}),
        (["leak > 2", "label>0"], {"leak": 2, "label": 0}),
        ([], {}),
    ],
)
def test_limits_are_read(texts, limits):
    assert parse_limits(texts) == limits


@pytest.mark.parametrize("text", ["leaks", "leak>", "leak>x", "leak>=2", ""])
def test_a_limit_that_is_none_names_the_kinds(text):
    with pytest.raises(OptionError, match="fail-on must be KIND or KIND>N, KIND one of leak, conflict, label, "):
        parse_limits([text])


def test_exceeded_limits_are_said(folder):
    found = animal_findings(folder)
    assert exceeded(found, {"label": 1, "leak": 1, "quality": 0}) == ["2 findings of kind label, at most 1 allowed"]
    assert exceeded(found, {"leak": 0}) == ["1 finding of kind leak, at most 0 allowed"]


def fix(folder, fixes="exclude-duplicates,exclude-leaks", name="clean", **settings):
    return save_fixed(imgdata.open(folder), fixes, name, **settings)


def test_a_fix_runs_only_the_checks_it_needs_and_none_that_ran_before(folder):
    calls = []
    checks = made_up_checks(folder, calls)
    saved = fix(folder, checks=checks)
    assert calls == ["duplicates"]
    assert (len(saved.view), saved.before, saved.origin) == (17, 20, "a new audit")
    fix(folder, "relabel>0.95", "labelled", checks=checks)
    assert calls == ["duplicates", "labels"]
    assert imgdata.load_view(imgdata.open(folder), "clean").split == "train"


def test_a_fix_acts_on_the_last_audit(folder):
    dataset = imgdata.open(folder)
    last = AuditOptions(views=("count=12",), splits=("train",), only=("labels",))
    keep_settings(dataset_id(dataset), asdict(last))
    saved = fix(folder, checks=made_up_checks(folder))
    assert (saved.before, saved.origin) == (12, "the last audit")


def test_a_fix_of_a_report_needs_no_check(folder, tmp_path):
    dataset = imgdata.open(folder)
    files.write_report(run_audit(dataset, AuditOptions(), checks=made_up_checks(folder)), dataset, tmp_path / "report")
    calls = []
    saved = fix(folder, report=tmp_path / "report", checks=made_up_checks(folder, calls))
    assert (calls, len(saved.view)) == ([], 17)
    assert saved.origin == f"the findings in {tmp_path / 'report'}"


def test_saving_the_same_fix_again_changes_nothing_and_another_one_needs_overwrite(folder):
    checks = made_up_checks(folder)
    first = fix(folder, checks=checks)
    written = first.path.read_bytes()
    assert fix(folder, checks=checks).path.read_bytes() == written
    with pytest.raises(OutputError, match=r"clean\.json: there already; choose another name, or overwrite it"):
        fix(folder, "exclude-leaks", checks=checks)
    assert first.path.read_bytes() == written
    assert len(fix(folder, "exclude-leaks", checks=checks, overwrite=True).view) == 19


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ("train", "val")}, "a view is of one split: fix must have one split, got train, val"),
        ({"splits": ("test",)}, "split must be one of train, val, got 'test'"),
        ({"skip": ("duplicates",)}, "fix: the checks duplicates find what it acts on, and none of them may run"),
        ({"name": "Clean"}, "a name must be of a-z"),
        ({"fixes": "relabel"}, "must have a least score"),
    ],
)
def test_a_fix_that_cannot_be_is_refused_and_saves_nothing(folder, settings, message):
    with pytest.raises(OptionError, match=message):
        fix(folder, checks=made_up_checks(folder), **settings)
    assert imgdata.list_views(imgdata.open(folder)) == []
