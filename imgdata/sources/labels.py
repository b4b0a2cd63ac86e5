"""Cells of a label column -> class ids, numbered as they come."""

import re

from imgdata.errors import SourceError

LABEL_NAMES = ("label", "labels", "class", "category", "target", "class_name", "label_name", "label_id", "class_id")
"""Usual names of label columns, the best first."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")


class Labels:
    """Numbers the labels as they come, and remembers where each came first."""

    def __init__(self) -> None:
        """No labels yet."""
        self.ids: list[str] = []
        self._codes: dict[str, int] = {}
        self._first: list[str] = []

    def code(self, value: object, column: str, at: str) -> int:
        """The position in `ids` of the label in a cell. Raises `SourceError` for an empty one or a list."""
        text = str(value).lower() if isinstance(value, bool) else value
        if isinstance(text, float) and text.is_integer():
            text = int(text)
        if not isinstance(text, str | int | float) or text != text or not str(text).strip():
            kind = "is empty" if text is None or isinstance(text, str | float) else f"holds a {type(text).__name__}"
            raise SourceError(
                f"{at}: the label (column {column!r}) {kind}; each image needs one label, "
                "further ones are kept from columns of their own (another column with --label-column)"
            )
        label = str(text).strip()
        code = self._codes.setdefault(label, len(self.ids))
        if code == len(self.ids):
            self.ids.append(label)
            self._first.append(at)
        return code

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
        """Numbers that aren't 0, 1, 2, ... become other numbers: worth a sentence."""
        if not self.numeric or set(self.ids) == set(map(str, range(len(self.ids)))):
            return []
        highest = max(map(int, self.ids))
        return [
            f"the labels are {len(self.ids)} numbers up to {highest}, not 0 to {len(self.ids) - 1}: "
            f"the class index is the rank, so that label {highest} is class {len(self.ids) - 1}"
        ]
