"""A view, a table of labels -> the same samples under other labels."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from imgdata.errors import OptionError
from imgdata.sample import ClassName
from imgdata.views.key_table import class_numbers, csv_bytes, key_positions, read_key_table, rows_of_positions
from imgdata.views.text import Step, read_files
from imgdata.views.view import View, check_in_memory, check_not_balanced


def relabel(view: View, table: Path | Mapping[str, str], *, classes: Literal["keep", "table"] = "keep") -> View:
    """Give the samples in `table` other labels: a CSV file with columns `key` and `label`, or a mapping of the same.

    `keep`: a label is the id or name of one of the classes, or empty for none; samples that aren't in the table keep
    their labels. `table`: the labels in the table become the classes, numbers by size, words by alphabet; every sample
    of the view needs a row. Where images are of several classes a label is like `cat;dog`; where targets are numbers,
    like `0.5` or `0.1;0.9`. Raises `OptionError`.
    """
    if isinstance(table, Path):
        step = Step(name="relabel", values=(str(table),), options={"classes": classes})
        return relabel_step(view, *read_files([step], Path()))
    data = csv_bytes(("key", "label"), table.items())
    return relabel_step(view, Step(name="relabel", values=("labels.csv",), options={"classes": classes}, data=data))


def relabel_step(view: View, step: Step) -> View:
    """Apply `relabel` as a step, with the contents of its file."""
    check_not_balanced(view, "relabel")
    check_in_memory(view, "relabel")
    how = step.options.get("classes", "keep")
    if how not in ("keep", "table"):
        raise OptionError(f"relabel: classes must be keep or table, got {how!r}")
    cells = read_key_table(step, "label")
    position_R = key_positions(view, list(cells), "relabel")
    if view.targets is not None and how == "keep":
        parsed = view.targets.parsed
        values = {position: parsed(cell) for position, cell in zip(position_R.tolist(), cells.values(), strict=True)}
        return replace(view, targets=view.targets.changed(values), steps=(*view.steps, step), name="")
    row_R, known_R = rows_of_positions(view, position_R)
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
    numbers = class_numbers(classes)
    label_R = np.array([numbers(cell, "relabel") if cell else -1 for cell in cells.values()], np.int32)
    label_N[row_R[known_R]] = label_R[known_R]
    return replace(view, classes=classes, label_N=label_N, targets=None, steps=(*view.steps, step), name="")


def _by_number_or_alphabet(word: str) -> tuple[bool, int, str]:
    number = re.fullmatch(r"\d+", word)
    return number is None, int(word) if number else 0, word
