"""Pickle bytes -> containers, text, numbers and NumPy arrays; nothing that a pickle names is ever run.

A pickle is a program, and one from the network may be hostile. The few globals that a pickled array needs are
replaced by stand-ins of this module, which build plain arrays of numbers after checking every argument; any other
global is refused. So neither NumPy's own (memory-unsafe) state setters nor any other callable is reached.
"""

import io
import pickle
import re
import struct
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import SourceError

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")
_ORDERS = ("|", "<", ">", "=")
_MAX_DEPTH = 20
_SHORT = 64
"""Bytes of a text that may be used any number of times, such as the name of an encoding."""

# What damaged bytes raise in the unpickler; it has no exception of its own for most of them.
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class _RefusedError(Exception):
    """A global that is not admitted."""


def load_arrays(data: bytes, where: str) -> Any:
    """Return the object pickled in `data`, by Python 2 or 3, in any protocol; byte strings of Python 2 stay `bytes`.

    `where` names the file in messages. Raises `SourceError` for a pickle that asks for anything but containers,
    text, numbers and numeric arrays, and for one that is damaged.
    """
    try:
        return _resolved(_Unpickler(data).load(), _MAX_DEPTH, {})
    except _RefusedError as refused:
        raise SourceError(
            f"{where}: refused: the pickle asks for {refused}, and only NumPy arrays of numbers are admitted; "
            "don't load this file with other tools, it may run code"
        ) from None
    except _DAMAGE as error:
        raise SourceError(f"{where}: damaged or cut short: not a readable pickle ({error}); get it again") from error


# Stand-ins. Their empty `__slots__` matter: a pickle may try to set attributes on whatever it holds.


class _NdarrayName:
    """`numpy.ndarray`, which pickles only pass on to `_reconstruct`."""

    __slots__ = ()


class _Dtype:
    """`numpy.dtype(code, align, copy)`, then its state `(version, byte order, ...)`."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, align: object = False, copy: object = False) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if text[:1] in _ORDERS:
            self.order, text = text[0], text[1:]
        else:
            self.order = "="
        if not _NUMBERS.fullmatch(text):
            raise _RefusedError(f"an array of dtype {text!r}")
        self.code = text

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in _ORDERS:
            raise ValueError(f"byte order {order!r}")
        self.order = order

    def array(self, data: Any, shape: Any, order: str) -> NDArray[Any]:
        """Return an array over `data`, which must have just the bytes that `shape` needs."""
        # Without an encoding for byte strings, Python 3 wrote them as Latin-1 text.
        raw = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(raw, bytes | bytearray | memoryview):
            raise TypeError(f"array data must be bytes, got {type(raw).__name__}")
        flat = np.frombuffer(raw, np.dtype(self.order + self.code))
        sizes = [int(size) for size in shape]
        if min(sizes, default=1) < 0:
            raise ValueError(f"shape {sizes}")
        return flat.reshape(sizes, order="F" if order == "F" else "C")


class _Array:
    """An array that `_reconstruct` made empty and the pickle fills by its state."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        self.value = _checked(dtype).array(data, shape, "F" if fortran else "C")


class _DtypeName:
    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Dtype:
        return _Dtype(*arguments)


class _Reconstruct:
    __slots__ = ()

    def __call__(self, kind: object, shape: object, code: object) -> _Array:
        if not isinstance(kind, _NdarrayName):
            raise _RefusedError("an array of another class than numpy.ndarray")
        return _Array()


class _FromBuffer:
    """`_frombuffer` of NumPy, by which protocol 5 writes a contiguous array."""

    __slots__ = ()

    def __call__(self, data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
        return _checked(dtype).array(data, shape, order)


class _Scalar:
    __slots__ = ()

    def __call__(self, dtype: Any, data: Any) -> int | float | bool:
        number: int | float | bool = _checked(dtype).array(data, (1,), "C")[0].item()
        return number


class _EncodeLatin1:
    """`_codecs.encode`, by which Python 3 writes bytes for Python 2. Other codecs could unpack to any size."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise _RefusedError(f"_codecs.encode with {encoding!r}")
        return text.encode("latin-1")


class _Bytes:
    """`bytes()` and `bytearray()` as pickles call them: empty, or over bytes (never over a length)."""

    __slots__ = ()

    def __call__(self, *data: Any) -> bytes:
        if not all(isinstance(part, bytes) for part in data):
            raise TypeError("bytes over something else")
        return b"".join(data)


_ADMITTED: dict[str, type] = {
    "_codecs.encode": _EncodeLatin1,
    "__builtin__.bytes": _Bytes,
    "__builtin__.bytearray": _Bytes,
    "builtins.bytearray": _Bytes,
    "builtins.bytes": _Bytes,
    "numpy.dtype": _DtypeName,
    "numpy.ndarray": _NdarrayName,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _Reconstruct),
            ("multiarray.scalar", _Scalar),
            ("numeric._frombuffer", _FromBuffer),
        )
    },
}


# The unpickler in Python, not the one in C, where a damaged memo number of four bytes allocates 32 GiB.
class _Unpickler(pickle._Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.size = len(data)
        # Bytes that calls may still pass: each call copies them, and a memo can name the same megabyte many times. The
        # first protocols take three calls to bring bytes into an array.
        self.bytes_left = 8 * len(data)

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _ADMITTED.get(f"{module}.{name}")
        if stand_in is None:
            raise _RefusedError(f"{module}.{name}")
        return stand_in()

    def get_extension(self, code: int) -> None:
        # The registry of extensions caches classes past `find_class`.
        raise _RefusedError(f"extension {code}")


def _load_bytearray8(unpickler: Any) -> None:
    # `pickle` makes an array of the stated length, up to the whole memory, before it reads.
    length = int.from_bytes(unpickler.read(8), "little")
    if length > unpickler.size:
        raise ValueError(f"a byte array of {length:,} bytes")
    unpickler.append(bytearray(unpickler.read(length)))


def _load_call(unpickler: Any, code: int) -> None:
    values = unpickler.stack[-1]
    for value in values if isinstance(values, tuple) else ():
        size = len(value) if isinstance(value, str | bytes | bytearray) else 0
        unpickler.bytes_left -= size if size > _SHORT else 0
    if unpickler.bytes_left < 0:
        raise ValueError("the same bytes are used over and over")
    pickle._Unpickler.dispatch[code](unpickler)


_Unpickler.dispatch = {
    **pickle._Unpickler.dispatch,
    pickle.BYTEARRAY8[0]: _load_bytearray8,
    **{code[0]: partial(_load_call, code=code[0]) for code in (pickle.REDUCE, pickle.BUILD)},
}


def _checked(dtype: object) -> _Dtype:
    if not isinstance(dtype, _Dtype):
        raise TypeError(f"dtype must be numpy.dtype, got {type(dtype).__name__}")
    return dtype


def _resolved(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    """Return `value` with the stand-ins inside replaced by their arrays.

    `seen` maps the identity of each value to its result: a list that repeats one list many times is small as a
    pickle, and must stay small here.
    """
    if value is None or isinstance(value, str | bytes | bytearray | int | float | np.ndarray):
        return value
    if id(value) in seen:
        return seen[id(value)]
    if not depth:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    result: Any
    if isinstance(value, dict):
        pairs = value.items()
        result = {_resolved(key, depth - 1, seen): _resolved(item, depth - 1, seen) for key, item in pairs}
    elif isinstance(value, list | tuple):
        result = type(value)([_resolved(item, depth - 1, seen) for item in value])
    elif isinstance(value, _Array) and value.value is not None:
        result = value.value
    else:
        raise ValueError(f"{type(value).__name__.strip('_')} among the values")
    seen[id(value)] = result
    return result
