"""How to read a raw dataset, where its layout leaves a choice."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from imgdata.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """Settings of the sources; each source reads those that concern it."""

    kind: str | None = None
    """Name of the source, when the layout fits several: `folder`, `imagenet`, `cifar`, ..."""
    labels: Literal["fine", "coarse"] = "fine"
    """Labels of CIFAR-100 that become the classes."""
    devkit: Path | None = None
    """ILSVRC2012 devkit (archive or folder) or `LOC_val_solution.csv`, when it is not beside the images."""
    table: Path | None = None
    """CSV, TSV, JSON-lines or Parquet file with one row per image."""
    path_column: str | None = None
    label_column: str | None = None
    target: Literal["class", "multi-label", "soft", "regression", "boxes", "none"] | None = None
    """What a network has to say of an image: one class (None, too), any number of classes, a share of each, a number or
    several, boxes, or nothing. Boxes are fields of COCO and Pascal VOC. The others but `class` and `none` are in
    `label_column`: one of lists (classes as text with `label_separator` between them), or several, with commas between
    their names, or patterns with `*`."""
    label_separator: str | None = None
    """What stands between the classes in a text; None: the first of `|`, `;` and `,` that occurs in the column."""
    split_column: str | None = None
    """Columns of a table or of Parquet; None: found by their usual names. An empty `label_column`: no labels, an empty
    `split_column`: no splits."""
    image_column: str | None = None
    """Column of encoded images in Parquet, Arrow and MDS, or feature of a TFRecord."""
    masks: Path | None = None
    """Folder of masks, which have the names of the images and another extension, in a tree of the same shape."""
    mask_column: str | None = None
    """Column of the masks' paths in a table, or of encoded masks in Parquet and Arrow."""
    image_ext: tuple[str, ...] = ()
    """Extension of the image among a tar sample's members; empty: the first known image extension."""
    label_from: str = "auto"
    """Place of the labels: in tars `cls`, `txt`, `json:FIELD`, `folder`, `none`, or `auto`; `none` also for images
    in folders, which then get no labels."""
    split_names: Mapping[str, str] | None = None
    """Folders that are splits, with the names of the splits; the others are classes. None: found by their names."""
    class_order: Literal["auto", "number", "text"] = "auto"
    """Order of the classes: by number, as text, or by number where all ids are numbers and as text elsewhere."""
    exclude: tuple[str, ...] = ()
    """Patterns of names that are left out before anything is checked."""

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults as plain values, for JSON; paths are absolute."""
        plain: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value == one.default:
                continue
            if isinstance(value, Path):
                value = os.path.abspath(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            plain[one.name] = list(value) if isinstance(value, tuple) else value
        return plain

    def flags(self) -> list[str]:
        """Return what differs from the defaults as words of a command line, such as `--label-column breed`."""
        words: list[str] = []
        for name, value in self.to_dict().items():
            flag = "--source" if name == "kind" else f"--{name.replace('_', '-')}"
            if isinstance(value, dict):
                value = ",".join(f"{folder}={split}" for folder, split in value.items())
            for one in value if isinstance(value, list) else [value]:
                words += [flag, str(one)]
        return words

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "SourceOptions":
        """Return the settings that `to_dict` gave. Raises `OptionError`."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        for name in {"devkit", "table", "masks"} & set(values):
            values[name] = Path(values[name])
        return SourceOptions(**values)

    def __post_init__(self) -> None:
        """Check all fields; raises `OptionError`."""
        if self.target not in (None, "class", "multi-label", "soft", "regression", "boxes", "none"):
            raise OptionError(
                f"target must be class, multi-label, soft, regression, boxes or none, got {self.target!r}"
            )
        if self.label_separator == "":
            raise OptionError("label_separator must be a text of at least one character, got none")
        if self.class_order not in ("auto", "number", "text"):
            raise OptionError(f"class_order must be auto, number or text, got {self.class_order!r}")
        for folder, split in (self.split_names or {}).items():
            if not re.fullmatch(r"[a-z0-9_]+", split):
                raise OptionError(f"split names must be lower-case letters, digits and '_', got {split!r} for {folder}")
