"""The search for near hashes finds what comparing each with each finds, in bounded memory and time."""

import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgdata import native
from imgdata.auditing import near
from imgdata.auditing.hashes import coarse_hashes, distance
from imgdata.auditing.near import RADIUS, find_pairs

SYMMETRIC = (True, False)


@pytest.fixture(params=["compiled", "not compiled"])
def way(request, monkeypatch):
    """The compiled module where there is one, and without it."""
    if request.param == "not compiled":
        monkeypatch.setattr(native, "AVAILABLE", False)
    elif not native.AVAILABLE:
        pytest.skip("the extension was not built")


@pytest.fixture
def indexed(monkeypatch):
    """Few hashes are searched as many are."""
    monkeypatch.setattr(near, "_FEW", 0)


def flipped(hash_4, bits, generator):
    """Return the hash with so many of its bits flipped."""
    bit_256 = np.unpackbits(hash_4.view(np.uint8))
    bit_256[generator.permutation(256)[:bits]] ^= 1
    return np.packbits(bit_256).view(np.uint64)


def made_up(count, near_ones, seed, constant_chunks=0):
    """Return hashes `(count, 2, 4)`, of which some are 0 to 45 bits away from whole ones of others."""
    generator = np.random.default_rng(seed)
    hash_CQ4 = generator.integers(0, 2**64, (count, 2, 4), dtype=np.uint64)
    hash_CQ4.view(np.uint16)[:, :, :constant_chunks] = 0x5A5A
    for owner in generator.integers(0, count, near_ones):
        bits = int(generator.integers(0, 46))
        hash_CQ4[owner, generator.integers(2)] = flipped(hash_CQ4[generator.integers(count), 0], bits, generator)
    return hash_CQ4


def by_comparing_all(hash_CQ4, most):
    found = set()
    for owner in range(len(hash_CQ4)):
        for query, symmetric in enumerate(SYMMETRIC):
            distance_C = distance(hash_CQ4[owner, query], hash_CQ4[:, 0])
            targets = [int(target) for target in np.flatnonzero(distance_C <= RADIUS) if target != owner]
            targets = [target for target in targets if target < owner or not symmetric]
            found |= {(owner, query, target, int(distance_C[target])) for target in targets[:most]}
    return found


def searched(hash_CQ4, most=near.MOST, **options):
    found = []
    for part in find_pairs(hash_CQ4, np.arange(len(hash_CQ4)), symmetric=SYMMETRIC, most=most, **options):
        columns = (part.owner_P, part.query_P, part.target_P, part.distance_P)
        found += zip(*(column.tolist() for column in columns), strict=True)
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.usefixtures("way", "indexed")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 60),
    near_ones=st.integers(0, 120),
    constant_chunks=st.sampled_from([0, 1, 8, 15]),
    most=st.sampled_from([1, 3, 16]),
    seed=st.integers(0, 2**32),
)
def test_the_search_finds_what_comparing_all_finds(count, near_ones, constant_chunks, most, seed):
    hash_CQ4 = made_up(count, near_ones, seed, constant_chunks)
    assert searched(hash_CQ4, most) == by_comparing_all(hash_CQ4, most)


@pytest.mark.usefixtures("way", "indexed")
def test_hashes_within_31_bits_are_found_and_no_others():
    generator = np.random.default_rng(1)
    hash_CQ4 = made_up(1000, 0, seed=1)
    # One search for all: each has tables to build.
    bits_of = {owner: (0, 1, 30, 31, 32)[owner // 2 % 5] for owner in range(0, 1000, 2)}
    for owner, bits in bits_of.items():
        hash_CQ4[owner + 1, 0] = flipped(hash_CQ4[owner, 0], bits, generator)
    pairs = {(owner, target) for owner, query, target, _ in searched(hash_CQ4) if query == 0}
    assert pairs == {(owner + 1, owner) for owner, bits in bits_of.items() if bits <= RADIUS}
    assert RADIUS == 31


@pytest.mark.usefixtures("way", "indexed")
@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3}, {"block_rows": 64}], ids=str)
def test_threads_and_blocks_change_nothing(options):
    hash_CQ4 = made_up(400, 300, seed=5)
    assert searched(hash_CQ4, **options) == by_comparing_all(hash_CQ4, near.MOST)


@pytest.mark.usefixtures("way", "indexed")
def test_coarse_hashes_are_compared_by_their_64_bits():
    hash_CQ4 = made_up(300, 200, seed=7)
    found = searched(hash_CQ4, coarse=True)
    assert found == by_comparing_all(coarse_hashes(hash_CQ4), near.MOST)
    assert len(found) > 10
    assert {bits % 4 for *_, bits in found} == {0}


def test_some_rows_of_a_larger_array_are_searched():
    hash_MQ4 = made_up(100, 100, seed=2)
    number_C = np.arange(99, -1, -3)
    parts = find_pairs(hash_MQ4, number_C, symmetric=SYMMETRIC)
    found = {pair for part in parts for pair in zip(part.owner_P.tolist(), part.target_P.tolist(), strict=True)}
    assert found == {(owner, target) for owner, _, target, _ in by_comparing_all(hash_MQ4[number_C], near.MOST)}
    assert found


@pytest.mark.usefixtures("way")
def test_no_hashes_have_no_pairs():
    assert searched(np.zeros((0, 2, 4), np.uint64)) == set()


@pytest.mark.usefixtures("way")
def test_few_hashes_are_compared_each_with_each():
    hash_CQ4 = made_up(300, 300, seed=3)
    assert searched(hash_CQ4) == by_comparing_all(hash_CQ4, near.MOST)


def test_progress_ends_with_all_queries():
    told = []
    searched(made_up(300, 0, seed=0), block_rows=200, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (600, 600)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.skipif(not native.AVAILABLE, reason="takes minutes without the extension")
def test_many_hashes_that_are_all_near_each_other_take_neither_quadratic_memory_nor_time():
    generator = np.random.default_rng(0)
    # Ten bits of one hash take all values, as of frames of a film in which little moves: 50 million near pairs.
    hash_CQ4 = np.broadcast_to(generator.integers(0, 2**64, 4, dtype=np.uint64), (10_000, 2, 4)).copy()
    hash_CQ4[:, :, 0] ^= generator.permutation(2**14)[:10_000].astype(np.uint64)[:, None] << np.uint64(9)
    tracemalloc.start()
    found = searched_count(hash_CQ4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == sum(min(owner, near.MOST) for owner in range(10_000)) + 10_000 * near.MOST
    assert peak < 50e6


def searched_count(hash_CQ4):
    parts = find_pairs(hash_CQ4, np.arange(len(hash_CQ4)), symmetric=SYMMETRIC)
    return sum(len(part.owner_P) for part in parts)


@pytest.mark.skipif(not native.AVAILABLE, reason="NumPy holds the lock of Python")
def test_other_threads_run_meanwhile():
    hash_CQ4 = made_up(20_000, 0, seed=0)
    ticks = 0
    over = threading.Event()

    def tick():
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    searched_count(hash_CQ4)
    over.set()
    thread.join()
    assert ticks > 10


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_V": np.arange(3, dtype=np.int32)}, "lengths that agree"),
        ({"limit_R": np.zeros(1, np.int32)}, "lengths that agree"),
        ({"start_V": np.array([0, 9, *[4] * 65535], np.int32)}, "starts must ascend"),
        ({"row_P": np.array([4], np.int32)}, "rows must be those of queries"),
        ({"row_P": np.array([-1], np.int32)}, "rows must be those of queries"),
        ({"count_R": np.full(4, 9, np.int32)}, "counts at most"),
        ({"chunk": 16}, "chunk must be 0 to 15"),
        ({"bits": 17}, "bits 0 to 16"),
    ],
)
def test_the_compiled_search_refuses_arrays_that_would_lead_it_astray(change, message):
    arguments = {
        "target_T4": np.zeros((4, 4), np.uint64),
        "number_T": np.arange(4, dtype=np.int32),
        "start_V": np.array([0, *[4] * 65536], np.int32),
        "query_R4": np.zeros((4, 4), np.uint64),
        "limit_R": np.full(4, 4, np.int32),
        "found_RK": np.zeros((4, 3), np.int32),
        "distance_RK": np.zeros((4, 3), np.uint8),
        "count_R": np.zeros(4, np.int32),
        "row_P": np.arange(4, dtype=np.int32),
        "chunk": 0,
        "bits": 16,
        "radius": 31,
    }
    native.nearest(**arguments)
    arguments["count_R"][:] = 0
    with pytest.raises(ValueError, match=message):
        native.nearest(**arguments | change)
