"""Fixes: findings become a view with a reason for each change; nothing is lost, nothing goes silently."""

from dataclasses import replace

import pytest

import imgdata
from imgdata.auditing.fix import parse_fixes
from imgdata.errors import OptionError
from imgdata.views.effects import step_effects
from support.animals import animals, keys
from support.audits import animal_findings, finding


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture
def train(folder):
    return imgdata.open_view(imgdata.open(folder), "train")


def labels(view):
    return dict(zip(keys(view), (view.classes[label].id for label in view.label_N), strict=True))


@pytest.mark.parametrize(
    ("fixes", "gone", "relabelled"),
    [
        ("exclude-leaks", {"cat/000"}, {}),
        ("exclude-duplicates", {"cat/001", "cat/003"}, {}),
        ("exclude-exact-duplicates", {"cat/001"}, {}),
        ("exclude-duplicates>0.95", {"cat/001"}, {}),
        ("exclude-duplicates>=0.9", {"cat/001", "cat/003"}, {}),
        ("exclude-duplicates>0.9", {"cat/001"}, {}),
        ("relabel>0.95", set(), {"cat/004": "dog"}),
        ("relabel>=0.6", set(), {"cat/004": "dog", "cat/005": "newt"}),
        ("exclude-labels>0.95", {"cat/004"}, {}),
        ("exclude-leaks, exclude-labels>=0.97, relabel>0.5", {"cat/000", "cat/004"}, {"cat/005": "newt"}),
        ("exclude-quality", set(), {}),
    ],
)
def test_each_fix_changes_what_it_names_and_nothing_else(folder, train, fixes, gone, relabelled):
    fixed = imgdata.fixed_view(train, animal_findings(folder), fixes)
    before = labels(train)
    assert labels(fixed.view) == {key: relabelled.get(key, label) for key, label in before.items() if key not in gone}
    assert sum(one.samples for one in fixed.applied) == len(gone) + len(relabelled)
    assert fixed.kept == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exclude-all", "fix must be one of exclude-leaks, .*relabel>P, got 'exclude-all'"),
        ("relabel", r"relabel must have a least score, such as relabel>0\.95"),
        ("relabel>1.5", r"the score after relabel must be a number from 0 to 1, got 'relabel>1\.5'"),
        ("relabel>0.9.5", "must be a number from 0 to 1"),
        ("", "fix must be one of"),
        ("exclude-leaks,", "fix must be one of .* got ''"),
    ],
)
def test_a_fix_that_is_none_says_which_there_are(text, message):
    with pytest.raises(OptionError, match=message):
        parse_fixes(text)


def test_both_sides_of_a_conflict_go(folder, train):
    found = [finding(folder, "conflict", "cat/006", "dog/001")]
    fixed = imgdata.fixed_view(train, found, "exclude-conflicts")
    assert set(labels(train)) - set(labels(fixed.view)) == {"cat/006", "dog/001"}


def test_a_view_is_of_one_split_and_the_others_are_counted(folder, train):
    val = imgdata.open_view(imgdata.open(folder), "val")
    found = animal_findings(folder)
    assert set(keys(val)) - set(keys(imgdata.fixed_view(val, found, "exclude-leaks").view)) == {"cat/000-1"}
    (applied,) = imgdata.fixed_view(val, found, "exclude-duplicates").applied
    assert (applied.samples, applied.elsewhere) == (0, 2)


def test_the_last_sample_of_a_class_stays_and_is_named(folder, train):
    found = [finding(folder, "near-duplicate", f"newt/00{n}", "cat/000", score=0.9 - n / 10) for n in range(3)]
    found.append(finding(folder, "label", "newt/003", label="cat", score=0.99))
    fixed = imgdata.fixed_view(train, found, "exclude-duplicates,relabel>0.5")
    # The least sure of the four.
    assert [key for key, label in labels(fixed.view).items() if label == "newt"] == ["newt/002"]
    assert fixed.kept == ("newt/002 is not left out: it is the last sample of class newt in train",)
    assert [one.samples for one in fixed.applied] == [2, 1]


def test_a_class_swapped_with_another_keeps_a_sample_of_each(folder, train):
    only = imgdata.views.where(train, "key in newt/000,dog/000")
    found = [finding(folder, "label", "newt/000", label="dog"), finding(folder, "label", "dog/000", label="newt")]
    fixed = imgdata.fixed_view(only, found, "relabel>0.5")
    assert labels(fixed.view) == {"newt/000": "dog", "dog/000": "newt"}
    assert fixed.kept == ()


def test_the_same_findings_give_the_same_files_to_the_byte(folder, train):
    found, files = animal_findings(folder), []
    for order in (found, found[::-1]):
        fixed = imgdata.fixed_view(train, order, "exclude-duplicates,exclude-leaks,relabel>0.5")
        imgdata.save_view(fixed.view, "same", overwrite=True)
        files.append({path.name: path.read_bytes() for path in (folder / "views").glob("same.*")})
    assert files[0] == files[1]
    assert sorted(name.rpartition(".")[2] for name in files[0]) == ["csv", "csv", "csv", "json"]


def test_a_saved_fix_says_why_each_sample_changed(folder, train):
    dataset = imgdata.open(folder)
    fixed = imgdata.fixed_view(train, animal_findings(folder), "exclude-duplicates,exclude-leaks,relabel>0.95")
    imgdata.save_view(fixed.view, "clean", overwrite=True)
    loaded = imgdata.load_view(dataset, "clean")
    assert labels(loaded) == labels(fixed.view)
    duplicates, leaks, labelled = step_effects(dataset, loaded)
    assert dict(duplicates.reasons) == {"exact-duplicate: same bytes": 1, "near-duplicate: same bytes": 1}
    assert dict(leaks.reasons) == {"leak: same bytes": 1}
    assert dict(labelled.relabelled) == {("cat", "dog"): 1}
    assert [one.samples for one in (duplicates, leaks, labelled)] == [18, 17, 17]


def test_findings_of_another_dataset_are_refused(folder, train, tmp_path):
    found = [finding(folder, "leak", "cat/000", "val:cat/000-1")]
    other = imgdata.views.where(train, "class==cat")
    assert "cat/000" not in keys(imgdata.fixed_view(other, found, "exclude-leaks").view)
    moved = [replace(found[0], place=found[0].place._replace(position=0))]
    with pytest.raises(OptionError, match="the findings are not of this dataset: 'cat/000' is not sample 0 of 'train'"):
        imgdata.fixed_view(train, moved, "exclude-leaks")
