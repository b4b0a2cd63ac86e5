"""Keys or class names in a CSV file or a step -> rows of a view, class indices."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.sample import ClassName
from imgdata.views.text import Step
from imgdata.views.view import View


def whole_number(step: Step, option: str, default: int) -> int:
    """Return the value of an option of a step. Raises `OptionError`."""
    text = step.options.get(option)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{step.name}: {option} must be a whole number, got {text!r}") from None


def class_numbers(classes: Sequence[ClassName]) -> Callable[[str, str], int]:
    """Return a function (id or name, step) -> class index, which raises `OptionError`."""
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


def key_positions(view: View, keys: Sequence[str], step: str) -> NDArray[np.int64]:
    """Return the positions in the split, int64, of the samples with these keys."""
    position_K = view.index.find_all(keys)
    missing = np.flatnonzero(position_K < 0)
    if len(missing):
        raise OptionError(
            f"{step}: {len(missing)} of {len(keys)} keys are not in split {view.split!r}, such as {keys[missing[0]]!r}"
        )
    return position_K


def rows_of_positions(view: View, position_R: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of these positions, and which of the positions the view has at all."""
    row_R = np.minimum(np.searchsorted(view.position_N, position_R), len(view.position_N) - 1)
    return row_R, view.position_N[row_R] == position_R


def read_key_table(step: Step, column: str) -> dict[str, str]:
    """Read `key` -> `column` of the step's CSV file, in which no key comes twice."""
    reader = csv.DictReader(io.StringIO(_read_text(step), newline=""))
    if not {"key", column} <= set(reader.fieldnames or ()):
        raise OptionError(f"{step.file}: the first line must name columns key and {column}, got {reader.fieldnames}")
    cells: dict[str, str] = {}
    for row in reader:
        key = row["key"] or ""
        if key in cells:
            raise OptionError(f"{step.file}: a key must come once, got {key!r} again in line {reader.line_num}")
        cells[key] = (row[column] or "").strip()
    return cells


def read_keys(step: Step) -> list[str]:
    """Read the keys of the step's file: one a line, or the column `key` of a CSV file that has further columns."""
    if is_table(step):
        return list(read_key_table(step, "key"))
    return [line for line in _read_text(step).splitlines() if line.strip()]


def is_table(step: Step) -> bool:
    """Return whether the step's file is a CSV file whose first line names `key` and further columns."""
    return (step.data or b"").removeprefix(codecs.BOM_UTF8).startswith(b"key,")


def _read_text(step: Step) -> str:
    try:
        return (step.data or b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(f"{step.file}: must be text in UTF-8, got byte {error.start} that is not") from error


def csv_bytes(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV file with these columns, UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()
