"""Logits, batch after batch -> one row for each sample: class, probability, loss; as a table or a sheet of pictures."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from imgdata.arrow import number_array, text_array
from imgdata.errors import OptionError, OutputError
from imgdata.sample import Batch, ClassName
from imgdata.storage.atomic import whole_file, write_atomic
from imgdata.training.distributed import Processes
from imgdata.training.plots import figure, name_of, save_figure
from imgdata.training.scores import plain_cell

TABLES = (".csv", ".parquet")
SHEET_COLUMNS, SHEET_SIDE = 5, 160
"""Pictures in a row of a sheet, and their longer side in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """One row for each sample, in the order of the index."""

    keys: list[str]
    """Keys of the samples, or names of files, `(N,)`."""
    position_N: NDArray[np.int64]
    """Positions in the split, int64 `(N,)`."""
    label_N: NDArray[np.int64]
    """Class index in `labels`, int64 `(N,)`; -1 for none."""
    predicted_N: NDArray[np.int64]
    """Index of the most probable class in `classes`, int64 `(N,)`."""
    probability_N: NDArray[np.float32]
    """Probability of the predicted class, 0 to 1, float32 `(N,)`."""
    loss_N: NDArray[np.float32]
    """Cross-entropy in nats, float32 `(N,)`; no number where there is no label."""
    classes: tuple[ClassName, ...]
    """Classes of the network's outputs."""
    labels: tuple[ClassName, ...]
    """Classes of the labels."""

    def __len__(self) -> int:
        return len(self.keys)

    def worst(self, count: int) -> list[int]:
        """Return the rows with the highest loss, the worst first; rows without a label are none of them."""
        loss_N = np.where(np.isnan(self.loss_N), -np.inf, self.loss_N)
        order = np.argsort(-loss_N, kind="stable")[:count]
        return [int(row) for row in order if loss_N[row] > -np.inf]

    def save(self, path: Path) -> None:
        """Write the columns key, label, predicted, probability, loss to a .csv or .parquet file; labels are class ids.

        Raises `OptionError`, `OutputError`.
        """
        check_table(path)
        label = [self.labels[one].id if one >= 0 else None for one in self.label_N]
        predicted = [self.classes[one].id for one in self.predicted_N]
        if path.suffix == ".csv":
            write_atomic(path, self._csv(label, predicted))
            return
        columns = {
            "key": text_array(self.keys),
            "label": pa.array(label, pa.string()),
            "predicted": text_array(predicted),
            "probability": number_array(self.probability_N),
            "loss": pa.array(self.loss_N, from_pandas=True),
        }
        with whole_file(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")

    def _csv(self, label: Sequence[str | None], predicted: Sequence[str]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["key", "label", "predicted", "probability", "loss"])
        for row, key in enumerate(self.keys):
            loss = "" if np.isnan(self.loss_N[row]) else f"{self.loss_N[row]:.6g}"
            named = plain_cell(label[row] or ""), plain_cell(predicted[row])
            writer.writerow([plain_cell(key), *named, f"{self.probability_N[row]:.6g}", loss])
        return text.getvalue().encode()


class Collector:
    """Keeps what `Predictions` need of each batch, on the device, without waiting for it."""

    def __init__(self) -> None:
        self._parts: list[tuple[torch.Tensor, ...]] = []

    def add(self, logits_NC: torch.Tensor, batch: Batch) -> None:
        """Keep the rows of a batch whose images could be decoded; logits float `(N, C)`."""
        # All rows, and those of the others are left out at the end: which they are decides how many are left.
        logits_NC = logits_NC.float()
        # Of shares the largest is the class.
        label_N = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(dim=1)
        probability_N, predicted_N = logits_NC.softmax(dim=1).max(dim=1)
        loss_N = functional.cross_entropy(logits_NC, label_N, reduction="none", ignore_index=-1)
        loss_N = loss_N.masked_fill(label_N < 0, float("nan"))
        self._parts.append((batch.valid, batch.positions, label_N, predicted_N, probability_N, loss_N))

    def predictions(
        self, keys: Any, classes: tuple[ClassName, ...], labels: tuple[ClassName, ...], ranks: Processes
    ) -> Predictions:
        """Return the rows of all ranks; `keys` is the index's column. Every rank must call it."""
        own = None
        if self._parts:
            good_N, *columns = (torch.cat(column).cpu().numpy() for column in zip(*self._parts, strict=True))
            own = [column[good_N] for column in columns]
        parts = [part for part in ranks.gather(own) if part is not None]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)] or [np.empty(0, np.int64)] * 5
        order = np.argsort(columns[0], kind="stable")
        position_N, label_N, predicted_N, probability_N, loss_N = (column[order] for column in columns)
        return Predictions(
            keys=keys.take(number_array(position_N)).to_pylist(),
            position_N=position_N,
            label_N=label_N,
            predicted_N=predicted_N,
            probability_N=probability_N,
            loss_N=loss_N,
            classes=classes,
            labels=labels,
        )


def check_table(path: Path) -> None:
    """Raise `OptionError` for a suffix that no table has, `OutputError` where the folder is missing."""
    if path.suffix not in TABLES:
        raise OptionError(f"predictions must go to a {' or '.join(TABLES)} file, got {path}")
    check_folder(path)


def check_picture(path: Path, what: str) -> None:
    """Raise `OptionError` for a picture that is no .png, `OutputError` where its folder is missing."""
    if path.suffix.lower() != ".png":
        raise OptionError(f"{what} must be a .png file, got {path}")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raise `OutputError` where the folder of a file is missing, before hours are spent on its contents."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder must be there; make it, or choose another")


def save_sheet(images: Sequence[bytes], titles: Sequence[str], path: Path) -> None:
    """Write a contact sheet: rows of five pictures with titles. Raises `OutputError`, `MissingExtraError`."""
    check_picture(path, "sheet")
    rows = -(-len(images) // SHEET_COLUMNS)
    drawing = figure(2 * SHEET_COLUMNS, 2.3 * max(rows, 1))
    for number, (data, title) in enumerate(zip(images, titles, strict=True), 1):
        axes: Any = drawing.add_subplot(rows, SHEET_COLUMNS, number)
        with Image.open(io.BytesIO(data)) as image:
            image.thumbnail((SHEET_SIDE, SHEET_SIDE))
            axes.imshow(np.asarray(image.convert("RGB")))
        axes.set_title(name_of(title), fontsize=7)
        axes.set_axis_off()
    save_figure(drawing, path)
