"""One value of an operator -> `OptionError` that says which value must be what."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from imgdata.errors import OptionError


def is_integer(value: Any) -> bool:
    """Return whether `value` is an integer, of Python or NumPy; True and False are not."""
    # Most are Python's own, and an abstract class takes half a microsecond to ask.
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number, of Python or NumPy; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def integer(where: str, value: Any, low: int, high: int | None = None) -> None:
    """Check that `value` is an integer from `low` to `high`."""
    if not (is_integer(value) and low <= value and (high is None or value <= high)):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise OptionError(f"{where} must be an integer {limits}, got {value!r}")


def number(where: str, value: Any, low: float, high: float = math.inf) -> None:
    """Check that `value` is a finite number from `low` to `high`."""
    if not (is_number(value) and low <= value <= high):
        limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise OptionError(f"{where} must be a number {limits}, got {value!r}")


def above_zero(where: str, value: Any) -> None:
    """Check that `value` is a finite number above 0."""
    if not (is_number(value) and value > 0):
        raise OptionError(f"{where} must be a number above 0, got {value!r}")


def limits(where: str, value: Any, low: float, high: float = math.inf) -> None:
    """Check that `value` is two finite numbers (least, most) inside `low` to `high`."""
    good = isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))
    if not (good and low <= value[0] <= value[1] <= high):
        inside = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise OptionError(f"{where} must be two numbers (least, most) {inside}, got {value!r}")


def channels(where: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Check that `value` is one number, or one for each of three channels."""
    values = value if isinstance(value, tuple) else (value,)
    if not (len(values) in (1, 3) and all(is_number(v) and low <= v <= high for v in values)):
        inside = "" if high == math.inf else f" from {low:g} to {high:g}"
        raise OptionError(f"{where} must be a number, or three for red, green and blue,{inside} got {value!r}")


def choice(where: str, value: Any, choices: Sequence[str]) -> None:
    """Check that `value` is one of `choices`."""
    if value not in choices:
        raise OptionError(f"{where} must be {' or '.join(map(repr, choices))}, got {value!r}")
