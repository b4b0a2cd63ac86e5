"""Views of splits that no memory holds: the samples that the same steps keep of a small one, in files of bits."""

import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imgdata
from imgdata.dataset import columns, index_parts, index_writing, lazy_array, parted_index, selection
from imgdata.dataset.selection import SelectionWriter, open_selection, selection_bytes
from imgdata.errors import OptionError, ShardError
from imgdata.order.epoch_order import Order
from imgdata.recipes import HorizontalFlip, RandomResizedCrop, Recipe
from imgdata.shards import sidecars
from imgdata.storage.cache_folder import CacheWarning
from imgdata.views import view as views
from imgdata.views.effects import step_effects
from support.tars import dataset

RECIPE = Recipe(RandomResizedCrop(size=16), HorizontalFlip())
SAMPLES = 97
WHERE = "where width>34 & class not in 1"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("plain"), {"train": SAMPLES}, json=True)


@pytest.fixture(scope="module")
def parted(plain, tmp_path_factory):
    """Parts of 40 rows in row groups of 8."""
    folder = shutil.copytree(plain, tmp_path_factory.mktemp("parted") / "parted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_writing, "ROW_GROUP", 8)
        patch.setattr(index_parts, "PART_ROWS", 40)
        patch.setattr(sidecars, "MAX_WHOLE", 6)
        imgdata.index(folder, workers=1)
    return folder


@pytest.fixture(autouse=True)
def as_billions(monkeypatch, tmp_path):
    """More than 6 samples are more than memory holds, and are looked at 25 at a time."""
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parted_index, "ROW_GROUP", 8)
    monkeypatch.setattr(views, "PART_POSITIONS", 25)
    for module in (columns, lazy_array, parted_index, views):
        monkeypatch.setattr(module, "MAX_WHOLE", 6)


def positions(view) -> list[int]:
    return view.position_N[np.arange(len(view.position_N))].tolist()


def opened(folder, text):
    return imgdata.open_view(imgdata.open(folder), "train", text)


@pytest.mark.parametrize(
    "text",
    [
        WHERE,
        "where key like *7",
        "where format==jpeg & longer>=36",
        "where source like *",
        "where label==0",
        "exclude,file=bad.txt",
        "where width>34 | exclude,file=bad.txt | where key not like *3",
    ],
)
def test_a_condition_keeps_the_samples_that_it_keeps_of_a_small_split(plain, parted, tmp_path, text):
    keys = imgdata.open(plain)["train"].index.keys(np.array([1, 30, 96]))
    (tmp_path / "bad.txt").write_text("\n".join(keys))
    one, other = opened(plain, text), opened(parted, text)
    assert positions(other) == positions(one)
    rows = np.arange(len(one))
    assert other.label_N[rows].tolist() == one.label_N.tolist()
    assert other.labels(rows, one.position_N).tolist() == one.label_N.tolist()
    assert (len(other), other.expression, other.drawn_C.tolist()) == (len(one), one.expression, one.drawn_C.tolist())
    assert (other.shard_sizes, other.has_unlabelled) == (one.shard_sizes, one.has_unlabelled)


def test_what_is_left_is_in_memory_where_it_is_few(plain, parted):
    one, other = opened(plain, "where key like *9[36]"), opened(parted, "where key like *9[36]")
    assert isinstance(other.position_N, np.ndarray)
    assert positions(other) == positions(one) == [93, 96]
    # Now with what needs labels in memory.
    assert len(opened(parted, "where key like *9[36] | balance,length=5")) == 5
    assert imgdata.Loader(other, batch_size=2, recipe=RECIPE, shuffle="window").view.shard_sizes == one.shard_sizes
    with pytest.raises(OptionError, match="nothing is left of split 'train' after 'where width>999'"):
        opened(parted, "where width>999")


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("fraction=0.3", "fraction=0.3,part=rest"),
        ("count=20,seed=4", "count=20,part=rest,seed=4"),
        ("fold=2/3,part=held", "fold=2/3"),
        (f"{WHERE} | fraction=0.5", f"{WHERE} | fraction=0.5,part=rest"),
    ],
)
def test_a_share_is_drawn_by_class_and_its_rest_are_all_others(plain, parted, first, rest):
    one, other = opened(parted, first), opened(parted, rest)
    whole = opened(plain, first.partition(" | ")[0] if "|" in first else "")
    assert sorted(positions(one) + positions(other)) == positions(whole)
    # As many of each class as of a small split, though others.
    assert one.drawn_C.tolist() == opened(plain, first).drawn_C.tolist()
    assert opened(parted, first).fingerprint == one.fingerprint != other.fingerprint


def test_some_of_each_class_include_the_fewer(parted):
    few, more = (opened(parted, f"per_class={count},seed=3") for count in (3, 9))
    assert few.drawn_C.max() == 3
    assert more.drawn_C.max() == 9
    assert set(positions(few)) < set(positions(more))
    assert positions(opened(parted, "per_class=9,seed=4")) != positions(more)


@pytest.mark.parametrize("shuffle", ["global", "window", "none"])
def test_a_loader_has_each_sample_of_a_large_view_once_an_epoch_and_resumes(parted, monkeypatch, shuffle):
    monkeypatch.setitem(Order.__init__.__kwdefaults__, "max_sorted", 6)
    expected = positions(opened(parted, WHERE))
    seen = []
    for rank in range(2):
        options = {"split": "train", "view": WHERE, "recipe": RECIPE, "shuffle": shuffle, "window_shards": 2}
        ranked = {**options, "batch_size": 4, "rank": rank, "world_size": 2, "drop_last": False}
        with imgdata.Loader(parted, **ranked) as loader:
            batches = [batch.positions[batch.valid].tolist() for batch in loader]
            seen += [position for batch in batches for position in batch]
        with imgdata.Loader(parted, **ranked) as loader:
            next(iter(loader))
            state = loader.state_dict()
        with imgdata.Loader(parted, **ranked) as loader:
            loader.load_state_dict(state)
            assert [batch.positions[batch.valid].tolist() for batch in loader] == batches[1:]
            other = imgdata.Loader(parted, **{**ranked, "view": "where width>34"})
            with pytest.raises(OptionError, match="it was saved with another dataset, view or shuffle"):
                other.load_state_dict(state)
    assert sorted(seen) == expected
    assert (seen == expected) == (shuffle == "none") or shuffle == "none"


def test_a_saved_view_is_made_once_and_found_again(parted, tmp_path, monkeypatch):
    folder = shutil.copytree(parted, tmp_path / "copy")
    made = opened(folder, WHERE)
    imgdata.save_view(made, "wide")
    (bits,) = (tmp_path / "cache" / "views").iterdir()
    assert bits.stat().st_size == selection_bytes(SAMPLES)
    # Nothing is asked again.
    monkeypatch.setattr("imgdata.views.filters._meets", None)
    again = opened(folder, "wide")
    assert (positions(again), again.fingerprint) == (positions(made), made.fingerprint)
    copy = pickle.loads(pickle.dumps(again.selection))
    assert copy.positions(np.arange(len(copy))).tolist() == positions(made)


def test_what_each_step_does_is_counted_as_of_a_small_split(plain, parted, tmp_path):
    keys = imgdata.open(plain)["train"].index.keys(np.array([5, 30, 31, 96]))
    rows = zip(keys, ("blurred", "copy", "blurred", "blurred"), strict=True)
    (tmp_path / "bad.csv").write_text("key,reason\n" + "".join(f"{key},{why}\n" for key, why in rows))
    for text in ("where width>33 | exclude,file=bad.csv", "exclude,file=bad.csv | where key like *9? | relabel=l.csv"):
        (tmp_path / "l.csv").write_text(f"key,label\n{keys[3][:-1]}5,0\n")
        one, other = (step_effects(imgdata.open(folder), opened(folder, text)) for folder in (plain, parted))
        assert other == one
    assert one[0].reasons == {"blurred": 3, "copy": 1}
    assert sum(one[2].relabelled.values()) == 1


def test_a_damaged_file_of_the_cache_is_made_again(parted, tmp_path):
    expected = positions(opened(parted, WHERE))
    (bits,) = (tmp_path / "cache" / "views").iterdir()
    data = bits.read_bytes()
    for damaged in (data[:-1], bytes([data[0] ^ 1]) + data[1:]):
        bits.unlink()
        bits.write_bytes(damaged)
        assert positions(opened(parted, WHERE)) == expected
        assert bits.read_bytes() == data


def test_without_room_in_the_cache_the_bits_stay_in_memory(parted, monkeypatch):
    expected = positions(opened(parted, WHERE))
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0")
    with pytest.warns(CacheWarning, match="larger than the cache may be"):
        view = opened(parted, f"{WHERE} | where width>=0")
    assert positions(view) == expected
    with pytest.raises(TypeError, match="can't be copied to another process"):
        pickle.dumps(view.selection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("balance", "balance: a view must have at most 6 samples, since their labels are kept in memory, got 97"),
        (f"{WHERE} | balance", "balance: a view must have at most 6 samples"),
        ("relabel=labels.csv", "relabel: a view must have at most 6 samples"),
        ("where class==nothing", "a class must be one of"),
        ("where number>3", "columns of 97 samples can't be read, of at most 6 they can"),
        ("exclude=train/nowhere", "1 of 1 keys are not in split 'train', such as 'train/nowhere'"),
    ],
)
def test_what_a_large_view_can_not_do_is_refused_with_the_reason(parted, tmp_path, text, message):
    (tmp_path / "labels.csv").write_text("key,label\ntrain/0001,a\n")
    with pytest.raises(OptionError, match=message):
        opened(parted, text)
    assert not [path for path in (tmp_path / "cache").glob("views/*") if path.suffix != ".bits"]


def test_buckets_of_a_large_view_are_refused(parted):
    with pytest.raises(OptionError, match="buckets can't be used with"):
        imgdata.Loader(parted, split="train", view=WHERE, batch_size=2, recipe=RECIPE, buckets=[(8, 8), (8, 16)])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), length=st.integers(1, 3000))
def test_a_selection_is_the_positions_that_were_kept(tmp_path_factory, data, length):
    kept = sorted(data.draw(st.sets(st.integers(0, length - 1), max_size=200)))
    cut = data.draw(st.integers(0, len(kept)))
    path = tmp_path_factory.mktemp("bits") / "bits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_BLOCK", 64)
        patch.setattr(selection, "_BLOCK_BYTES", 8)
        patch.setattr(selection, "_WINDOW", 512)
        patch.setattr(selection, "_ROWS", 7)
        with open(path, "wb") as file:
            writer = SelectionWriter(file, length)
            writer.keep(np.array(kept[:cut], np.int64))
            writer.keep(np.array(kept[cut:], np.int64))
            writer.finish()
        found = open_selection(path, length)
        assert len(found) == len(kept)
        assert found.positions(np.arange(len(kept))).tolist() == kept
        start = data.draw(st.integers(0, length))
        assert found.between(start, length).tolist() == [one for one in kept if one >= start]
        assert (
            found.rows_before(np.arange(length + 1)).tolist() == np.searchsorted(kept, np.arange(length + 1)).tolist()
        )


def test_a_file_that_is_no_selection_is_refused(tmp_path):
    (tmp_path / "bits").write_bytes(bytes(selection_bytes(9)))
    with pytest.raises(ShardError, match="damaged selection"):
        open_selection(tmp_path / "bits", 9)
    with pytest.raises(ShardError, match="damaged selection"):
        open_selection(tmp_path / "bits", 99999)
