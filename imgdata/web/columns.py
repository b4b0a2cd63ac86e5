"""The `json` members of samples -> columns of numbers or words to filter and sort by, read once when asked for."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.web.later import Progress
from imgdata.web.query import Column
from imgdata.web.rows import Rows

START = "json."
"""First part of a column's name."""
MOST_WORDS = 500
"""Different words of a column at most; a field with more, such as a caption, can be read, and not filtered by."""
MOST_FIELDS = 40
_STEP = 500


class _Field:
    """Values of one field; codes of words are made as they come."""

    def __init__(self, total: int) -> None:
        self.number_M: NDArray[np.float64] | None = np.full(total, np.nan)
        self.code_M: NDArray[np.int32] | None = np.full(total, -1, np.int32)
        self.words: dict[str, int] = {}

    def put(self, number: int, value: object) -> None:
        if self.number_M is not None:
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                self.number_M[number] = value
            else:
                self.number_M = None
        if self.code_M is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            self.code_M[number] = self.words.setdefault(text, len(self.words))
            if len(self.words) > MOST_WORDS:
                self.code_M, self.words = None, {}

    def column(self) -> Column | None:
        if self.number_M is not None:
            return Column(self.number_M)
        return None if self.code_M is None else Column(self.code_M, tuple(self.words))


def json_columns(rows: Rows, progress: Progress) -> Mapping[str, Column]:
    """Return a column for each field of the `json` members that holds numbers, truths or words; by `json.NAME`.

    Raises `ShardError`.
    """
    total = len(rows)
    found: dict[str, _Field] = {}
    number = 0
    for split in rows.splits:
        if not split.index.has_fields:
            number += len(split)
            continue
        for position in range(len(split)):
            for name, value in split.metadata(position).items():
                if name not in found and len(found) < MOST_FIELDS:
                    found[name] = _Field(total)
                if name in found:
                    found[name].put(number, value)
            number += 1
            if number % _STEP == 0:
                progress(number, total)
    columns = {START + name: field.column() for name, field in sorted(found.items())}
    return {name: column for name, column in columns.items() if column is not None}


def described(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Return what a page asks for: the names, the words or the least and the largest number."""
    made: list[dict[str, Any]] = []
    for name, column in columns.items():
        if column.words:
            made.append({"name": name, "words": sorted(column.words)})
            continue
        known = column.value_M[np.isfinite(column.value_M)]
        if len(known):
            made.append({"name": name, "least": float(known.min()), "most": float(known.max())})
    return made
