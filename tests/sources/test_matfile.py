"""The small MATLAB reader against SciPy's writer."""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from imgdata.errors import SourceError
from imgdata.sources.imagenet.matfile import load_mat


def saved(compressed: bool = True, **variables: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def struct_array(*words: str) -> np.ndarray:
    array = np.zeros((len(words), 1), [("id", object), ("WNID", object), ("children", object)])
    for row, word in enumerate(words):
        array[row, 0] = (float(row + 1), word, np.arange(row, dtype=float).reshape(1, -1))
    return array


def compressed(data: bytes, cut: int = 0) -> bytes:
    """Return a compressed element, its stream `cut` bytes short."""
    stream = zlib.compress(data)
    stream = stream[: len(stream) - cut]
    return struct.pack("<II", 15, len(stream)) + stream


VALID = saved(synsets=struct_array("n01440764", "n01443537"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
def test_numbers_of_every_type_become_float64(dtype: str, compressed: bool) -> None:
    value = load_mat(saved(compressed, x=np.array([[1, 2, 100]], dtype)), "f")["x"]
    assert value.dtype == np.float64
    np.testing.assert_array_equal(value, [1, 2, 100])


@pytest.mark.parametrize("compressed", [False, True])
@settings(max_examples=50, deadline=None)
@given(
    words=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), min_size=1), min_size=1, max_size=5)
)
def test_struct_arrays_become_dictionaries_with_their_text(compressed: bool, words: list[str]) -> None:
    synsets = load_mat(saved(compressed, synsets=struct_array(*words)), "f")["synsets"]
    assert [synset["WNID"] for synset in synsets] == words
    assert [synset["id"].tolist() for synset in synsets] == [[row + 1.0] for row in range(len(words))]
    assert [len(synset["children"]) for synset in synsets] == list(range(len(words)))


def test_cells_and_several_variables_are_read() -> None:
    cell = np.empty((1, 3), object)
    cell[0] = ["text", 3.0, np.array([1.0, 2.0])]
    content = load_mat(saved(c=cell, empty="", s={"a": 1.0}), "f")
    assert content["c"][0] == "text"
    assert content["c"][2].tolist() == [1.0, 2.0]
    assert content["empty"] == ""
    assert content["s"][0]["a"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no MATLAB 5 header"),
        (b"<html>" * 50, "no MATLAB 5 header"),
        (VALID[:-20], r"element of \d+ bytes, \d+ are left"),
        (VALID[:140], "element of"),
        (VALID[:136] + bytes(len(VALID) - 136), "while decompressing"),
        (VALID[:128] + compressed(VALID[128:]), "element of type 15 where a matrix must be"),
        (VALID[:128] + compressed(VALID[128:])[:-9] + bytes(9), "while decompressing"),
        (VALID[:128] + compressed(VALID[128:], cut=4), "compressed data cut short"),
        (saved(x=np.array([1 + 2j])), "not supported"),
    ],
)
def test_what_is_no_readable_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=rf"^meta\.mat: not a readable MATLAB 5 file .*({message})"):
        load_mat(data, "meta.mat")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_a_source_error_or_a_value(data: st.DataObject) -> None:
    # Asserts nothing: any other exception fails the test.
    damaged = bytearray(saved(False, synsets=struct_array("n01440764", "n01443537")))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    # Whatever else is raised fails this test.
    with suppress(SourceError):
        load_mat(bytes(damaged), "f")
