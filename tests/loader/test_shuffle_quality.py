"""Classes in a batch: the expectation, what each shuffle reaches, and who is warned."""

import itertools
import warnings
from math import comb

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgdata
from imgdata import ShardOptions
from imgdata.dataset.index import Index
from imgdata.dataset.index_schema import INDEX_SCHEMA
from imgdata.dataset.index_writing import write_index
from imgdata.errors import OptionError
from imgdata.loader.shuffle_quality import (
    ShuffleWarning,
    buffer_order,
    check_shuffle,
    expected_classes,
    mean_classes,
    shuffle_quality,
)
from imgdata.order.epoch_order import Order, permutation
from imgdata.sample import ClassName
from imgdata.views.balance import balance
from imgdata.views.view import View, whole


def view_of(tmp_path, labels, shard_samples: int) -> View:
    """A view of an index with these labels, in shards of so many samples."""
    count = len(labels)
    columns = {name: [0] * count for name in INDEX_SCHEMA.names}
    columns |= {name: ["x"] * count for name in ("mode", "format", "source")}
    columns["key"] = [f"k{i}" for i in range(count)]
    columns["shard"] = [f"s{i // shard_samples}.tar" for i in range(count)]
    columns["label"] = list(labels)
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in INDEX_SCHEMA]
    write_index(tmp_path / "train.index.parquet", pa.table(arrays, schema=INDEX_SCHEMA))
    index = Index(tmp_path / "train.index.parquet")
    classes = tuple(ClassName(str(c), str(c)) for c in range(max(labels) + 1))
    return View(
        index=index,
        folder=None,
        split="train",
        classes=classes,
        position_N=np.arange(count),
        label_N=index.label_N.copy(),
    )


@pytest.fixture
def sorted_view(tmp_path):
    """100 classes of 40, sorted by class, in 100 shards."""
    return view_of(tmp_path, np.repeat(np.arange(100), 40).tolist(), 40)


@pytest.fixture
def mixed_view(tmp_path):
    """The same samples in shuffled shards."""
    return view_of(tmp_path, (permutation(4000, seed=0, stream=0) % 100).tolist(), 40)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any), st.data())
def test_the_expectation_is_the_quotient_of_binomials(counts, data):
    total = sum(counts)
    size = data.draw(st.integers(1, total))
    exact = sum(1 - comb(total - count, size) / comb(total, size) for count in counts)
    assert expected_classes(np.array(counts), size) == pytest.approx(exact, rel=1e-9)


def test_the_expectation_is_the_mean_over_all_batches():
    labels = np.array([0, 0, 0, 1, 1, 2])
    batches = [len({labels[i] for i in chosen}) for chosen in itertools.combinations(range(6), 3)]
    assert expected_classes(np.bincount(labels), 3) == pytest.approx(np.mean(batches))


def test_the_expectation_is_stable_for_imagenet():
    counts = np.full(1000, 1281)
    # With so many samples, drawing with repeats is the same but for a few in 10,000.
    assert expected_classes(counts, 256) == pytest.approx(1000 * (1 - (1 - 1 / 1000) ** 256), rel=1e-3)
    assert expected_classes(counts, int(counts.sum())) == 1000
    assert expected_classes(counts, 1) == pytest.approx(1, rel=1e-9)


def test_distinct_labels_are_counted_in_full_batches():
    assert mean_classes(np.array([0, 1, 0, 2, 2, 2, 5]), 3) == 1.5
    assert mean_classes(np.array([3, 3]), 1) == 1


def test_sorted_shards_need_a_global_shuffle(sorted_view):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = shuffle_quality(sorted_view, 64, shuffle="global", window_shards=8, buffer=200)
    rows = {row.shuffle: row for row in table.rows}
    assert list(rows) == ["global", "window of 8 shards", "none", "buffer of 200 samples"]
    assert rows["global"].of_ideal == pytest.approx(1, abs=0.02)
    assert rows["window of 8 shards"].classes_per_batch < 17
    assert 2 <= rows["none"].classes_per_batch <= 3
    assert rows["buffer of 200 samples"].of_ideal < 0.5
    assert (table.samples, table.classes, table.batch_size) == (4000, 100, 64)
    assert [row.spread for row in table.rows] == [1.0, pytest.approx(0.08, rel=0.1), 0.0, None]


def test_mixed_shards_are_as_good_in_any_order(mixed_view):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("global", "window", "none"):
            table = shuffle_quality(mixed_view, 64, shuffle=mode)
            check_shuffle(mixed_view, Order(**settings(mixed_view, mode, 64)))
    assert [row.of_ideal for row in table.rows] == pytest.approx([1] * 4, abs=0.02)


def settings(view: View, mode: str, batch: int) -> dict:
    return {
        "num_samples": len(view),
        "global_batch": batch,
        "shuffle": mode,
        "shard_sizes": view.shard_sizes,
        "window_shards": 8,
    }


@pytest.mark.parametrize("mode", ["window", "none"])
def test_sorted_shards_are_warned_of(sorted_view, mode):
    message = rf"shuffle='{mode}' gives batches \d+% of the classes .* sorted by class; use shuffle='global'"
    with pytest.warns(ShuffleWarning, match=message):
        shuffle_quality(sorted_view, 64, shuffle=mode, window_shards=8)
    with pytest.warns(ShuffleWarning, match=message):
        check_shuffle(sorted_view, Order(**settings(sorted_view, mode, 64)))


def test_a_window_of_all_shards_is_not_warned_of(sorted_view):
    # Asserts nothing: a warning is an error.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shuffle_quality(sorted_view, 64, shuffle="window", window_shards=100)
        check_shuffle(sorted_view, Order(**settings(sorted_view, "global", 64)))


@pytest.mark.parametrize(("samples", "batch"), [(5, 2), (12, 4), (12, 12), (40, 8)])
def test_few_samples_in_random_order_are_not_warned_of(tmp_path, samples, batch):
    # Asserts nothing: a warning is an error.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(40):
            view = view_of(tmp_path, (permutation(samples, seed=seed, stream=9) % 4).tolist(), 3)
            check_shuffle(view, Order(**settings(view, "none", batch)))


def test_a_split_is_measured_like_its_view(tmp_path):
    raw = tmp_path / "raw"
    from support.rawdata import class_folders

    imgdata.shard(class_folders(raw, {"train": 6}), tmp_path / "out", ShardOptions(shard_samples=5), workers=1)
    dataset = imgdata.open(tmp_path / "out")
    assert shuffle_quality(dataset["train"], 4) == shuffle_quality(whole(dataset, "train"), 4)
    balanced = shuffle_quality(balance(whole(dataset, "train"), length=60), 6)
    assert balanced.samples == 60
    # A batch larger than the split holds all of it.
    assert shuffle_quality(dataset["train"], 100).ideal == 3


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 60), st.integers(0, 9), st.integers(0, 9))
def test_a_buffer_gives_out_every_sample_once_and_late_by_no_choice_of_its_own(sizes, buffer, seed, epoch):
    order_N = buffer_order(sizes, buffer, seed, epoch)
    assert sorted(order_N.tolist()) == list(range(sum(sizes)))
    shard_N = np.repeat(np.arange(len(sizes)), sizes)[order_N]
    if buffer == 1:
        # One slot is a delay of one: shards come whole and in one piece.
        assert (np.diff(shard_N) != 0).sum() == len(sizes) - 1


def test_a_sample_leaves_a_buffer_only_after_it_came_in():
    order_N = buffer_order([1000], 50, 0, 0)
    # One shard: 50 samples are held, so the one that leaves as number p came as number p + 49 at the latest.
    assert (order_N - np.arange(1000)).max() == 49
    assert not np.array_equal(order_N, buffer_order([1000], 50, 0, 1))


def test_the_table_is_text_and_values(mixed_view):
    table = shuffle_quality(mixed_view, 64, buffer=100)
    lines = str(table).splitlines()
    assert lines[0].startswith("4000 samples, 100 classes, batches of 64: 47.")
    assert [line[:28].strip() for line in lines[1:]] == [
        "shuffle",
        "global",
        "window of 16 shards",
        "none",
        "buffer of 100 samples",
    ]
    assert table.to_dict()["rows"][2]["shuffle"] == "none"


def test_settings_without_meaning_are_refused(mixed_view):
    with pytest.raises(OptionError, match="buffer must be 1 or more, got 0"):
        shuffle_quality(mixed_view, 4, buffer=0)
    with pytest.raises(OptionError, match="batch_size must be 1 or more, got 0"):
        shuffle_quality(mixed_view, 0)
    with pytest.raises(OptionError, match="shuffle must be one of global, window, none, got 'buffer'"):
        shuffle_quality(mixed_view, 4, shuffle="buffer")
