"""Stratified splits: the counts that are guaranteed, and that nothing but the seed decides the rest."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import OptionError
from imgdata.shards.split import apply_split
from imgdata.sources import synthetic
from imgdata.sources.options import SourceOptions
from imgdata.stratify import parse_fractions, split_counts, stratified_split

FRACTIONS = st.lists(st.integers(1, 30), min_size=1, max_size=5).map(lambda parts: [one / sum(parts) for one in parts])
COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def near_whole(value: float) -> tuple[int, int]:
    """The whole numbers below and above, both the same for a whole one."""
    return math.floor(value + 1e-6), math.ceil(value - 1e-6)


@pytest.mark.parametrize(
    ("counts", "fractions", "expected"),
    [
        ([10, 20], [0.9, 0.1], [[9, 1], [18, 2]]),
        ([100], [0.71, 0.29], [[71, 29]]),  # 0.29 * 100 is below 29 in floating point
        ([5, 5], [0.9, 0.1], [[4, 1], [5, 0]]),  # half a sample each makes one
        ([1] * 10, [0.8, 0.2], [[0, 1]] * 2 + [[1, 0]] * 8),
        ([3], [0.9, 0.1], [[2, 1]]),  # no split stays empty
        ([1, 1, 1], [0.98, 0.01, 0.01], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        ([1], [0.5, 0.5], [[1, 0]]),  # but one sample can't fill two
    ],
)
def test_counts_are_as_worked_out_by_hand(counts: list[int], fractions: list[float], expected: list[list[int]]) -> None:
    assert split_counts(counts, fractions).tolist() == expected


@given(COUNTS, FRACTIONS)
def test_every_class_and_every_total_is_its_share_rounded(counts: list[int], fractions: list[float]) -> None:
    count_CS = split_counts(counts, fractions)
    assert count_CS.sum(axis=1).tolist() == counts
    total = sum(counts)
    lowest = min(math.floor(total * fraction + 1e-6) for fraction in fractions)
    if lowest == 0 and total >= len(fractions):
        # The exception: a split took its only sample from the largest.
        assert count_CS.sum(axis=0).min() >= 1
        return
    for split, fraction in enumerate(fractions):
        low, high = near_whole(total * fraction)
        assert low <= count_CS[:, split].sum() <= high
        for row, count in enumerate(counts):
            low, high = near_whole(count * fraction)
            assert low <= count_CS[row, split] <= high


@given(COUNTS, st.integers(1, 99))
def test_two_splits_get_the_nearest_totals(counts: list[int], percent: int) -> None:
    totals = split_counts(counts, [percent / 100, 1 - percent / 100]).sum(axis=0)
    exact = sum(counts) * percent / 100
    if 1 <= exact <= sum(counts) - 1:
        assert abs(totals[0] - exact) <= 0.5 + 1e-6


def test_many_classes_in_ten_folds_are_exact() -> None:
    counts = np.random.default_rng(0).integers(1, 50, 20_000)
    counts[0] += 10 - counts.sum() % 10
    assert set(split_counts(counts, [0.1] * 10).sum(axis=0).tolist()) == {counts.sum() // 10}


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=200), FRACTIONS, st.integers(0, 2**63 - 1))
def test_samples_are_cut_by_the_counts(labels: list[int], fractions: list[float], seed: int) -> None:
    named = {f"s{place}": fraction for place, fraction in enumerate(fractions)}
    split_N = stratified_split(np.array(labels, np.int32), named, seed)
    classes, counts = np.unique(labels, return_counts=True)
    found = [[int(((labels == one) & (split_N == s)).sum()) for s in range(len(fractions))] for one in classes]
    assert found == split_counts(counts, fractions).tolist()
    assert split_N.dtype == np.uint8


def test_the_same_seed_gives_the_same_split_everywhere() -> None:
    labels = np.arange(12) % 3
    fractions = {"train": 0.75, "val": 0.25}
    # Pinned: other values here mean that the same command no longer gives the same splits.
    pinned = [0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    assert stratified_split(labels, fractions, 1).tolist() == pinned
    assert stratified_split(labels.astype(np.int32), fractions, 1).tolist() == pinned
    assert stratified_split(labels, fractions, 2).tolist() != pinned


def test_each_sample_is_drawn_equally_often() -> None:
    labels = np.zeros(10, np.int32)
    drawn = sum(stratified_split(labels, {"a": 0.8, "b": 0.2}, seed).astype(int) for seed in range(2000))
    # 400 expected; the standard deviation is 18.
    assert np.all(np.abs(drawn - 400) < 90)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train=0.9,val=0.1", {"train": 0.9, "val": 0.1}),
        (" val = .2 , train = 8e-1 ", {"val": 0.2, "train": 0.8}),
        ("a=0.333333,b=0.333333,c=0.333334", {"a": 0.333333, "b": 0.333333, "c": 0.333334}),
        ("train=1", {"train": 1.0}),
    ],
)
def test_fractions_are_read_in_order(text: str, expected: dict[str, float]) -> None:
    assert list(parse_fractions(text).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be like train=0.9,val=0.1"),
        ("train", "got 'train'"),
        ("Train=0.9,val=0.1", "got 'Train=0.9'"),
        ("train=0.9,val=", "val must be a number such as 0.1, got ''"),
        ("train=0.9,train=0.1", "names train twice"),
        ("train=0.9,val=0.2", r"must sum to 1, got train=0\.9,val=0\.2 = 1\.1"),
        ("train=1.1,val=-0.1", "must be positive numbers"),
        ("train=1,val=0", "must be positive numbers"),
        ("train=nan,val=0.5", "must be positive numbers"),
        ("train=inf,val=0.5", "must sum to 1"),
    ],
)
def test_bad_fractions_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_fractions(text)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(OptionError, match="--seed must be 0 to"):
        stratified_split(np.zeros(3, np.int32), {"a": 1.0}, seed)


def test_a_listing_is_cut_and_keeps_all_else() -> None:
    listing = synthetic.list_samples(Path("synthetic:samples=100"), SourceOptions())
    cut = apply_split(listing, {"val": 0.1, "train": 0.9}, seed=0)
    assert cut.splits == ("val", "train")
    assert np.bincount(cut.split_N).tolist() == [10, 90]
    assert np.bincount(cut.label_N[cut.split_N == 0]).tolist() == [1] * 10
    assert cut.key_N is listing.key_N
    assert cut.warnings == ()


def test_classes_that_only_val_gets_are_warned_of() -> None:
    listing = synthetic.list_samples(Path("synthetic:samples=10,classes=10"), SourceOptions())
    (warning,) = apply_split(listing, {"train": 0.7, "val": 0.3}, seed=0).warnings
    assert warning.startswith("3 of the classes in val are not in train: class")


def test_splits_of_the_source_itself_are_not_cut_again() -> None:
    listing = synthetic.list_samples(Path("synthetic:samples=10,val=2"), SourceOptions())
    with pytest.raises(OptionError, match=r"splits of its own \(train, val\); leave out --split"):
        apply_split(listing, {"train": 0.9, "val": 0.1}, seed=0)


def test_too_few_samples_for_the_splits_are_refused() -> None:
    listing = synthetic.list_samples(Path("synthetic:samples=1"), SourceOptions())
    with pytest.raises(OptionError, match="1 images can't fill 2 splits"):
        apply_split(listing, {"train": 0.9, "val": 0.1}, seed=0)
