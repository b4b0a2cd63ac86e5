"""Balanced views and class weights: every class its part, every sample its turn, in any epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

import imgdata
from imgdata.errors import OptionError
from imgdata.views.balance import balance, class_weights
from imgdata.views.filters import where
from imgdata.views.relabel import relabel
from imgdata.views.resampling import SampleResampling, cycle_draws, quotas, repeat_numbers
from imgdata.views.subsets import subset_fraction
from imgdata.views.view import whole
from support.animals import animals, keys, many


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture
def train(folder):
    return whole(imgdata.open(folder), "train")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 200), st.integers(0, 50), st.integers(0, 9))
def test_classes_have_equal_parts_and_no_sample_comes_twice_before_all_came_once(class_counts, length, epoch, seed):
    view = many(class_counts)
    even = balance(view, length=length, seed=seed)
    assert len(even) == length
    drawn: Counter[int] = Counter()
    before = quotas(np.ones(len(class_counts)), length) * epoch
    for one in range(epoch, epoch + 3):
        rows = even.epoch_rows(one)
        assert rows.tolist() == sorted(rows.tolist())
        quota_C = np.bincount(view.label_N[rows], minlength=len(class_counts))
        assert quota_C.sum() == length
        assert quota_C.max() - quota_C.min() <= 1
        assert quota_C.tolist() == quotas(np.ones(len(class_counts)), length).tolist()
        drawn.update(rows.tolist())
    for label, count in enumerate(class_counts):
        times = [drawn[row] for row in np.flatnonzero(view.label_N == label).tolist()]
        # The three epochs start and end anywhere in a cycle through the class.
        first, last = int(before[label]), int(before[label] + 3 * quota_C[label])
        most = -(-last // count) - first // count
        whole_cycles = max(last // count - -(-first // count), 0)
        assert whole_cycles <= min(times)
        assert max(times) <= max(most, 0)


def test_an_epoch_of_a_balanced_view_does_not_depend_on_those_before():
    view = many([30, 3, 1])
    forwards = [balance(view, seed=4).epoch_rows(epoch).tolist() for epoch in range(5)]
    once = balance(view, seed=4)
    assert [once.epoch_rows(epoch).tolist() for epoch in (4, 3, 2, 1, 0)] == forwards[::-1]
    assert len(set(map(tuple, forwards))) == 5
    assert balance(view, seed=5).epoch_rows(0).tolist() != forwards[0]


def test_weights_by_class_are_relative_to_one(train):
    view = balance(train, {"cat": 2, "newt": 0}, length=30)
    assert np.bincount(view.epoch_labels(7), minlength=3).tolist() == [20, 10, 0]
    assert view.drawn_C.tolist() == pytest.approx([20, 10, 0])
    assert view.expression == "balance=cat:2.0,newt:0.0,length=30,seed=0"
    assert repr(view) == f"<View train | {view.expression}; 30 samples, 3 classes>"


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=30).filter(any),
    st.integers(1, 100),
    st.integers(0, 2**32 - 1),
)
def test_weights_by_sample_give_their_share_rounded(weights, length, epoch):
    resampling = SampleResampling(weight_N=np.array(weights), length=length, seed=2)
    rows = resampling.rows(epoch)
    assert len(rows) == length
    times_N = np.bincount(rows, minlength=len(weights))
    share_N = resampling.drawn_N()
    assert (times_N >= np.floor(share_N - 1e-9)).all()
    assert (times_N <= np.ceil(share_N + 1e-9)).all()


def test_weights_by_sample_are_right_on_average(train):
    weight_N = np.arange(20) % 4 * 0.25
    view = balance(train, weight_N, length=10, seed=3)
    times_N = sum(np.bincount(view.epoch_rows(epoch), minlength=20) for epoch in range(2000))
    expected_N = 2000 * 10 * weight_N / weight_N.sum()
    assert times_N[weight_N == 0].sum() == 0
    # A share below 1 is drawn or not: the standard deviation is at most 22.4.
    assert np.abs(times_N - expected_N).max() < 5 * 22.4


def test_weights_by_sample_come_from_an_array_or_a_file(train, tmp_path):
    weights = np.linspace(0, 1, 20)
    table = tmp_path / "weights.csv"
    lines = [f"{key},{weight!r}" for key, weight in zip(keys(train), weights.tolist(), strict=True)]
    table.write_text("\n".join(["key,weight", *lines[1:]]))
    view = balance(train, table, length=40)
    assert view.fingerprint == balance(train, weights, length=40).fingerprint
    assert view.expression == f"balance,weights={table},length=40,seed=0"
    assert view.drawn_C.sum() == pytest.approx(40)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (None, {"length": 0}, "length must be 1 or more, got 0"),
        (None, {"seed": -1}, r"seed must be 0 to 2\^63-1, got -1"),
        ({"cow": 1}, {}, "a class must be one of 3, .* got 'cow'"),
        ({"cat": -1}, {}, r"the weight of 'cat' must be a number from 0, got '-1\.0'"),
        ({"cat": 0, "dog": 0, "newt": 0}, {}, "a class with samples must have a weight above 0"),
        (np.ones(3), {}, r"weights must have the shape \(20,\), got \(3,\)"),
        (np.zeros(20), {}, "a sample of the view must have a weight above 0"),
        (np.full(20, np.nan), {}, "must be a number from 0, got 'nan'"),
    ],
)
def test_balances_without_meaning_are_refused(train, weights, options, message):
    with pytest.raises(OptionError, match=message):
        balance(train, weights, **options)


def test_nothing_follows_a_balance(train):
    balanced = balance(train)
    for step in (
        lambda: subset_fraction(balanced, 0.5),
        lambda: where(balanced, "width>1"),
        lambda: balance(balanced),
        lambda: relabel(balanced, {}),
    ):
        with pytest.raises(OptionError, match="balance must be the last step, got"):
            step()


@given(st.integers(1, 40), st.integers(0, 10**12), st.integers(1, 100))
def test_draws_are_parts_of_one_endless_row(num_samples, first, count):
    drawn = cycle_draws(num_samples, first=first, count=count, seed=1, stream=2)
    halves = [
        cycle_draws(num_samples, first=first, count=count // 2, seed=1, stream=2) if count > 1 else drawn[:0],
        cycle_draws(num_samples, first=first + count // 2, count=count - count // 2, seed=1, stream=2),
    ]
    assert np.concatenate(halves).tolist() == drawn.tolist()
    start = -first % num_samples
    for cycle in range(start, count - num_samples + 1, num_samples):
        assert sorted(drawn[cycle : cycle + num_samples].tolist()) == list(range(num_samples))


def test_repeats_are_numbered():
    assert repeat_numbers(np.array([0, 2, 2, 2, 5, 5])).tolist() == [0, 0, 1, 2, 0, 1]
    assert repeat_numbers(np.array([], np.int64)).tolist() == []
    assert balance(many([4, 1]), length=8).epoch_repeats(2).tolist().count(3) == 1


@pytest.mark.parametrize(
    ("counts_C", "beta"), [([10, 6, 4], 0.9), ([5000, 50], 0.9999), ([1, 1, 1], 0.5), ([7, 3], 0.0)]
)
def test_class_weights_are_those_of_the_papers(counts_C, beta):
    view = many(counts_C)
    labels = view.label_N
    theirs = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert class_weights(view) == pytest.approx(theirs)
    inverse = np.array([(1 - beta) / (1 - beta**count) for count in counts_C])
    found = class_weights(view, "effective", beta=beta)
    assert found == pytest.approx(inverse / inverse.sum() * len(counts_C))
    assert found.dtype == np.float64


def test_classes_without_samples_weigh_nothing():
    view = many([4, 0, 2], unlabelled=1)
    assert class_weights(view).tolist() == pytest.approx([0.75, 0, 1.5])
    assert class_weights(view, "effective").sum() == pytest.approx(2)


def test_a_balanced_view_needs_no_weights(train):
    assert class_weights(balance(train, length=3000)) == pytest.approx(np.ones(3))


def test_class_weights_without_meaning_are_refused(train):
    with pytest.raises(OptionError, match="method must be balanced or effective, got 'other'"):
        class_weights(train, "other")
    with pytest.raises(OptionError, match="beta must be 0 or more and below 1, got 1"):
        class_weights(train, "effective", beta=1.0)
    with pytest.raises(OptionError, match=r"no sample of .* has a label"):
        class_weights(relabel(train, dict.fromkeys(keys(train), "")))
