"""The restricted unpickler: arrays are loaded unchanged, and nothing else is run."""

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.raw_cifar import Python2Pickler
from imgdata.errors import SourceError
from imgdata.sources.cifar.pickles import load_arrays

VALID = pickle.dumps({"data": np.arange(24, dtype=np.uint8).reshape(4, 6), "labels": [1, 2, 3, 4]}, protocol=2)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
        np.arange(5, dtype=">i4"),
        np.linspace(0, 1, 7, dtype=np.float32),
        np.array([True, False]),
        np.array(3.5),
        np.empty((0, 3072), np.uint8),
    ],
    ids=lambda array: f"{array.dtype.str}-{array.shape}",
)
def test_arrays_come_back_equal_in_every_protocol(array: np.ndarray, protocol: int) -> None:
    back = load_arrays(pickle.dumps({"a": array}, protocol=protocol), "f")["a"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [{"a": [1, -2, 2**40], "b": (None, True, 1.5)}, b"raw \xff bytes", "text \u00e9", [np.int64(7), np.float32(0.5)]],
)
def test_plain_values_come_back_equal_in_every_protocol(value: object, protocol: int) -> None:
    assert load_arrays(pickle.dumps(value, protocol=protocol), "f") == value


def test_python_2_pickles_give_bytes_and_arrays() -> None:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump({"data": np.arange(6, dtype=np.uint8), "filenames": ["a.png", "x" * 300]})
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in file.getvalue()
    content = load_arrays(file.getvalue(), "f")
    assert content[b"filenames"] == [b"a.png", b"x" * 300]
    np.testing.assert_array_equal(content[b"data"], np.arange(6))


class _Calls:
    """Object whose pickle is a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (subprocess.check_call, (["touch", "{}"],)),
        (eval, ("open('{}', 'w').close()",)),
        (exec, ("open('{}', 'w').close()",)),
        (os.mkdir, ("{}",)),
        (np.save, ("{}", 1)),
        (np.memmap, ("{}", "uint8", "w+", 0, 10)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_malicious_pickle_is_refused_and_does_nothing(
    tmp_path: Path, function: Any, arguments: tuple[Any, ...], protocol: int
) -> None:
    target = tmp_path / "touched"
    filled = [
        [part.format(target) for part in argument]
        if isinstance(argument, list)
        else argument.format(target)
        if isinstance(argument, str)
        else argument
        for argument in arguments
    ]
    data = pickle.dumps({"data": _Calls(function, *filled)}, protocol=protocol)
    with pytest.raises(SourceError, match=r"data_batch_1: refused: the pickle asks for .*only NumPy arrays"):
        load_arrays(data, "data_batch_1")
    assert not list(tmp_path.iterdir())
    # The pickle does run its call in the ordinary unpickler.
    pickle.loads(data)
    assert target.exists() or target.with_suffix(".npy").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"an": "object"}], dtype=object),
        np.zeros(2, [("a", "i4")]),
        np.array(["text"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.ma.masked_array([1, 2], [True, False]),
        OrderedDict(a=1),
        {1, 2},
        slice(1, 2),
        Path("x"),
        1 + 2j,
        len,
        np.random.default_rng,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_anything_but_numbers_and_containers_is_refused(value: object, protocol: int) -> None:
    with pytest.raises(SourceError, match=r"^f: "):
        load_arrays(pickle.dumps(value, protocol=protocol), "f")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "_codecs.encode with 'hex'"),
        (b"\x82\x01.", "extension 1"),
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"Pid\n.", "damaged"),
        (b"cnumpy\ndtype\n.", "damaged"),
        (b"cnumpy\nndarray\n}S'x'\nI1\nsb.", "damaged"),
        (b"cnumpy.core.multiarray\n_reconstruct\nN}S'call'\nI1\ns\x86b.", "damaged"),
        (b"c__builtin__\nbytearray\nI100000000000\n\x85R.", "damaged"),
        (b"]p0\ng0\na.", "damaged"),
        (b"", "damaged"),
        (b"\x80\x63.", "damaged"),
        (b"<html>Not found</html>", "damaged"),
    ],
)
def test_crafted_and_damaged_pickles_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_arrays(data, "f")


def test_a_small_pickle_that_unfolds_without_end_stays_small() -> None:
    value: list[object] = [1]
    for _ in range(15):
        value = [value] * 50
    assert load_arrays(pickle.dumps(value), "f")[0] is not None


def test_array_data_must_fit_the_shape() -> None:
    data = VALID.replace(b"K\x04K\x06\x86", b"K\x04K\x07\x86")
    assert data != VALID
    with pytest.raises(SourceError, match="damaged"):
        load_arrays(data, "f")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_a_source_error_or_a_value(data: st.DataObject) -> None:
    # Asserts nothing: any other exception fails the test.
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(VALID) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(VALID)))
    for content in (bytes(damaged), VALID[:cut], bytes(damaged[:cut])):
        # Whatever else is raised fails this test.
        with suppress(SourceError):
            load_arrays(content, "f")


def test_loading_imports_nothing_that_the_pickle_names() -> None:
    sys.modules.pop("antigravity", None)
    with pytest.raises(SourceError, match=r"antigravity\.geohash"):
        load_arrays(b"cantigravity\ngeohash\n.", "f")
    assert "antigravity" not in sys.modules
