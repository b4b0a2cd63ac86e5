"""Bytes of a message of Protocol Buffers -> its fields, without its schema."""

from collections.abc import Iterator

Span = tuple[int, int]
"""First byte and end of a field's value; of a varint its value and 0."""


def fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, Span]]:
    """Yield number, wire type and place of each field of a message; of a varint the value stands for the place.

    Raises `ValueError` for what is no message.
    """
    if start < 0:
        raise ValueError("a number in place of a message")
    while start < end:
        tag, start = _varint(view, start, end)
        wire = tag & 7
        if wire == 0:
            value, start = _varint(view, start, end)
            yield tag >> 3, wire, (_signed(value), 0)
            continue
        if wire == 2:
            length, start = _varint(view, start, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"field of type {wire}")
        if start + length > end:
            raise ValueError("a field ends outside of its message")
        yield tag >> 3, wire, (start, start + length)
        start += length


def varints(view: memoryview, start: int, end: int) -> Iterator[int]:
    """Yield the whole numbers that lie one behind the other, with their signs. Raises `ValueError`."""
    while start < end:
        value, start = _varint(view, start, end)
        yield _signed(value)


def _varint(view: memoryview, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70 and start < end:
        byte = view[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
    raise ValueError("a number without an end")


def _signed(value: int) -> int:
    return (value & (2**64 - 1)) - 2**64 if value >> 63 & 1 else value
