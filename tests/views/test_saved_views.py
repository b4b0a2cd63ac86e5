"""Views as text and as files: the same view again, or a clear refusal."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgdata
from imgdata.dataset.index import index_id
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.views.balance import balance
from imgdata.views.filters import exclude_step, where
from imgdata.views.saved import apply_steps, list_views, load_view, open_view, save_view
from imgdata.views.subsets import subset_fraction
from imgdata.views.text import STEP_NAMES, Condition, Step, parse_conditions, parse_view, view_text
from imgdata.views.view import View, whole
from support.animals import animals, keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture
def own(folder, tmp_path):
    """A copy that a test may change."""
    return imgdata.open(shutil.copytree(folder, tmp_path / "own"))


@pytest.fixture
def dataset(folder):
    return imgdata.open(folder)


@pytest.fixture
def train(dataset):
    return whole(dataset, "train")


TEXTS = [
    "fraction=0.9,part=first,seed=0 | balance",
    "count=15,part=rest,seed=7",
    "fold=2/5,part=held,seed=1",
    "fold=2/5",
    "per_class=3,seed=2 | where class in cat,dog",
    "where width>=50 & format==jpeg & class in cat,dog & source not like *x*",
    'where class in "cat",dog',
    "balance=cat:2,dog:0.5,length=40,seed=3",
    "balance,length=40",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_view_prints_the_text_that_it_was_made_of(dataset, text):
    assert view_text(parse_view(text)) == text.replace('"', "")
    view = open_view(dataset, "train", text)
    assert view.expression == text.replace('"', "")
    assert open_view(dataset, "train", view.expression).fingerprint == view.fingerprint


VALUES = st.text(st.sampled_from('ab,|&=<>!" :/.*0'), min_size=1, max_size=8).filter(lambda text: text == text.strip())


@given(st.lists(st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_value_survives_its_text(steps):
    written = tuple(Step(name="exclude", values=tuple(values), options={"file": values[0]}) for values in steps)
    assert parse_view(view_text(written)) == written
    conditions = tuple(Condition("class", "in", tuple(values)) for values in steps)
    assert parse_conditions(" & ".join(map(str, conditions))) == conditions


def test_functions_record_what_they_did(train):
    view = balance(subset_fraction(where(train, "width>=48"), 0.5, seed=2), length=9)
    assert view.expression == "where width>=48 | fraction=0.5,part=first,seed=2 | balance,length=9,seed=0"
    assert apply_steps(train, parse_view(view.expression)).fingerprint == view.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fraction", "fraction must have one value, such as fraction=VALUE, got 'fraction'"),
        ("fraction=1", "fraction must be above 0 and below 1, got 1"),
        ("fraction=half", "fraction must be above 0 and below 1, got nan"),
        ("fraction=0.5,part=last", "part must be first or rest, got 'last'"),
        ("fraction=0.5,parts=first", "options of fraction must be part, seed, each once, got 'parts'"),
        ("fraction=0.5,seed=1,seed=1", "each once, got 'seed'"),
        ("fraction=0.5,seed=x", "seed must be a whole number, got 'x'"),
        ("fraction=0.5,seed=-1", r"seed must be 0 to 2\^63-1, got -1"),
        ("fraction=0.5,0.2", "fraction must have one value"),
        ("count=20", "count must be 1 to 19, one less than there are samples, got 20"),
        ("count=many", "count: must be a whole number, got 'many'"),
        ("fold=5", "fold: must be like 1/5, got '5'"),
        ("fold=0/5", "the fold must be 1 to 5, got 0"),
        ("fold=1/1", "the number of folds must be 2 to 20, got 1"),
        ("fold=1/2,part=first", "part must be train or held, got 'first'"),
        ("per_class=0", "per_class must be 1 or more, got 0"),
        ("exclude", "exclude: must have keys or a file of them"),
        ("balance=cat", "a weight must be like cat:2, got 'cat'"),
        ("balance=cat:2,weights=x.csv", r"x\.csv: can't be read"),
        ("relabel=x.csv,classes=new", r"x\.csv: can't be read"),
        ("shuffle=1", f"a step must be one of {', '.join(STEP_NAMES)}, got 'shuffle=1'"),
        ("fraction=0.5 | ", "a step must be one of .*, got ''"),
        ("fraction 0.5", "fraction must be followed by = or a comma"),
        ('exclude="a"b', "a value in .* must not be .*; write it in double quotes"),
        ("mini", "no view 'mini' in .*; it has none. A step must be one of"),
    ],
)
def test_texts_without_meaning_are_refused(dataset, text, message):
    with pytest.raises(OptionError, match=message):
        open_view(dataset, "train", text)


def test_a_saved_view_is_the_same_without_the_files_it_was_made_of(own, tmp_path):
    train = whole(own, "train")
    (tmp_path / "bad.txt").write_text("\n".join(keys(train)[:2]))
    (tmp_path / "fixes.csv").write_text(f"key,label\n{keys(train)[5]},newt\n")
    view = open_view(own, "train", "exclude,file=bad.txt | relabel=fixes.csv | balance", folder=tmp_path)
    path = save_view(view, "clean")
    assert path == own.path / "views" / "clean.json"
    (tmp_path / "bad.txt").unlink()
    (tmp_path / "fixes.csv").unlink()
    loaded = open_view(own, "train", "clean")
    assert loaded.fingerprint == view.fingerprint
    assert loaded.epoch_positions(4).tolist() == view.epoch_positions(4).tolist()
    assert repr(loaded).startswith("<View clean: train | exclude,file=clean.0-")
    assert list_views(own) == ["clean"]
    content = json.loads(path.read_text())
    assert content["index"] == index_id(train.index)
    assert (content["samples"], content["split"], content["version"]) == (18, "train", 1)
    assert {file.name for file in path.parent.iterdir()} == {"clean.json", *content["files"]}


def test_a_saved_view_can_be_cut_further_and_saved_again(own):
    save_view(open_view(own, "train", "fraction=0.5"), "half")
    further = open_view(own, "train", "half | where class!=newt")
    assert further.expression == "fraction=0.5 | where class!=newt"
    assert set(further.position_N) < set(open_view(own, "train", "half").position_N)
    save_view(further, "cats-and-dogs")
    assert load_view(own, "cats-and-dogs").fingerprint == further.fingerprint
    assert list_views(own) == ["cats-and-dogs", "half"]
    with pytest.raises(OptionError, match="split must be 'train', which it was made of, got 'val'"):
        open_view(own, "val", "half")
    with pytest.raises(OptionError, match=r"no view 'third' in .*; it has cats-and-dogs, half"):
        open_view(own, "train", "third")


def test_a_saved_view_is_replaced_only_on_request(own):
    train = whole(own, "train")
    save_view(exclude_file(train, keys(train)[:1]), "mine")
    with pytest.raises(OutputError, match=r"mine\.json: there already; choose another name, or overwrite it"):
        save_view(train, "mine")
    save_view(exclude_file(train, keys(train)[:2]), "mine", overwrite=True)
    assert len(load_view(own, "mine")) == 18
    assert len(list((own.path / "views").iterdir())) == 2
    for name in ("Mine", "../mine", "balance", ""):
        with pytest.raises(OptionError, match=f"a name must be of a-z, .* got {name!r}"):
            save_view(train, name)


def exclude_file(view: View, gone: list[str]) -> View:
    return exclude_step(view, Step(name="exclude", options={"file": "bad.txt"}, data="\n".join(gone).encode()))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("{"), "damaged"),
        (lambda path: path.write_text("[]"), "damaged"),
        (lambda path: edit(path, files=None), "damaged; save the view again"),
        (lambda path: edit(path, version=2), "version must be 1, got 2; upgrade imgdata"),
        (lambda path: edit(path, split="test"), "split must be one of train, val, got 'test'"),
        (lambda path: edit(path, index="0" * 32), "made of other images or labels than .*train.index.parquet has"),
        (lambda path: edit(path, fingerprint="beef"), "fingerprint must be .*, got beef; save it again"),
        (lambda path: next(path.parent.glob("*.txt")).write_text(""), "changed since the view was saved"),
    ],
)
def test_saved_views_that_changed_are_refused(own, spoil, message):
    train = whole(own, "train")
    spoil(save_view(exclude_file(train, keys(train)[:2]), "mine"))
    with pytest.raises(ShardError, match=message):
        load_view(own, "mine")
