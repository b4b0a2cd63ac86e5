"""Random numbers are Philox 4x64-10's, and those of a position are the same in any batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata import native
from imgdata.augment.philox import philox4x64, raw, raw_of_one, uniform, uniform_blocks

WORDS = st.integers(0, 2**64 - 1)
NATURAL = st.integers(0, 2**63 - 1)


# The known answers of Random123, its authors' library, for ten rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
        ),
        (
            (2**64 - 1,) * 4,
            (2**64 - 1,) * 2,
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
        (
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
        ),
    ],
)
def test_known_answers(counter, key, expected):
    assert tuple(philox4x64(np.array(counter, np.uint64)[:, None], key)[:, 0].tolist()) == expected


@given(counter=st.tuples(st.integers(0, 2**64 - 2), WORDS, WORDS, WORDS), key=st.tuples(WORDS, WORDS))
def test_numpys_philox_gives_the_same_for_the_next_counter(counter, key):
    # NumPy raises the counter before it makes a block.
    theirs = np.random.Philox(counter=np.array(counter, np.uint64), key=np.array(key, np.uint64)).random_raw(4)
    ours = philox4x64(np.array([counter[0] + 1, *counter[1:]], np.uint64)[:, None], key)[:, 0]
    assert ours.tolist() == theirs.tolist()


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
@given(counters=st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), max_size=5), key=st.tuples(WORDS, WORDS))
def test_the_compiled_module_gives_the_same(counters, key):
    counter_K4 = np.array(counters, np.uint64).reshape(-1, 4)
    expected_4K = philox4x64(counter_K4.T, key)
    native.philox4x64(counter_K4, key)
    assert counter_K4.tolist() == expected_4K.T.tolist()


def test_numbers_need_no_compiled_module(monkeypatch):
    arguments = (2**63 - 1, 3, np.array([2**62, 0, 7]), [(4, 0), (0, 5), (28, 2)])
    expected = uniform_blocks(*arguments)
    monkeypatch.setattr(native, "AVAILABLE", False)
    assert uniform_blocks(*arguments).tolist() == expected.tolist()


@given(seed=NATURAL, epoch=NATURAL, position=NATURAL, stream=st.integers(0, 9), draws=st.integers(1, 40))
def test_a_stream_is_numpys_with_the_position_in_the_counter(seed, epoch, position, stream, draws):
    theirs = np.random.Philox(counter=[0, stream, position, 1], key=[seed, epoch]).random_raw(draws)
    ours = raw(seed, epoch, np.array([position]), stream, draws + 4, first=0)[0, 4:]
    assert ours.tolist() == theirs.tolist()


@given(seed=NATURAL, epoch=NATURAL, position=NATURAL, stream=st.integers(0, 9), draws=st.integers(1, 40))
def test_one_position_has_the_same_numbers_by_itself(seed, epoch, position, stream, draws):
    expected = raw(seed, epoch, np.array([position]), stream, draws)[0]
    assert raw_of_one(seed, epoch, position, stream, draws).tolist() == expected.tolist()


@given(first=st.integers(0, 30), draws=st.integers(0, 30))
def test_draws_can_start_anywhere_in_a_stream(first, draws):
    position_N = np.array([5, 0, 7])
    from_start = raw(1, 2, position_N, 3, first + draws)
    assert np.array_equal(raw(1, 2, position_N, 3, draws, first=first), from_start[:, first:])


@given(positions=st.lists(NATURAL, min_size=1, max_size=40), pick=st.data())
def test_a_position_has_the_same_numbers_in_any_batch(positions, pick):
    whole = uniform(7, 3, np.array(positions), 2, 9)
    row = pick.draw(st.integers(0, len(positions) - 1))
    assert np.array_equal(whole[row], uniform(7, 3, np.array(positions[row : row + 1]), 2, 9)[0])


@pytest.mark.parametrize("changed", [{"seed": 2}, {"epoch": 5}, {"position_N": np.array([8])}, {"stream": 1}])
def test_each_argument_changes_every_number(changed):
    arguments = {"seed": 1, "epoch": 4, "position_N": np.array([9]), "stream": 0, "draws": 64}
    assert not np.any(raw(**arguments) == raw(**{**arguments, **changed}))


def test_blocks_are_the_streams_four_at_a_time():
    position_N = np.arange(6)
    block_SN4 = uniform_blocks(1, 2, position_N, [(4, 1), (0, 0)])
    assert np.array_equal(block_SN4[0], uniform(1, 2, position_N, 4, 4, first=4))
    assert np.array_equal(block_SN4[1], uniform(1, 2, position_N, 0, 4))


def test_no_positions_and_no_draws_give_empty_arrays():
    assert raw(0, 0, np.zeros(0, np.int64), 0, 5).shape == (0, 5)
    assert raw(0, 0, np.arange(3), 0, 0).shape == (3, 0)


def test_numbers_are_below_one_and_multiples_of_two_to_the_minus_53():
    word_ND = raw(3, 1, np.arange(2000), 0, 8)
    unit_ND = uniform(3, 1, np.arange(2000), 0, 8)
    assert unit_ND.min() >= 0
    assert unit_ND.max() < 1
    assert np.array_equal((unit_ND * 2.0**53).astype(np.uint64), word_ND >> np.uint64(11))
