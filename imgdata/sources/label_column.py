"""Cells of a label column -> class ids, numbered in order of appearance; -1 in a split without any labels."""

import re
from collections.abc import Sequence

from imgdata.errors import SourceError

LABEL_NAMES = ("label", "labels", "class", "category", "target", "class_name", "label_name", "label_id", "class_id")
"""Usual names of label columns, the best first."""

NO_LABEL = -1
_FEW = 5
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]*[1-9][0-9]*(?:[eE][+-]?[0-9]+)?|[+-]?[0-9.]+[eE]-[0-9]+")

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")


class Labels:
    """Class ids in order of appearance, and the place where each was found first."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """Begin with the `names` of the classes where the source states them: numbers are positions in `names`."""
        self.ids: list[str] = list(names or ())
        self._codes: dict[str, int] = {name: code for code, name in enumerate(self.ids)}
        self._named = names is not None
        self._first: list[str] = []
        self._labelled: set[str] = set()
        self._unlabelled: dict[str, int] = {}
        self._first_unlabelled: dict[str, str] = {}

    def code(self, value: object, *, column: str, split: str, at: str) -> int:
        """Return the position in `ids` of the label in a cell; -1 for an empty cell or -1.

        Raises `SourceError` for a list, and for a label outside of the named classes.
        """
        text = str(value).lower() if isinstance(value, bool) else value
        if isinstance(text, float) and text.is_integer():
            text = int(text)
        label = "" if text is None or text != text else str(text).strip()
        if label in ("", "-1"):
            what = "-1, which says that there is none" if label else "empty"
            return self.none(split=split, at=f"{at}: the label (column {column!r}) is {what}")
        if not isinstance(text, str | int | float):
            raise SourceError(
                f"{at}: the label (column {column!r}) holds a {type(text).__name__}; each image needs one label, "
                "or --target multi-label; further ones are kept from columns of their own (another column with "
                "--label-column)"
            )
        self._labelled.add(split)
        if self._named:
            return self._named_code(text, column, at)
        code = self._codes.setdefault(label, len(self.ids))
        if code == len(self.ids):
            self.ids.append(label)
            self._first.append(at)
        return code

    def none(self, *, split: str, at: str) -> int:
        """Count a sample without a label, and return -1; `at` says where the sample is, and why it has no label."""
        self._unlabelled[split] = self._unlabelled.get(split, 0) + 1
        self._first_unlabelled.setdefault(split, at)
        return NO_LABEL

    def check(self, *, has_fields: bool) -> None:
        """Raise `SourceError` for a split in which only some samples have a label.

        Without any label the error is raised as well, unless samples have further fields.
        """
        if not self._labelled and not has_fields:
            first = next(iter(self._first_unlabelled.values()))
            raise SourceError(f"{first}, and so everywhere: no labels; name another column with --label-column")
        for split, count in self._unlabelled.items():
            if split in self._labelled:
                more = f", and so for {count - 1} more" if count > 1 else ""
                raise SourceError(
                    f"{self._first_unlabelled[split]}{more}, where others of split {split} have one; all of a split "
                    "need a label, or none: fill them in, leave these rows out, or make them a split of their own"
                )

    def refuse_quantities(self, samples: int) -> None:
        """Raise `SourceError` when most labels are fractions, and few samples share one: quantities, not classes."""
        fractions = [label for label in self.ids if _FRACTION.fullmatch(label)]
        if self._named or len(self.ids) < _FEW or 2 * len(self.ids) <= samples or 2 * len(fractions) < len(self.ids):
            return
        raise SourceError(
            f"{self._first[0]}: the labels are {len(self.ids)} numbers such as {fractions[0]}, for {samples} images: "
            "quantities, not classes; predict them with --target regression, keep them in the json members with "
            "--label-column '' (images get no label), "
            "name another column with --label-column, or this one to make each a class"
        )

    @property
    def numeric(self) -> bool:
        """Whether all labels are whole numbers. Raises `SourceError` when one of them is negative."""
        if not all(map(_INTEGER.fullmatch, self.ids)):
            return False
        for label, at in zip(self.ids, self._first, strict=True):
            if label.startswith("-"):
                raise SourceError(f"{at}: label {label} is outside of the classes; numbers must be 0 or more")
        return True

    def warnings(self) -> list[str]:
        """Return notes on splits without labels, and on numbers that aren't 0, 1, 2, ... and become other numbers."""
        unlabelled = [f"split {split} has no labels ({count} images)" for split, count in self._unlabelled.items()]
        if self._named or not self.numeric or set(self.ids) == set(map(str, range(len(self.ids)))):
            return unlabelled
        highest = max(map(int, self.ids))
        return [
            *unlabelled,
            f"the labels are {len(self.ids)} numbers up to {highest}, not 0 to {len(self.ids) - 1}: "
            f"the class index is the rank, so that label {highest} is class {len(self.ids) - 1}",
        ]

    def _named_code(self, value: object, column: str, at: str) -> int:
        code = self._codes.get(value) if isinstance(value, str) else value
        if not isinstance(code, int) or not 0 <= code < len(self.ids):
            raise SourceError(f"{at}: label {value!r} is outside of the {len(self.ids)} classes of {column!r}")
        return code
