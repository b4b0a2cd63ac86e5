"""Order and progress: every sample once, for any number of ranks, and from any point on."""

import json
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_SORTED, EpochCache, Order, permutation, spread
from imgdata.order.resume import Progress, advance, fingerprint, resume

MODES = ("global", "window", "none")


@st.composite
def orders(draw: st.DrawFn, **fixed) -> Order:
    sizes = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=12)))
    total = sum(sizes)
    drop_last = draw(st.booleans())
    settings = {
        "num_samples": total,
        "global_batch": draw(st.integers(1, total if drop_last else total + 20)),
        "shuffle": draw(st.sampled_from(MODES)),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "drop_last": drop_last,
        "shard_sizes": sizes,
        "window_shards": draw(st.integers(1, 15)),
        "max_sorted": draw(st.sampled_from([MAX_SORTED, 0])),
    }
    return Order(**{**settings, **fixed})


def divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def rest_of_epoch(order: Order, epoch: int, offset: int, world_size: int = 1) -> list[int]:
    """The valid positions of every rank, batch by batch, until the epoch ends."""
    positions: list[int] = []
    for number in range(order.batches_left(offset)):
        for rank in range(world_size):
            position_B, valid_B = order.batch_at(epoch, offset + number * order.global_batch, rank, world_size)
            assert position_B.shape == valid_B.shape == (order.global_batch // world_size,)
            assert (position_B.dtype, valid_B.dtype) == (np.int64, bool)
            positions += position_B[valid_B].tolist()
    return positions


def test_the_order_of_shards_and_epochs_is_pinned() -> None:
    # Other values here mean that the same seed no longer gives the same shards, or the same training run.
    assert permutation(10, seed=0, stream=1).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    settings = {"num_samples": 10, "global_batch": 2, "seed": 7, "shard_sizes": (3, 2, 4, 1), "window_shards": 2}
    found = {mode: Order(**settings, shuffle=mode).epoch_positions(3).tolist() for mode in MODES}
    assert found == {
        "global": [5, 4, 8, 3, 6, 9, 0, 7, 2, 1],
        "window": [5, 3, 4, 7, 8, 6, 0, 9, 1, 2],
        "none": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    }
    keyed = {mode: Order(**settings, shuffle=mode, max_sorted=9).epoch_positions(3).tolist() for mode in MODES}
    assert keyed == {
        "global": [8, 2, 0, 4, 1, 5, 3, 9, 7, 6],
        "window": [4, 5, 3, 8, 7, 6, 1, 9, 0, 2],
        "none": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    }


@given(orders(), st.integers(0, 2**32 - 1))
def test_an_epoch_is_a_permutation_of_the_split(order: Order, epoch: int) -> None:
    assert sorted(order.epoch_positions(epoch).tolist()) == list(range(order.num_samples))


@given(orders(), st.integers(0, 3), st.data())
def test_ranks_take_each_sample_once_in_equal_steps(order: Order, epoch: int, data: st.DataObject) -> None:
    world_size = data.draw(st.sampled_from(divisors(order.global_batch)))
    expected = order.epoch_positions(epoch).tolist()
    if order.drop_last:
        expected = expected[: len(order) * order.global_batch]
    assert rest_of_epoch(order, epoch, 0, world_size) == expected


@given(orders(), st.data())
def test_a_global_batch_is_the_same_for_every_number_of_ranks(order: Order, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(order) - 1))
    whole_B, whole_valid_B = order.batch(1, number)
    for world_size in divisors(order.global_batch):
        parts = [order.batch(1, number, rank, world_size) for rank in range(world_size)]
        assert np.concatenate([position_B for position_B, _ in parts]).tolist() == whole_B.tolist()
        assert np.concatenate([valid_B for _, valid_B in parts]).tolist() == whole_valid_B.tolist()


@pytest.mark.parametrize(
    ("num_samples", "global_batch", "drop_last", "steps", "padding"),
    [
        (10, 4, False, 3, 2),
        (10, 4, True, 2, 0),
        (8, 4, False, 2, 0),
        (3, 8, False, 1, 5),  # fewer samples than one batch
        (1, 8, False, 1, 7),
    ],
)
def test_the_last_batch_is_padded_or_left_out(num_samples, global_batch, drop_last, steps, padding) -> None:
    order = Order(num_samples=num_samples, global_batch=global_batch, drop_last=drop_last)
    assert len(order) == steps
    position_B, valid_B = order.batch(0, steps - 1)
    assert (~valid_B).sum() == padding
    assert valid_B.tolist() == sorted(valid_B.tolist(), reverse=True)
    # The padding is the epoch once more, from its start.
    assert position_B[~valid_B].tolist() == np.resize(order.epoch_positions(0), padding).tolist()


@given(orders(), st.integers(0, 200), st.data())
def test_a_run_goes_on_with_the_same_samples_after_any_number_of_batches(
    order: Order, batches: int, data: st.DataObject
) -> None:
    mark = fingerprint("data", order)
    start = Progress(seed=order.seed, epoch=2, samples=0, fingerprint=mark)
    stopped = advance(order, start, batches)
    assert (stopped.epoch, stopped.samples) == (2 + batches // len(order), batches % len(order) * order.global_batch)
    limit = order.num_samples if order.drop_last else order.num_samples + 20
    other = Order(
        num_samples=order.num_samples,
        global_batch=data.draw(st.integers(1, limit)),
        shuffle=order.shuffle,
        seed=order.seed,
        shard_sizes=order.shard_sizes,
        window_shards=order.window_shards,
        max_sorted=order.max_sorted,
    )
    progress = resume(json.loads(json.dumps(stopped.to_state())), other, fingerprint("data", other))
    assert progress == stopped
    world_size = data.draw(st.sampled_from(divisors(other.global_batch)))
    remaining = rest_of_epoch(other, progress.epoch, progress.samples, world_size)
    assert remaining == order.epoch_positions(stopped.epoch)[stopped.samples :].tolist()


@given(orders(), st.lists(st.integers(0, 30), max_size=5))
def test_progress_is_the_same_in_many_steps_as_in_one(order: Order, steps: list[int]) -> None:
    start = progress = Progress(seed=0, epoch=0, samples=0, fingerprint="")
    for batches in steps:
        progress = advance(order, progress, batches)
    assert progress == advance(order, start, sum(steps))


def test_a_rest_without_a_full_batch_is_dropped_at_a_resume() -> None:
    before = Order(num_samples=10, global_batch=2, drop_last=True)
    mark = fingerprint("data", before)
    stopped = advance(before, Progress(seed=0, epoch=4, samples=0, fingerprint=mark), 4)
    assert stopped.samples == 8
    after = Order(num_samples=10, global_batch=3, drop_last=True)
    progress = resume(stopped.to_state(), after, fingerprint("data", after))
    assert (progress.epoch, progress.samples) == (5, 0)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"global_batch": 5}, True),
        ({"drop_last": True}, True),
        ({"seed": 1}, True),  # compared on its own, with a message of its own
        ({"window_shards": 3}, False),
        ({"shard_sizes": (6, 4)}, False),
        ({"shuffle": "none"}, False),
        ({"max_sorted": 9}, False),
        ({"max_sorted": 10}, True),
        ({"num_samples": 11, "shard_sizes": (5, 6)}, False),
    ],
)
def test_the_fingerprint_names_what_decides_the_sequence(change, same) -> None:
    settings = {"num_samples": 10, "global_batch": 2, "shuffle": "window", "shard_sizes": (5, 5)}
    marks = fingerprint("data", Order(**settings)), fingerprint("data", Order(**{**settings, **change}))
    assert (marks[0] == marks[1]) is same
    assert fingerprint("other data", Order(**settings)) != marks[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "state: version must be 1, got 2"),
        ({"fingerprint": "beef"}, "fingerprint must be .*, got beef: it was saved with another dataset"),
        ({"fingerprint": None}, "fingerprint must be text, got None"),
        ({"seed": 8}, "seed must be 7, got 8; pass seed=8"),
        ({"epoch": -1}, "epoch must be a whole number from 0, got -1"),
        ({"samples": 11}, "samples must be 0 to 10, got 11"),
        ({"samples": True}, "samples must be a whole number from 0, got True"),
        ({"samples": "4"}, "samples must be a whole number from 0, got '4'"),
    ],
)
def test_states_that_do_not_fit_are_refused(change, message) -> None:
    order = Order(num_samples=10, global_batch=2, seed=7)
    mark = fingerprint("data", order)
    state = Progress(seed=7, epoch=1, samples=4, fingerprint=mark).to_state()
    assert resume(state, order, mark).samples == 4
    with pytest.raises(OptionError, match=message):
        resume({**state, **change}, order, mark)


@given(orders(shuffle="window"), st.integers(0, 5))
def test_a_window_holds_whole_shards_and_no_more_than_it_may(order: Order, epoch: int) -> None:
    shard_N = np.repeat(np.arange(len(order.shard_sizes)), order.shard_sizes)[order.epoch_positions(epoch)]
    windows: list[set[int]] = []
    open_samples = 0
    for shard in shard_N.tolist():
        if open_samples == 0:
            windows.append(set())
        if shard not in windows[-1]:
            windows[-1].add(shard)
            open_samples += order.shard_sizes[shard]
        open_samples -= 1
    # Whole shards: what is open when a window ends is nothing, so no shard stands in two of them.
    assert sum(map(len, windows)) == len(order.shard_sizes)
    num_windows = -(-len(order.shard_sizes) // order.window_shards)
    assert len(windows) >= num_windows
    assert max(map(len, windows)) <= order.window_shards


def test_windows_are_even_and_their_shards_differ_by_epoch() -> None:
    order = Order(num_samples=170, global_batch=10, shuffle="window", shard_sizes=(10,) * 17, window_shards=16)
    first = [set((order.epoch_positions(epoch)[:90] // 10).tolist()) for epoch in range(4)]
    assert [len(shards) for shards in first] == [9] * 4
    assert len(set(map(frozenset, first))) == 4


@pytest.mark.parametrize("max_sorted", [MAX_SORTED, 0])
@pytest.mark.parametrize("mode", ["global", "window"])
def test_a_sample_comes_anywhere_equally_often(mode, max_sorted) -> None:
    sizes = {"shard_sizes": (3,) * 4, "window_shards": 2}
    order = Order(num_samples=12, global_batch=1, shuffle=mode, max_sorted=max_sorted, **sizes)
    places = np.zeros((12, 12), int)
    for epoch in range(2400):
        places[order.epoch_positions(epoch), np.arange(12)] += 1
    # 200 expected; the standard deviation is 13.5.
    assert np.abs(places - 200).max() < 5 * 13.5


@given(orders(shuffle="window"))
def test_spread_is_between_its_ends(order: Order) -> None:
    assert 0 < spread(order) <= 1
    if order.window_shards >= len(order.shard_sizes):
        assert spread(order) == pytest.approx(1)


@pytest.mark.parametrize(
    ("shard_sizes", "window_shards"), [((5, 5, 5, 5, 5), 2), ((1, 30, 4, 9), 3), ((8, 8, 8, 8), 1), ((7, 2), 16)]
)
def test_spread_is_how_far_samples_of_a_window_lie_apart(shard_sizes, window_shards) -> None:
    settings = {"num_samples": sum(shard_sizes), "global_batch": 1, "shard_sizes": shard_sizes}
    order = Order(**settings, shuffle="window", window_shards=window_shards)
    num_shards = len(shard_sizes)
    num_windows = -(-num_shards // window_shards)
    window_at_S = np.arange(num_shards) * num_windows // num_shards
    sizes = []
    for trial in range(3000):
        window_S = np.empty(num_shards, int)
        window_S[permutation(num_shards, seed=1, stream=trial)] = window_at_S
        size_W = np.bincount(window_S, shard_sizes)
        sizes.append((size_W[window_S] * shard_sizes).sum() / order.num_samples)
    assert spread(order) == pytest.approx((np.mean(sizes) + 1) / (order.num_samples + 1), rel=0.02)


def test_global_and_none_are_the_ends_of_spread() -> None:
    assert spread(Order(num_samples=9, global_batch=1)) == 1
    assert spread(Order(num_samples=9, global_batch=1, shuffle="none")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 0}, "num_samples must be 1 or more, got 0; the split or view is empty"),
        ({"global_batch": 0}, "batch_size must be 1 or more, got 0"),
        ({"shuffle": "yes"}, "shuffle must be one of global, window, none, got 'yes'"),
        ({"seed": -1}, r"seed must be 0 to 2\^63-1, got -1"),
        ({"seed": 2**63}, r"seed must be 0 to 2\^63-1"),
        ({"shuffle": "window"}, "shard_sizes must sum to num_samples = 10, got 0 in 0 shards"),
        ({"shard_sizes": (4, 5)}, "shard_sizes must sum to num_samples = 10, got 9 in 2 shards"),
        ({"shard_sizes": (10, 0)}, "shard_sizes must be 1 or more, got 0"),
        ({"window_shards": 0}, "window_shards must be 1 or more, got 0"),
        (
            {"global_batch": 11, "drop_last": True},
            "world_size must be at most 10, .* with drop_last, got 11",
        ),
    ],
)
def test_settings_without_meaning_are_refused(change, message) -> None:
    with pytest.raises(OptionError, match=message):
        Order(**{"num_samples": 10, "global_batch": 2, **change})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 5), IndexError, "batch must be 0 to 4, got 5"),
        ((0, -1), IndexError, "batch must be 0 to 4, got -1"),
        ((2**32, 0), OptionError, r"epoch must be 0 to 2\^32-1, got 4294967296"),
        ((0, 0, 2, 2), OptionError, "rank must be 0 to world_size - 1 = 1, got 2"),
        ((0, 0, 0, 3), OptionError, "global_batch must be a multiple of world_size 3, got 2"),
    ],
)
def test_batches_that_are_not_there_are_refused(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        Order(num_samples=10, global_batch=2).batch(*arguments)


def test_an_epoch_has_no_batch_behind_its_samples() -> None:
    order = Order(num_samples=10, global_batch=4, drop_last=True)
    assert order.batch_at(0, 6)[1].all()
    for offset in (7, 10, -1):
        with pytest.raises(IndexError, match=f"no batch after {offset} of 10 samples"):
            order.batch_at(0, offset)


@pytest.mark.slow
def test_ten_thousand_epochs_take_the_memory_of_two() -> None:
    order = Order(num_samples=2_000, global_batch=100, shuffle="window", shard_sizes=(100,) * 20, window_shards=4)
    order.batch(0, 0)
    tracemalloc.start()
    try:
        for epoch in range(100):
            order.batch(epoch, 3)
        before = tracemalloc.get_traced_memory()[0]
        for epoch in range(100, 10_000):
            order.batch(epoch, 3)
        assert tracemalloc.get_traced_memory()[0] - before < 4_000
    finally:
        tracemalloc.stop()


def test_an_epoch_is_made_once_and_cannot_be_changed() -> None:
    order = Order(num_samples=10, global_batch=2)
    first, ahead = order.epoch_positions(0), order.epoch_positions(1)
    assert order.epoch_positions(0) is first
    assert order.epoch_positions(1) is ahead
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_threads_that_read_different_epochs_get_their_own() -> None:
    order = Order(num_samples=1_000, global_batch=10)
    expected = [permutation_of(epoch) for epoch in range(6)]
    wrong: list[int] = []

    def read(epoch: int) -> None:
        for _ in range(50):
            if order.epoch_positions(epoch).tolist() != expected[epoch]:
                wrong.append(epoch)

    threads = [threading.Thread(target=read, args=(epoch,)) for epoch in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def permutation_of(epoch: int) -> list[int]:
    return Order(num_samples=1_000, global_batch=10).epoch_positions(epoch).tolist()


def test_an_order_pickles_without_its_epochs() -> None:
    order = Order(num_samples=100_000, global_batch=10, seed=5)
    position_N = order.epoch_positions(0)
    data = pickle.dumps(order)
    assert len(data) < 1_000
    copy = pickle.loads(data)
    assert copy == order
    assert np.array_equal(copy.epoch_positions(0), position_N)
    assert isinstance(copy._epochs, EpochCache)
