"""The order that is never held in memory: a permutation, as random as a sorted one, at a few microseconds a sample."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import OptionError
from imgdata.order.bijection import scatter
from imgdata.order.bucket_order import BucketOrder
from imgdata.order.epoch_order import MAX_SORTED, Order
from imgdata.order.resume import Progress, advance, fingerprint

BILLIONS = 2_000_000_000
SIZES = (10_000,) * 200_000
MODES = ("global", "window")


def keyed(num_samples: int, **settings) -> Order:
    return Order(**{"num_samples": num_samples, "global_batch": 1, "max_sorted": 0, **settings})


def of_billions(mode: str, **settings) -> Order:
    shards = SIZES if mode == "window" else ()
    return Order(num_samples=BILLIONS, global_batch=256, shuffle=mode, shard_sizes=shards, **settings)


def chi_square_sigmas(count_K: np.ndarray) -> float:
    """How many standard deviations the counts are from equal ones: chi-square, by Wilson and Hilferty."""
    expected, freedom = count_K.mean(), count_K.size - 1
    chi_square = ((count_K - expected) ** 2 / expected).sum()
    return ((chi_square / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom))


def test_every_length_up_to_600_gives_a_permutation() -> None:
    for count in range(1, 601):
        assert sorted(scatter(np.arange(count), count, seed=1, stream=2).tolist()) == list(range(count)), count


@given(st.integers(1, 30_000), st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1))
def test_any_length_seed_and_stream_give_a_permutation(count: int, seed: int, stream: int) -> None:
    assert (np.sort(scatter(np.arange(count), count, seed=seed, stream=stream)) == np.arange(count)).all()


@given(st.integers(1, 2**40), st.integers(0, 2**63 - 1), st.data())
def test_samples_of_neighbouring_places_of_long_sequences_differ_and_lie_in_it(count, seed, data) -> None:
    first = data.draw(st.integers(0, count - 1))
    place_K = np.arange(first, min(first + 500, count))
    found_K = scatter(place_K, count, seed=seed, stream=0)
    assert found_K.min() >= 0
    assert found_K.max() < count
    assert len(np.unique(found_K)) == len(place_K)


def test_parts_are_those_of_the_whole_in_any_order_and_number() -> None:
    order = keyed(1_000)
    whole_N = order.epoch_positions(5)
    place_K = np.array([999, 0, 17, 17, 500])
    assert order.positions(5, place_K).tolist() == whole_N[place_K].tolist()
    assert [order.positions(5, np.array([place])).item() for place in range(1_000)] == whole_N.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_places_of_two_billion_samples_are_spread_evenly(mode: str, epoch: int) -> None:
    order = of_billions(mode, seed=epoch)
    # As many from each window, since those are what `window` keeps together.
    place_K = np.linspace(0, BILLIONS - 1, 100_000).astype(np.int64)
    sample_K = order.positions(epoch, place_K)
    assert len(np.unique(sample_K)) == len(place_K)
    for bins in (10, 97, 1000):
        assert abs(chi_square_sigmas(np.bincount(sample_K * bins // BILLIONS, minlength=bins))) < 5
    # Lowest bits too: every shard has its samples in the same places.
    assert abs(chi_square_sigmas(np.bincount(sample_K % 256, minlength=256))) < 5


@pytest.mark.parametrize("size", [1_000, 4_097, 100_003])
def test_neighbours_and_epochs_are_not_correlated(size: int) -> None:
    epochs = [keyed(size, seed=3).epoch_positions(epoch).astype(float) for epoch in range(4)]
    sigma = 1 / np.sqrt(size)
    for number, position_N in enumerate(epochs):
        for lag in (1, 2, 7, 64):
            assert abs(np.corrcoef(position_N[:-lag], position_N[lag:])[0, 1]) < 5 * sigma
        assert abs(np.corrcoef(position_N, np.arange(size))[0, 1]) < 5 * sigma
        for other_N in epochs[:number]:
            assert abs(np.corrcoef(position_N, other_N)[0, 1]) < 5 * sigma
            # A sample has the same place twice once on average.
            assert (position_N == other_N).sum() < 10


@pytest.mark.parametrize("size", [3, 4])
def test_every_permutation_of_few_samples_comes_equally_often(size: int) -> None:
    epochs = 3_000
    order = keyed(size)
    found_EN = np.array([order.positions(epoch, np.arange(size)) for epoch in range(epochs)])
    _, times_P = np.unique(found_EN @ 10 ** np.arange(size), return_counts=True)
    assert len(times_P) == {3: 6, 4: 24}[size]
    assert abs(chi_square_sigmas(times_P)) < 5


def test_pairs_of_neighbours_come_equally_often() -> None:
    order, size = keyed(11), 11
    pairs = np.zeros((size, size), int)
    for epoch in range(2_000):
        position_N = order.positions(epoch, np.arange(size))
        pairs[position_N[:-1], position_N[1:]] += 1
    assert not pairs.diagonal().any()
    assert abs(chi_square_sigmas(pairs[~np.eye(size, dtype=bool)])) < 5


@pytest.mark.parametrize("mode", MODES)
def test_another_seed_or_epoch_gives_another_order(mode: str) -> None:
    place_K = np.arange(1_000)
    settings = {"shuffle": mode, "shard_sizes": (50,) * 20, "window_shards": 4}
    found = [
        keyed(1_000, **settings, seed=seed).positions(epoch, place_K).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (2**63 - 1, 2**32 - 1))
    ]
    assert len({tuple(one) for one in found}) == 4


def test_windows_of_equal_size_are_shuffled_each_in_its_own_way() -> None:
    order = keyed(1_000, shuffle="window", shard_sizes=(10,) * 100, window_shards=10)
    by_window = order.epoch_positions(0).reshape(10, 100) % 10
    assert len({tuple(one) for one in by_window.tolist()}) == 10


def test_the_order_is_a_bijection_above_the_limit_only() -> None:
    assert not Order(num_samples=MAX_SORTED, global_batch=1).is_keyed
    assert Order(num_samples=MAX_SORTED + 1, global_batch=1).is_keyed
    assert not Order(num_samples=BILLIONS, global_batch=1, shuffle="none").is_keyed


@pytest.mark.parametrize("mode", [*MODES, "none"])
def test_ranks_share_out_a_batch_of_two_billion_samples(mode: str) -> None:
    order = of_billions(mode)
    whole_B, valid_B = order.batch(3, 1_000_000)
    parts = [order.batch(3, 1_000_000, rank, 64)[0] for rank in range(64)]
    assert np.concatenate(parts).tolist() == whole_B.tolist()
    assert valid_B.all()
    assert len(np.unique(whole_B)) == 256


def test_an_epoch_of_billions_is_planned_in_little_memory() -> None:
    order = of_billions("global")
    order.batch(0, 0)
    tracemalloc.start()
    for number in range(3):
        order.batch(0, number)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_state_of_billions_is_as_small_as_any() -> None:
    order = of_billions("global")
    mark = fingerprint("data", order)
    progress = advance(order, Progress(seed=0, epoch=0, samples=0, fingerprint=mark), 10_000_000)
    assert (progress.epoch, progress.samples) == (1, (10_000_000 - 7_812_500) * 256)
    assert len(json.dumps(progress.to_state())) < 150


@pytest.mark.parametrize("mode", [*MODES, "none"])
def test_all_positions_of_an_epoch_are_refused_where_they_would_fill_the_memory(mode: str) -> None:
    with pytest.raises(OptionError, match="num_samples must be at most 134,217,728 for all positions of an epoch"):
        of_billions(mode).epoch_positions(0)


@pytest.mark.parametrize("epoch", [-1, 2**32])
def test_an_epoch_out_of_range_is_refused(epoch: int) -> None:
    with pytest.raises(OptionError, match="epoch must be 0 to 2"):
        of_billions("none").positions(epoch, np.arange(3))


def test_buckets_are_refused_where_their_order_would_fill_the_memory() -> None:
    settings = {"global_batch": 1, "num_buckets": 1, "max_sorted": 9}
    with pytest.raises(OptionError, match=r"buckets must have at most 9 samples.* got 10; make the view shorter"):
        BucketOrder(num_samples=10, bucket_N=np.zeros(10, np.int64), **settings)
