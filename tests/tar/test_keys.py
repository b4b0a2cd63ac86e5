"""Keys: what every reader of tars takes, from any file name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.tar.keys import MAX_KEY_CHARS, clean_key, duplicate_positions, is_clean_key, numbered_key

ANY_NAME = st.text(st.characters(), max_size=200) | st.text("ab_/.- é", max_size=120)
"""Also surrogates, as file names that are not UTF-8 have them."""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("n01440764/n01440764_10026", "n01440764/n01440764_10026"),
        ("a.b c", "a_b_c"),
        ("Crème brûlée", "Creme_brulee"),
        ("/a//b/", "a/b"),
        ("x/__key__", "x/key"),
        ("____", "x"),
        ("a/../b", "a/_/b"),
    ],
)
def test_usual_names_stay_readable(raw: str, expected: str) -> None:
    assert clean_key(raw) == expected


@given(ANY_NAME)
def test_every_cleaned_key_is_clean(raw: str) -> None:
    key = clean_key(raw)
    assert re.fullmatch(r"[A-Za-z0-9_/-]+", key)
    assert len(key) <= MAX_KEY_CHARS
    assert not key.startswith("/")
    assert not key.endswith("/")
    assert "//" not in key
    assert not re.fullmatch(r"__.*__", key.rpartition("/")[2])
    assert is_clean_key(key)


@given(ANY_NAME)
def test_cleaning_twice_is_cleaning_once(raw: str) -> None:
    assert clean_key(clean_key(raw)) == clean_key(raw) == clean_key(str(raw))


@given(st.from_regex(r"[A-Za-z0-9_-]{1,20}(/[A-Za-z0-9-]{1,20}){0,2}", fullmatch=True))
def test_a_clean_key_is_left_alone(key: str) -> None:
    assert not is_clean_key(key) or clean_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "a.b", "a b", "é", "/a", "a/", "a//b", "a\n", "__a__", "x/__a__", "a" * (MAX_KEY_CHARS + 1)]
)
def test_what_readers_trip_over_is_not_clean(key: str) -> None:
    assert not is_clean_key(key)


@given(st.text("ab", min_size=MAX_KEY_CHARS, max_size=MAX_KEY_CHARS), st.text("cd"), st.text("cd"))
def test_long_names_that_start_alike_stay_apart(start: str, one: str, other: str) -> None:
    assert (clean_key(start + one) == clean_key(start + other)) == (one == other)


@pytest.mark.parametrize(("one", "other"), [("猫", "犬"), ("猫/1", "犬/1"), ("\udce9", "\udcea")])
def test_names_without_ascii_letters_stay_apart(one: str, other: str) -> None:
    assert clean_key(one) != clean_key(other)


@given(st.lists(st.sampled_from(["a", "b", "c", "d/e", "é"]), max_size=40))
def test_duplicates_are_those_that_stood_before(keys: list[str]) -> None:
    assert duplicate_positions(keys) == [place for place, key in enumerate(keys) if key in keys[:place]]


@given(st.text("ab/", min_size=1, max_size=MAX_KEY_CHARS).map(clean_key), st.integers(1, 10**9))
def test_numbered_keys_are_clean(key: str, number: int) -> None:
    assert is_clean_key(numbered_key(key, number))
    assert numbered_key(key, number).endswith(f"-{number}")
