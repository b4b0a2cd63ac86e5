"""What views say of themselves: why samples are left out, which labels change, which split they are of."""

import pytest

import imgdata
from imgdata.errors import OptionError
from imgdata.views.by_split import views_by_split
from imgdata.views.effects import step_effects
from imgdata.views.saved import open_view
from support.animals import animals, keys


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return imgdata.open(animals(tmp_path_factory.mktemp("animals")))


def excluded(dataset, tmp_path, text):
    (tmp_path / "bad.csv").write_bytes(text.encode("utf-8"))
    whole = keys(open_view(dataset, "train"))
    return set(whole) - set(keys(open_view(dataset, "train", "exclude,file=bad.csv", folder=tmp_path)))


@pytest.mark.parametrize(
    "text",
    [
        "cat/000\ndog/001\n",
        "cat/000\n\n  \ndog/001",
        "key,reason\ncat/000,blurred\ndog/001,\n",
        '\ufeffkey,score,reason\ncat/000,1,"blurred, and dark"\ndog/001,0.5,leak\n',
    ],
)
def test_a_list_of_keys_is_a_text_or_a_table_with_reasons(dataset, tmp_path, text):
    assert excluded(dataset, tmp_path, text) == {"cat/000", "dog/001"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,reason\ncat/000,a\ncat/000,b\n", r"bad\.csv: a key must come once, got 'cat/000' again in line 3"),
        ("key,reason\ncat/999,a\n", "exclude: 1 of 1 keys are not in split 'train', such as 'cat/999'"),
        ("key,reason\n", "exclude: must have keys or a file of them"),
        ("key;reason\ncat/000;a\n", "2 of 2 keys are not in split"),
    ],
)
def test_a_table_of_keys_that_is_wrong_says_what(dataset, tmp_path, text, message):
    with pytest.raises(OptionError, match=message):
        excluded(dataset, tmp_path, text)


def test_a_table_with_reasons_stays_one_when_the_view_is_saved(dataset, tmp_path):
    (tmp_path / "bad.csv").write_text("key,reason\ncat/000,blurred\ncat/001,blurred\ndog/001,leak\n")
    imgdata.save_view(open_view(dataset, "train", "exclude,file=bad.csv", folder=tmp_path), "sharp", overwrite=True)
    (copy,) = dataset.path.glob("views/sharp.*.csv")
    assert copy.read_bytes() == (tmp_path / "bad.csv").read_bytes()
    (effect,) = step_effects(dataset, imgdata.load_view(dataset, "sharp"))
    assert (effect.left_out, effect.samples, dict(effect.reasons)) == (3, 17, {"blurred": 2, "leak": 1})


def test_each_step_says_what_it_leaves_out_and_relabels(dataset, tmp_path):
    (tmp_path / "labels.csv").write_text("key,label\ncat/000,dog\ncat/001,dog\nnewt/000,\n")
    view = open_view(dataset, "train", "where class in cat,newt | relabel=labels.csv | balance", folder=tmp_path)
    chosen, relabelled, balanced = step_effects(dataset, view)
    assert (chosen.left_out, chosen.samples, dict(chosen.reasons)) == (6, 14, {})
    assert dict(relabelled.relabelled) == {("cat", "dog"): 2, ("newt", ""): 1}
    assert (balanced.left_out, dict(balanced.relabelled)) == (0, {})


def test_a_saved_view_is_for_its_split_and_steps_are_for_the_others(dataset):
    imgdata.save_view(open_view(dataset, "train", "count=5"), "five", overwrite=True)
    sizes = {split: len(view) for split, view in views_by_split(dataset, ["five", "fraction=0.5"]).items()}
    assert sizes == {"train": 5, "val": 3}
    assert list(views_by_split(dataset, [], ["val"])) == ["val"]


@pytest.mark.parametrize(
    ("views", "splits", "message"),
    [
        (["five", "five | fraction=0.5"], [], "views 'five' and 'five | fraction=0.5' are both of split 'train'"),
        (["five"], ["val"], "view 'five' is of split 'train', which is not among val"),
        (["count=2", "count=3"], [], "steps may be given once"),
        ([], ["test"], "split must be one of train, val, got 'test'"),
    ],
)
def test_views_that_do_not_fit_the_splits_are_refused(dataset, views, splits, message):
    imgdata.save_view(open_view(dataset, "train", "count=5"), "five", overwrite=True)
    with pytest.raises(OptionError, match=message.replace("|", r"\|")):
        views_by_split(dataset, views, splits)
