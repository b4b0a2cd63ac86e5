"""Values of a column, a comparison -> which rows meet it; of fields of the samples, by their types."""

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.dataset.columns import Columns
from imgdata.dataset.dataset import reopen
from imgdata.dataset.fields import type_text
from imgdata.errors import OptionError
from imgdata.views.text import Condition
from imgdata.views.view import View

COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_TRUTHS = {"true": "1", "false": "0"}
_FIELD_TEXTS = ("text", "list of texts")


def field_meets(view: View, condition: Condition, others: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows of a view meet a condition on a field of the samples; `others` are columns that are no fields.

    Raises `OptionError`, `ShardError`.
    """
    name, operation, values = condition
    columns = reopen(view.folder)[view.split].columns
    field = columns.field(name)
    if field is None:
        fields = [one for one in columns.names if columns.field(one) is not None]
        known = ", ".join((*others, *fields))
        raise OptionError(f"where: a column must be one of {known}, got {name!r}")
    kind = type_text(field)
    if kind in _FIELD_TEXTS:
        return _texts_meet(columns, view, condition, is_list=kind != "text")
    if kind == "truth":
        condition = Condition(name, operation, tuple(_TRUTHS.get(value.lower(), value) for value in values))
    if kind not in ("truth", "number", "whole number"):
        raise OptionError(f"where: a field must be numbers, truths, texts or lists of texts, got {name!r}: {kind}")
    return numbers_meet(np.asarray(columns.values(name, view.position_N)), condition, ("fields that are texts",))


def _texts_meet(columns: Columns, view: View, condition: Condition, *, is_list: bool) -> NDArray[np.bool_]:
    name, operation, values = condition
    if operation in COMPARE and operation not in ("==", "!="):
        raise OptionError(f"where: {name} must be compared by ==, !=, in or like, got {str(condition)!r}")
    found = columns.values(name, view.position_N)
    if is_list:
        length_N = np.array([len(one) for one in found], np.int64)
        flat_N = text_meets(pa.array([text for one in found for text in one], pa.string()), operation, values)
        row_N = np.repeat(np.arange(len(found)), length_N)
        met_N = np.bincount(row_N[flat_N], minlength=len(found)) > 0
    else:
        met_N = text_meets(pa.array(found, pa.string()), operation, values)
    return ~met_N if operation in ("!=", "not in", "not like") else met_N


def text_meets(texts: "pa.Array | pa.ChunkedArray", operation: str, values: Sequence[str]) -> NDArray[np.bool_]:
    """Return which texts are one of `values`, or match one where `operation` is `like`; `not` is left out."""
    if operation.endswith("like"):
        matches = [re.compile(fnmatch.translate(value)).match for value in values]
        found = (any(match(text) is not None for match in matches) for text in texts.to_pylist())
        return np.fromiter(found, bool, len(texts))
    met_N: NDArray[np.bool_] = np.asarray(pc.is_in(texts, value_set=pa.array(values, texts.type)), bool)
    return met_N


def numbers_meet(value_N: NDArray[Any], condition: Condition, with_like: Sequence[str]) -> NDArray[np.bool_]:
    """Return which numbers meet a condition. Raises `OptionError`; `with_like` is what `like` is for."""
    column, operation, texts = condition
    if operation.endswith("like"):
        raise OptionError(f"where: like must be used with {' or '.join(with_like)}, got {str(condition)!r}")
    numbers: list[float] = []
    for text in texts:
        try:
            numbers.append(int(text) if re.fullmatch(r"-?\d+", text) else float(text))
        except ValueError:
            raise OptionError(f"where: {column} must be compared with a number, got {text!r}") from None
    if operation in COMPARE:
        met_N: NDArray[np.bool_] = COMPARE[operation](value_N, numbers[0])
        return met_N
    return np.isin(value_N, numbers, invert=operation == "not in")
