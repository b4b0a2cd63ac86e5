"""A view, conditions on columns of its index or a list of keys -> a view of the samples that meet them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.views.conditions import COMPARE, field_meets, numbers_meet, text_meets
from imgdata.views.key_table import class_numbers, key_positions, read_keys
from imgdata.views.large import keep_rows
from imgdata.views.text import Condition, Step, parse_conditions, read_files
from imgdata.views.view import View

_NUMBERS = ("width", "height", "shorter", "longer", "size", "label", "orientation", "offset")
_WORDS = ("format", "mode", "shard")
_TEXTS = ("key", "source")


def where(view: View, conditions: str) -> View:
    """Keep the samples that meet all of `conditions`, such as `width>=64 & format==jpeg & class in cat,dog`.

    - `width`, `height`, `shorter`, `longer` (pixels as stored), `size`, `offset` (bytes), `label`, `orientation`:
      `>=` `>` `<=` `<` `==` `!=` `in` `not in`
    - `class` (id or name), `format`, `mode`, `shard`: `==` `!=` `in` `not in`
    - `key`, `source`: the same, and `like`, `not like` with `*`, `?`, `[...]`
    - fields of the samples (`split.columns`), such as `weight>0.5 & caption like *dog* & checked==true`: numbers and
      truths are compared as numbers, texts as keys are. A list meets a condition where one of its values does; a
      missing value is an empty text, or no number, which meets `!=` and `not in` alone

    `label` and `class` are those of the view. Raises `OptionError`, also for a class, format, mode or shard that there
    is none of, unless it is asked to be absent.
    """
    parsed = parse_conditions(conditions)

    def meets(part: View) -> NDArray[np.bool_]:
        kept_N = np.ones(len(part.position_N), bool)
        for condition in parsed:
            kept_N &= _meets(part, condition)
        return kept_N

    return keep_rows(view, meets, Step(name="where", values=(" & ".join(map(str, parsed)),), options={}))


def exclude(view: View, keys: Sequence[str] | Path) -> View:
    """Drop the samples with these keys, or with those in a file: one a line, or a CSV file with a column `key`.

    In a CSV file `key` is the first of several columns; the others, such as `reason`, are for people.

    Raises `OptionError` for a key that the split doesn't have: a slip would go unnoticed.
    """
    if isinstance(keys, Path):
        return exclude_step(view, *read_files([Step(name="exclude", options={"file": str(keys)})], Path()))
    return exclude_step(view, Step(name="exclude", values=tuple(keys), options={}))


def exclude_step(view: View, step: Step) -> View:
    """Apply `exclude` as a step, with the contents of its file."""
    keys = [*step.values, *read_keys(step)]
    if not keys:
        raise OptionError(f"exclude: must have keys or a file of them, got {str(step)!r}")
    excluded_K = np.sort(key_positions(view, keys, "exclude"))

    def others(part: View) -> NDArray[np.bool_]:
        first, last = np.searchsorted(excluded_K, part.position_N[[0, -1]])
        return ~np.isin(part.position_N, excluded_K[first : last + 1])

    return keep_rows(view, others, step)


def _meets(view: View, condition: Condition) -> NDArray[np.bool_]:
    column, operation, values = condition
    if column in _NUMBERS:
        return numbers_meet(_numbers(view, column), condition, _TEXTS)
    if column not in ("class", *_WORDS, *_TEXTS):
        return field_meets(view, condition, (*_NUMBERS, "class", *_WORDS, *_TEXTS))
    absent = operation in ("!=", "not in", "not like")
    if operation in COMPARE and operation not in ("==", "!="):
        raise OptionError(f"where: {column} must be compared by ==, != or in, got {str(condition)!r}")
    if operation.endswith("like") and column not in _TEXTS:
        raise OptionError(f"where: like must be used with {' or '.join(_TEXTS)}, got {str(condition)!r}")
    if column == "class":
        numbers = class_numbers(view.classes)
        codes = [numbers(value, "where") for value in values]
        if view.targets is not None and view.targets.kind != "regression":
            # Any of them; of shares, where it is not 0.
            found_N = np.asarray((view.targets.values(view.position_N)[:, codes] > 0).any(axis=1))
        else:
            found_N = np.isin(view.label_N, codes)
    elif column in _WORDS:
        words = view.index.words(column)
        unknown = [value for value in values if value not in words]
        if unknown and not absent:
            raise OptionError(f"where: {column} must be one of {', '.join(words[:8])}, got {unknown[0]!r}")
        places = [words.index(value) for value in values if value in words]
        found_N = np.isin(view.index.array(column)[view.position_N], places)
    else:
        found_N = text_meets(view.index.column_at(column, view.position_N), operation, values)
    return ~found_N if absent else found_N


def _numbers(view: View, column: str) -> NDArray[Any]:
    if column == "label":
        return view.label_N
    index = view.index
    if column in ("shorter", "longer"):
        side = np.minimum if column == "shorter" else np.maximum
        return side(index.width_N[view.position_N], index.height_N[view.position_N])
    return index.array(column)[view.position_N]
