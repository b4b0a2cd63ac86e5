"""How to read a raw dataset, where its layout leaves a choice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """Settings of the sources; each source reads those that concern it."""

    kind: str | None = None
    """Name of the source, when the layout fits several: `folder`, `imagenet`, `cifar`, ..."""
    labels: Literal["fine", "coarse"] = "fine"
    """Which labels of CIFAR-100 become the classes."""
    devkit: Path | None = None
    """ILSVRC2012 devkit (archive or folder) or `LOC_val_solution.csv`, when it lies elsewhere."""
    table: Path | None = None
    """CSV, TSV, JSON-lines or Parquet file with one row per image."""
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    """Columns of a table or of Parquet; None: found by their usual names. An empty `split_column`: no splits."""
    image_column: str | None = None
    """Column of a Parquet dataset that holds the encoded images."""
    image_ext: tuple[str, ...] = ()
    """Extension of the image among a tar sample's members; empty: the first known image extension."""
    label_from: str = "auto"
    """Where labels of tars come from: `cls`, `txt`, `json:FIELD`, `folder`, or `auto`."""
