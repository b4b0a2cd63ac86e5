"""Outputs of a network of several classes or of numbers, batch after batch -> one row for each sample; as a table."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from imgdata.arrow import number_array, text_array
from imgdata.errors import OptionError
from imgdata.inference.predictions import check_table
from imgdata.inference.trained import Trained
from imgdata.sample import Batch, ClassName
from imgdata.storage.atomic import whole_file, write_atomic
from imgdata.training.distributed import Processes
from imgdata.training.scores import plain_cell
from imgdata.training.task import Task
from imgdata.views.view import View


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What a network says of each sample, in the order of the index."""

    keys: list[str]
    """Keys of the samples, `(N,)`."""
    position_N: NDArray[np.int64]
    """Positions in the split, int64 `(N,)`."""
    value_ND: NDArray[np.float32]
    """Probability of each class, or numbers in their own units, float32 `(N, D)`."""
    names: tuple[str, ...]
    """Names of the D columns: class ids, or columns of the target."""

    def __len__(self) -> int:
        return len(self.keys)

    def save(self, path: Path) -> None:
        """Write the columns key and one for each class or number to a .csv or .parquet file.

        Raises `OptionError`, `OutputError`.
        """
        check_table(path)
        if path.suffix == ".csv":
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["key", *map(plain_cell, self.names)])
            for key, row in zip(self.keys, self.value_ND.tolist(), strict=True):
                writer.writerow([plain_cell(key), *(f"{value:.6g}" for value in row)])
            write_atomic(path, text.getvalue().encode())
            return
        columns = [text_array(self.keys), *(number_array(column) for column in self.value_ND.T)]
        with whole_file(path) as temporary:
            pq.write_table(pa.table(columns, names=["key", *self.names]), temporary, compression="zstd")


class SaidCollector:
    """Keeps what `Said` needs of each batch, on the device, without waiting for it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._parts: list[tuple[torch.Tensor, ...]] = []

    def add(self, outputs: torch.Tensor, batch: Batch) -> None:
        """Keep the rows of a batch; outputs float `(N, outputs)`."""
        outputs = outputs.float()
        values = self._task.values(outputs) if self._task.kind == "regression" else outputs.sigmoid()
        self._parts.append((batch.valid, batch.positions, values))

    def said(self, keys: Any, classes: tuple[ClassName, ...], ranks: Processes) -> Said:
        """Return the rows of all ranks; `keys` is the index's column. Every rank must call it."""
        own = None
        if self._parts:
            good_N, position_N, value_ND = (
                torch.cat(column).cpu().numpy() for column in zip(*self._parts, strict=True)
            )
            own = position_N[good_N], value_ND[good_N]
        parts = [part for part in ranks.gather(own) if part is not None]
        position_N = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
        value_ND = np.concatenate([np.empty((0, self._task.outputs), np.float32), *(part[1] for part in parts)])
        order = np.argsort(position_N, kind="stable")
        return Said(
            keys=keys.take(number_array(position_N[order])).to_pylist(),
            position_N=position_N[order],
            value_ND=value_ND[order],
            names=names_of(self._task, classes),
        )


def names_of(task: Task, classes: tuple[ClassName, ...]) -> tuple[str, ...]:
    """Return a name for each output: class ids, or the columns of numbers."""
    if task.kind != "regression":
        return tuple(one.id for one in classes)
    if len(task.columns) == task.outputs:
        return task.columns
    return tuple(f"{task.columns[0]}[{number}]" for number in range(task.outputs))


def check_targets(trained: Trained, place: str, shown: View) -> None:
    """Raise `OptionError` where samples haven't the kind of target, and the classes, that a network learned."""
    kind = "class" if shown.targets is None else shown.targets.kind
    if kind != trained.task.kind:
        raise OptionError(
            f"{place}: the target must be {trained.task.kind!r}, which {trained.name} learned, got {kind!r}"
        )
    assert shown.targets is not None, "a target in columns"
    if shown.targets.of_classes and shown.classes != trained.classes:
        raise OptionError(
            f"{place}: must have the {len(trained.classes)} classes of {trained.name}, in their order, got "
            f"{len(shown.classes)} or other ones"
        )
    if not shown.targets.of_classes and shown.targets.width != trained.task.outputs:
        raise OptionError(
            f"{place}: the target must be of {trained.task.outputs} numbers, which {trained.name} says, got "
            f"{shown.targets.width}"
        )
    without = shown.targets.missing(shown.position_N)
    if without:
        raise OptionError(
            f"{place}: every sample must have a target, got {without:,} of {len(shown.position_N):,} without in "
            f"{shown.split!r}; choose another split"
        )
