"""Orders whose batches are of one bucket: every sample once, one bucket for all ranks, resumed anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import OptionError
from imgdata.order.bucket_order import BucketOrder
from imgdata.order.epoch_order import Order
from imgdata.order.resume import Progress, advance, fingerprint, resume


@st.composite
def orders(draw: st.DrawFn, **fixed: object) -> BucketOrder:
    """Any order of up to 60 samples in up to 4 buckets."""
    buckets = draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
    world = draw(st.sampled_from([1, 2, 3]))
    return BucketOrder(
        num_samples=len(buckets),
        global_batch=world * draw(st.integers(1, 5)),
        shuffle=draw(st.sampled_from(["global", "none"])),
        seed=draw(st.integers(0, 2**63 - 1)),
        drop_last=False,
        bucket_N=np.array(buckets, np.int64),
        num_buckets=4,
        **fixed,  # type: ignore[arg-type]
    )


def epoch_of(order: BucketOrder, epoch: int, rank: int = 0, world_size: int = 1) -> list[tuple[list[int], list[bool]]]:
    """All batches of a rank."""
    batches = []
    for number in range(len(order)):
        place_B, valid_B = order.batch_at(epoch, number * order.global_batch, rank, world_size)
        batches.append((place_B.tolist(), valid_B.tolist()))
    return batches


@given(orders(), st.integers(0, 5))
def test_every_sample_is_valid_once_an_epoch(order, epoch):
    valid = [place for places, valids in epoch_of(order, epoch) for place, ok in zip(places, valids, strict=True) if ok]
    assert sorted(valid) == list(range(order.num_samples))


@given(orders(), st.integers(0, 5))
def test_a_batch_is_of_one_bucket(order, epoch):
    for number, (places, _) in enumerate(epoch_of(order, epoch)):
        bucket = order.bucket_at(epoch, number * order.global_batch)
        assert {int(order.bucket_N[place]) for place in places} == {bucket}
        assert len(places) == order.global_batch


@given(orders(), st.integers(0, 5))
def test_a_bucket_keeps_the_order_of_its_samples(order, epoch):
    plain = Order(num_samples=order.num_samples, global_batch=1, shuffle=order.shuffle, seed=order.seed)
    sequence = plain.epoch_positions(epoch).tolist()
    for bucket in range(4):
        valid = [
            place
            for places, valids in epoch_of(order, epoch)
            for place, ok in zip(places, valids, strict=True)
            if ok and order.bucket_N[place] == bucket
        ]
        assert valid == [place for place in sequence if order.bucket_N[place] == bucket]


@given(orders(), st.integers(0, 3), st.sampled_from([1, 2, 3]))
def test_ranks_cut_a_global_batch_and_have_its_bucket(order, epoch, world_size):
    if order.global_batch % world_size:
        return
    whole = epoch_of(order, epoch)
    parts = [epoch_of(order, epoch, rank, world_size) for rank in range(world_size)]
    for number, (places, valids) in enumerate(whole):
        assert [place for part in parts for place in part[number][0]] == places
        assert [valid for part in parts for valid in part[number][1]] == valids


@given(orders(), st.integers(0, 12))
def test_a_state_is_resumed_at_every_batch(order, taken):
    name = fingerprint("data", order)
    start = Progress(seed=order.seed, epoch=0, samples=0, fingerprint=name)
    reached = advance(order, start, taken)
    assert (reached.epoch, reached.samples) == (taken // len(order), taken % len(order) * order.global_batch)
    again = resume(reached.to_state(), order, name)
    assert (again.epoch, again.samples) == (reached.epoch, reached.samples)


@given(orders())
def test_without_padding_the_rests_of_buckets_are_left_out(order):
    whole = int((order.count_B // order.global_batch).sum())
    settings = {
        "num_samples": order.num_samples,
        "global_batch": order.global_batch,
        "seed": order.seed,
        "drop_last": True,
        "bucket_N": order.bucket_N,
        "num_buckets": 4,
    }
    if not whole:
        with pytest.raises(OptionError, match="batch_size times world_size must be at most"):
            BucketOrder(**settings)
        return
    dropped = BucketOrder(**settings)
    assert len(dropped) == whole
    batches = epoch_of(dropped, 0)
    assert all(all(valids) for _, valids in batches)
    shown = [place for places, _ in batches for place in places]
    assert len(set(shown)) == len(shown) == whole * order.global_batch


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"seed": 1}, True),
        ({"global_batch": 4}, False),
        ({"bucket_N": np.array([0, 0, 1, 1, 0, 1, 1, 1])}, False),
        ({"drop_last": True}, False),
    ],
)
def test_what_a_state_must_agree_on(change, same):
    settings = {"num_samples": 8, "global_batch": 2, "bucket_N": np.array([0, 1] * 4), "num_buckets": 2}
    one, other = BucketOrder(**settings), BucketOrder(**{**settings, **change})
    assert (fingerprint("data", one) == fingerprint("data", other)) is same


def test_another_global_batch_is_refused_with_the_reason():
    settings = {"num_samples": 8, "bucket_N": np.array([0, 1] * 4), "num_buckets": 2}
    one, other = BucketOrder(global_batch=2, **settings), BucketOrder(global_batch=4, **settings)
    state = Progress(seed=0, epoch=0, samples=2, fingerprint=fingerprint("data", one)).to_state()
    with pytest.raises(OptionError, match=r"other global batches than 4 \(batch_size times ranks\)"):
        resume(state, other, fingerprint("data", other))


def test_batches_come_when_their_last_sample_does():
    order = BucketOrder(
        num_samples=9,
        global_batch=2,
        shuffle="none",
        bucket_N=np.array([0, 1, 1, 0, 2, 1, 0, 1, 0]),
        num_buckets=3,
    )
    assert epoch_of(order, 0) == [
        ([1, 2], [True, True]),
        ([0, 3], [True, True]),
        ([5, 7], [True, True]),
        ([6, 8], [True, True]),
        ([4, 4], [True, False]),
    ]
