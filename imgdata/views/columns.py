"""A view, and what its index or a table of keys says of the samples -> a view: filtered, relabelled, balanced."""

import csv
import fnmatch
import io
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_SEED
from imgdata.sample import ClassName
from imgdata.views.resampling import ClassResampling, Resampling, SampleResampling, quotas
from imgdata.views.text import Condition, Step, parse_conditions, read_files
from imgdata.views.view import View, check_not_balanced, select_rows

_NUMBERS = ("width", "height", "shorter", "longer", "size", "label", "orientation", "offset")
_WORDS = ("format", "mode", "shard")
_TEXTS = ("key", "source")
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_MAX_LENGTH = 2**40


def where(view: View, conditions: str) -> View:
    """The samples that meet all of `conditions`, such as `width>=64 & format==jpeg & class in cat,dog`.

    - `width`, `height`, `shorter`, `longer` (pixels as stored), `size`, `offset` (bytes), `label`, `orientation`:
      `>=` `>` `<=` `<` `==` `!=` `in` `not in`
    - `class` (id or name), `format`, `mode`, `shard`: `==` `!=` `in` `not in`
    - `key`, `source`: the same, and `like`, `not like` with `*`, `?`, `[...]`

    `label` and `class` are those of the view. Raises `OptionError`, also for a class, format, mode or shard that there
    is none of, unless it is asked to be absent.
    """
    parsed = parse_conditions(conditions)
    kept_N = np.ones(len(view.position_N), bool)
    for condition in parsed:
        kept_N &= _meets(view, condition)
    return select_rows(view, kept_N, Step(name="where", values=(" & ".join(map(str, parsed)),), options={}))


def exclude(view: View, keys: Sequence[str] | Path) -> View:
    """All samples but those with these keys, or with the keys in a text file, one a line.

    Raises `OptionError` for a key that the split doesn't have: a slip would go unnoticed.
    """
    if isinstance(keys, Path):
        return exclude_step(view, *read_files([Step(name="exclude", options={"file": str(keys)})], Path()))
    return exclude_step(view, Step(name="exclude", values=tuple(keys), options={}))


def exclude_step(view: View, step: Step) -> View:
    """`exclude` as a step, with the contents of its file."""
    keys = [*step.values, *(line for line in _text(step).splitlines() if line.strip())]
    if not keys:
        raise OptionError(f"exclude: must have keys or a file of them, got {str(step)!r}")
    excluded_N = _positions(view, keys, "exclude")
    return select_rows(view, ~np.isin(view.position_N, excluded_N), step)


def relabel(view: View, table: Path | Mapping[str, str], *, classes: Literal["keep", "table"] = "keep") -> View:
    """Other labels for the samples in `table`: a CSV file with columns `key` and `label`, or a mapping of the same.

    `keep`: a label is the id or name of one of the classes, or empty for none; samples that aren't in the table keep
    theirs. `table`: the labels in the table become the classes, numbers by size, words by alphabet; every sample
    of the view needs a row. Raises `OptionError`.
    """
    if isinstance(table, Path):
        step = Step(name="relabel", values=(str(table),), options={"classes": classes})
        return relabel_step(view, *read_files([step], Path()))
    data = _csv_bytes(("key", "label"), table.items())
    return relabel_step(view, Step(name="relabel", values=("labels.csv",), options={"classes": classes}, data=data))


def relabel_step(view: View, step: Step) -> View:
    """`relabel` as a step, with the contents of its file."""
    check_not_balanced(view, "relabel")
    how = step.options.get("classes", "keep")
    if how not in ("keep", "table"):
        raise OptionError(f"relabel: classes must be keep or table, got {how!r}")
    cells = _table(step, "label")
    position_R = _positions(view, list(cells), "relabel")
    row_R, known_R = _rows(view, position_R)
    classes = view.classes
    label_N = view.label_N.copy()
    if how == "table":
        words = sorted({cell for cell in cells.values() if cell}, key=_by_number_or_alphabet)
        classes = tuple(ClassName(word, word) for word in words)
        missing = len(label_N) - len(np.unique(row_R[known_R]))
        if missing:
            raise OptionError(
                f"relabel: {step.values[0]} must have a row for each sample with classes=table, {missing} of "
                f"{len(label_N)} have none; leave them out with `exclude` or `where` before"
            )
    numbers = _class_numbers(classes)
    label_R = np.array([numbers(cell, "relabel") if cell else -1 for cell in cells.values()], np.int32)
    label_N[row_R[known_R]] = label_R[known_R]
    return replace(view, classes=classes, label_N=label_N, steps=(*view.steps, step), name="")


def balance(
    view: View,
    weights: Mapping[str, float] | NDArray[np.floating] | Path | None = None,
    *,
    length: int | None = None,
    seed: int = 0,
) -> View:
    """Epochs of `length` draws (as many as there are samples by default) in which classes or samples have their weight.

    `weights` by class id or name: relative to 1, which is what classes that aren't named have; none at all balances the
    classes evenly. Each class gets its part of an epoch, rounded by largest remainders, and goes through all its
    samples before one comes again, also from epoch to epoch; samples without a label are left out. `weights` by
    sample: float `(N,)`, one for each row, or a CSV file with columns `key` and `weight`, 0 for samples it doesn't
    name. Draws are a pure function of seed and epoch. Raises `OptionError`.
    """
    options = {**({} if length is None else {"length": str(length)}), "seed": str(seed)}
    if weights is None or isinstance(weights, Mapping):
        values = tuple(f"{name}:{float(weight)!r}" for name, weight in (weights or {}).items())
        return balance_step(view, Step(name="balance", values=values, options=options))
    if isinstance(weights, Path):
        step = Step(name="balance", options={"weights": str(weights), **options})
        (step,) = read_files([step], Path())
        return balance_step(view, step)
    weight_N = np.array(weights, np.float64)
    if weight_N.shape != view.position_N.shape:
        raise OptionError(f"balance: weights must have the shape {view.position_N.shape}, got {weight_N.shape}")
    keys = view.index.column("key").take(pa.array(view.position_N)).to_pylist()
    bad_N = ~((weight_N >= 0) & (weight_N < math.inf))
    if bad_N.any():
        _weight(str(weight_N[bad_N][0]), keys[int(bad_N.argmax())])
    # So that the view can be saved.
    data = _csv_bytes(("key", "weight"), zip(keys, map(repr, weight_N.tolist()), strict=True))
    step = Step(name="balance", options={"weights": "weights.csv", **options}, data=data)
    return balance_step(view, step, weight_N)


def balance_step(view: View, step: Step, weight_N: NDArray[np.float64] | None = None) -> View:
    """`balance` as a step, with the contents of its file, which `weight_N` are where they were read already."""
    check_not_balanced(view, "balance")
    length = whole_number(step, "length", len(view.position_N))
    seed = whole_number(step, "seed", 0)
    if not 1 <= length < _MAX_LENGTH:
        raise OptionError(f"balance: length must be 1 or more, got {length}")
    if not 0 <= seed < MAX_SEED:
        raise OptionError(f"balance: seed must be 0 to 2^63-1, got {seed}")
    if step.file is not None and step.values:
        raise OptionError(f"balance: weights must be by class or in a file, got both in {str(step)!r}")
    drawn: Resampling
    if step.file is None:
        quota_C = quotas(_class_weights(view, step), length)
        drawn = ClassResampling(label_N=view.label_N, quota_C=quota_C, seed=seed)
    else:
        weight_N = _sample_weights(view, step) if weight_N is None else weight_N
        if not weight_N.any():
            raise OptionError(f"balance: a sample of the view must have a weight above 0 in {step.file}, got none")
        drawn = SampleResampling(weight_N=weight_N, length=length, seed=seed)
    return replace(view, resampling=drawn, steps=(*view.steps, step), name="")


def whole_number(step: Step, option: str, default: int) -> int:
    """The value of an option of a step. Raises `OptionError`."""
    text = step.options.get(option)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{step.name}: {option} must be a whole number, got {text!r}") from None


def _class_weights(view: View, step: Step) -> NDArray[np.float64]:
    count_C = np.bincount(view.label_N[view.label_N >= 0], minlength=len(view.classes))
    weight_C = (count_C > 0).astype(np.float64)
    numbers = _class_numbers(view.classes)
    for value in step.values:
        name, colon, text = value.rpartition(":")
        if not colon:
            raise OptionError(f"balance: a weight must be like cat:2, got {value!r}")
        label = numbers(name, "balance")
        weight = _weight(text, name)
        if weight and not count_C[label]:
            raise OptionError(f"balance: class {name!r} must have samples for its weight {text}, got none")
        weight_C[label] = weight
    if not weight_C.any():
        raise OptionError(f"balance: a class with samples must have a weight above 0, got {str(step)!r}")
    return weight_C


def _sample_weights(view: View, step: Step) -> NDArray[np.float64]:
    cells = _table(step, "weight")
    row_R, known_R = _rows(view, _positions(view, list(cells), "balance"))
    weight_R = np.array([_weight(text, key) for key, text in cells.items()])
    weight_N = np.zeros(len(view.position_N))
    weight_N[row_R[known_R]] = weight_R[known_R]
    return weight_N


def _weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise OptionError(f"balance: the weight of {name!r} must be a number from 0, got {text!r}")
    return weight


def _meets(view: View, condition: Condition) -> NDArray[np.bool_]:
    column, operation, values = condition
    if column in _NUMBERS:
        return _compare_numbers(_numbers(view, column), condition)
    if column not in ("class", *_WORDS, *_TEXTS):
        known = ", ".join((*_NUMBERS, "class", *_WORDS, *_TEXTS))
        raise OptionError(f"where: a column must be one of {known}, got {column!r}")
    absent = operation in ("!=", "not in", "not like")
    if operation in _COMPARE and operation not in ("==", "!="):
        raise OptionError(f"where: {column} must be compared by ==, != or in, got {str(condition)!r}")
    if operation.endswith("like") and column not in _TEXTS:
        raise OptionError(f"where: like must be used with {' or '.join(_TEXTS)}, got {str(condition)!r}")
    if column == "class":
        numbers = _class_numbers(view.classes)
        found_N = np.isin(view.label_N, [numbers(value, "where") for value in values])
    elif column in _WORDS:
        words = view.index.words(column)
        unknown = [value for value in values if value not in words]
        if unknown and not absent:
            raise OptionError(f"where: {column} must be one of {', '.join(words[:8])}, got {unknown[0]!r}")
        codes = [words.index(value) for value in values if value in words]
        found_N = np.isin(view.index.array(column)[view.position_N], codes)
    else:
        texts = view.index.column(column).take(pa.array(view.position_N))
        if operation.endswith("like"):
            matches = [re.compile(fnmatch.translate(value)).match for value in values]
            found = (any(match(text) is not None for match in matches) for text in texts.to_pylist())
            found_N = np.fromiter(found, bool, len(texts))
        else:
            found_N = pc.is_in(texts, value_set=pa.array(values)).to_numpy()
    return ~found_N if absent else found_N


def _numbers(view: View, column: str) -> NDArray[Any]:
    if column == "label":
        return view.label_N
    index = view.index
    if column in ("shorter", "longer"):
        side = np.minimum if column == "shorter" else np.maximum
        return side(index.width_N[view.position_N], index.height_N[view.position_N])
    return index.array(column)[view.position_N]


def _compare_numbers(value_N: NDArray[Any], condition: Condition) -> NDArray[np.bool_]:
    column, operation, texts = condition
    if operation.endswith("like"):
        raise OptionError(f"where: like must be used with {' or '.join(_TEXTS)}, got {str(condition)!r}")
    numbers: list[float] = []
    for text in texts:
        try:
            numbers.append(int(text) if re.fullmatch(r"-?\d+", text) else float(text))
        except ValueError:
            raise OptionError(f"where: {column} must be compared with a number, got {text!r}") from None
    if operation in _COMPARE:
        met_N: NDArray[np.bool_] = _COMPARE[operation](value_N, numbers[0])
        return met_N
    return np.isin(value_N, numbers, invert=operation == "not in")


def _class_numbers(classes: Sequence[ClassName]) -> Callable[[str, str], int]:
    """A function (id or name, step) -> class index; it raises `OptionError`."""
    times = Counter(one.name for one in classes)
    known = {one.name: number for number, one in enumerate(classes) if times[one.name] == 1}
    known |= {one.id: number for number, one in enumerate(classes)}

    def number(text: str, step: str) -> int:
        if text not in known:
            several = f"; {times[text]} classes have this name, use their ids" if times[text] else ""
            such = ", ".join(one.id for one in classes[:5])
            raise OptionError(f"{step}: a class must be one of {len(classes)}, such as {such}, got {text!r}{several}")
        return known[text]

    return number


def _positions(view: View, keys: Sequence[str], step: str) -> NDArray[np.int64]:
    """Positions in the split, int64, of the samples with these keys."""
    found = pc.index_in(pa.array(keys, pa.string()), value_set=view.index.column("key").combine_chunks())
    if found.null_count:
        missing = [key for key, position in zip(keys, found.to_pylist(), strict=True) if position is None]
        raise OptionError(
            f"{step}: {len(missing)} of {len(keys)} keys are not in split {view.split!r}, such as {missing[0]!r}"
        )
    positions: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return positions


def _rows(view: View, position_R: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The rows of these positions, and which of them the view has at all."""
    row_R = np.minimum(np.searchsorted(view.position_N, position_R), len(view.position_N) - 1)
    return row_R, view.position_N[row_R] == position_R


def _table(step: Step, column: str) -> dict[str, str]:
    """`key` -> `column` of the step's CSV file; a key stands in it once."""
    reader = csv.DictReader(io.StringIO(_text(step), newline=""))
    if not {"key", column} <= set(reader.fieldnames or ()):
        raise OptionError(f"{step.file}: the first line must name columns key and {column}, got {reader.fieldnames}")
    cells: dict[str, str] = {}
    for row in reader:
        key = row["key"] or ""
        if key in cells:
            raise OptionError(f"{step.file}: a key must stand once, got {key!r} again in line {reader.line_num}")
        cells[key] = (row[column] or "").strip()
    return cells


def _text(step: Step) -> str:
    try:
        return (step.data or b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(f"{step.file}: must be text in UTF-8, got byte {error.start} that is not") from error


def _csv_bytes(head: tuple[str, str], rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()


def _by_number_or_alphabet(word: str) -> tuple[bool, int, str]:
    number = re.fullmatch(r"\d+", word)
    return number is None, int(word) if number else 0, word
