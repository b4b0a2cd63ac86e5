"""What `dataset.json` says of the target: what a network has to say of a sample, and which columns hold it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

TargetKind = Literal["class", "multi-label", "soft", "regression", "none"]
KINDS: tuple[TargetKind, ...] = get_args(TargetKind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a network has to say of the samples of a dataset."""

    kind: TargetKind
    """`class`: one class. `multi-label`: any number of classes. `soft`: a share of each class. `regression`: one number
    or several. `none`: there is no target."""
    columns: tuple[str, ...] = ()
    """Columns that hold it; none for `class` and `none`. One column of lists, or of numbers; several hold a number
    each: for each class in their order, or of a vector."""

    @property
    def has_columns(self) -> bool:
        """Whether the values are in columns: labels of a batch are float32 then."""
        return bool(self.columns)

    def to_dict(self) -> dict[str, Any]:
        """Return what `dataset.json` holds."""
        return {"kind": self.kind, "columns": list(self.columns)}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Target":
        """Return the target that `to_dict` gave. Raises `ValueError` for anything else."""
        kind, columns = content["kind"], content.get("columns", [])
        if kind not in KINDS or not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ValueError(f"target must have a kind ({', '.join(KINDS)}) and columns, got {str(content)[:80]}")
        if bool(columns) != (kind not in ("class", "none")):
            raise ValueError(f"target {kind!r} must {'have no' if columns else 'name its'} columns")
        return Target(kind=kind, columns=tuple(columns))


CLASS_TARGET, NO_TARGET = Target(kind="class"), Target(kind="none")
