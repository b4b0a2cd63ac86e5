"""Members of a tar sample -> its label and its further fields."""

import difflib
import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName, fields_of
from imgdata.storage.reading import parse_json
from imgdata.tar.archive import read_member
from imgdata.tar.class_order import class_ranks
from imgdata.tar.samples import TarSample

LABEL_FIELDS = ("label", "cls", "class", "class_id", "class_index", "target")
"""Fields of a `json` member in which `auto` looks for the label."""

_MAX_CLASS = 1_000_000
_MAX_TEXT_LABEL_BYTES = 128
MAX_TEXT_BYTES = 16 * 2**20
_MAX_BYTES = {"cls": 1024}
"""Most bytes of members that are read as text or number, by extension; others have `MAX_TEXT_BYTES`."""
_MANY_CLASSES = 65_536
"""More classes than this, and than there are samples, are no class indices."""
_NO_LABEL = -1
_MAX_FIELDS = 20
_SPLIT_WORDS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_FEW = 3
_MANY_TEXTS = 20
_WORDS_OF_CAPTIONS = 3
"""Words of a text, on average, from which it is a caption where nearly every sample has its own."""
_MIXED = "text among numbers, or a number among texts; choose another place with --label-from"


def choose_label_source(sample: TarSample, descriptor: int, tar: Path, wanted: str) -> str:
    """Return where labels come from: `cls`, `json:FIELD`, `txt`, `folder` or `none`.

    The source of labels is `wanted`, or for `auto` the first of them that `sample` has. Raises `OptionError` for
    another word.
    """
    if wanted != "auto":
        if wanted not in ("cls", "txt", "folder", "none") and not re.fullmatch("json:.+", wanted):
            raise OptionError(f"label_from must be auto, cls, json:FIELD, txt, folder or none, got {wanted!r}")
        return wanted
    if "cls" in sample.members:
        return "cls"
    if "json" in sample.members:
        fields = _json_object(sample, descriptor, tar)
        for name in LABEL_FIELDS:
            if isinstance(fields.get(name), int | str) and not isinstance(fields[name], bool):
                return f"json:{name}"
    if "txt" in sample.members:
        text = _read(sample, "txt", descriptor, tar)
        if len(text) <= _MAX_TEXT_LABEL_BYTES and b"\n" not in text.strip():
            return "txt"
    if "/" in sample.key.removeprefix("./"):
        return "folder"
    return "none"


class LabelReader:
    """A reader of labels, one after the other, that maps texts to class indices at the end.

    Until `finish` a text label is the number of its first appearance.
    """

    def __init__(self, source: str, class_order: str = "auto") -> None:
        """Begin without labels; `source` is from `choose_label_source`, and `class_order` as for `class_ranks`."""
        self.source = source
        self.class_order = class_order
        self._order_notes: list[str] = []
        self.texts: dict[str, int] = {}
        self._numbers = False
        self._without = 0
        self._first_without = ""
        self._labelled = 0
        self._fields: dict[str, None] = {}

    def read(self, sample: TarSample, descriptor: int, tar: Path) -> int:
        """Return the label of `sample`; -1 when it has none. Raises `ShardError` for one that can't be understood."""
        value = self.value(sample, descriptor, tar)
        if value is None:
            self._without += self.source != "none"
            self._first_without = self._first_without or f"{tar.name}: {sample.key}"
            return _NO_LABEL
        self._labelled += 1
        if isinstance(value, str):
            label = self.texts.setdefault(value, len(self.texts))
        elif _NO_LABEL <= value < _MAX_CLASS:
            label = value
            self._numbers = True
        else:
            raise ShardError(
                f"{tar}: label of {sample.key!r} must be a class index below {_MAX_CLASS}, got {value}; "
                "choose another place with --label-from"
            )
        if self._numbers and self.texts:
            raise ShardError(f"{tar}: label of {sample.key!r}: {value!r} is a {_MIXED}")
        return label

    def value(self, sample: TarSample, descriptor: int, tar: Path) -> int | str | None:
        """Return the label as it is in the tar: a number, a text, or None."""
        kind, _, field = self.source.partition(":")
        if kind == "folder":
            return sample.key.removeprefix("./").rpartition("/")[0] or None
        if kind == "none" or kind not in sample.members:
            return None
        if kind == "json":
            return self._json_value(sample, descriptor, tar, field)
        data = _read(sample, kind, descriptor, tar)
        if kind == "txt":
            return data.decode("utf-8", "replace").strip() or None
        try:
            return int(data)
        except ValueError:
            raise ShardError(
                f"{tar}: .cls of {sample.key!r} at byte {sample.members['cls'].offset} must be a decimal number, "
                f"got {data[:40]!r}"
            ) from None

    def _json_value(self, sample: TarSample, descriptor: int, tar: Path, field: str) -> int | str | None:
        value: object = _json_object(sample, descriptor, tar)
        if len(self._fields) < _MAX_FIELDS and isinstance(value, dict):
            self._fields |= dict.fromkeys(islice(value, _MAX_FIELDS))
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ShardError(
                f"{tar}: json field {field!r} of {sample.key!r} at byte {sample.members['json'].offset} must be "
                f"a number or a text, got {str(value)[:40]!r}"
            )
        return value

    def absorb(self, other: "LabelReader", label_N: NDArray[np.int32]) -> NDArray[np.int32]:
        """Take over the texts of `other`; returns its labels `label_N` in this reader's numbering."""
        self._without += other._without
        self._first_without = self._first_without or other._first_without
        self._numbers = self._numbers or other._numbers
        self._labelled += other._labelled
        self._fields |= other._fields
        # The last entry is taken by -1.
        number_C = [self.texts.setdefault(text, len(self.texts)) for text in other.texts]
        if self._numbers and self.texts:
            raise ShardError(f"{self.source} labels: {next(iter(self.texts))!r} is a {_MIXED}")
        return np.array([*number_C, _NO_LABEL], np.int32)[label_N] if number_C else label_N

    def finish(
        self, label_N: NDArray[np.int32], classes: Sequence[ClassName] = ()
    ) -> tuple[NDArray[np.int32], tuple[ClassName, ...]]:
        """Return the final labels and the classes.

        Numbers stay as they are, also those written as text, with the names in `classes` if those are known; other
        texts become their rank in sorted order. Raises `ShardError` when a number is outside `classes`.
        """
        if self.texts:
            return self._rank_texts(label_N, classes)
        count = int(label_N.max(initial=_NO_LABEL)) + 1
        if not classes:
            _check_count(count, len(label_N))
            return label_N, tuple(ClassName(str(i), str(i)) for i in range(count))
        if count > len(classes):
            raise ShardError(f"label {count - 1} is outside the {len(classes)} classes of dataset.json beside the tars")
        return label_N, tuple(classes)

    def _rank_texts(
        self, label_N: NDArray[np.int32], classes: Sequence[ClassName]
    ) -> tuple[NDArray[np.int32], tuple[ClassName, ...]]:
        known = {name.id: i for i, name in enumerate(classes)}
        names: tuple[ClassName, ...]
        if self.texts.keys() <= known.keys():
            final, names = [known[text] for text in self.texts], tuple(classes)
        elif self.source != "folder" and all(text.isdecimal() and int(text) < _MAX_CLASS for text in self.texts):
            # Class indices, written as text.
            final = [int(text) for text in self.texts]
            _check_count(max(final) + 1, len(label_N))
            names = tuple(ClassName(str(i), str(i)) for i in range(max(final) + 1))
        else:
            rank, self._order_notes = class_ranks(self.texts, self.class_order)
            final, names = [rank[text] for text in self.texts], tuple(ClassName(text, text) for text in rank)
        # The last entry is taken by -1.
        final_C = np.array([*final, _NO_LABEL], np.int32)
        return final_C[label_N], names

    def rename(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Give the texts other names, of which several may be the same; returns the new number of each."""
        self.texts = {}
        return np.array([self.texts.setdefault(text, len(self.texts)) for text in texts], np.int32)

    def check_found(self) -> None:
        """Raise `OptionError` when no sample has a label in the place that a user named, with names that are near."""
        if self._labelled or not self._without or self.source == "none":
            return
        kind, _, field = self.source.partition(":")
        if kind != "json":
            raise OptionError(f"label_from {self.source!r}: no sample has a label there; give another place, or none")
        near = difflib.get_close_matches(field, list(self._fields), n=3, cutoff=0.4)
        there = f"; their fields are {', '.join(self._fields)}" if self._fields else "; there are no json members"
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise OptionError(f"label_from {self.source!r}: no sample has that field{meant}{there}")

    def hold_captions(self, samples: int) -> bool:
        """Return whether the texts are captions, not classes: nearly as many as there are samples, or sentences."""
        if self.source != "txt" or len(self.texts) < _FEW or 2 * len(self.texts) <= samples:
            return False
        words = sum(len(text.split()) for text in self.texts) / len(self.texts)
        return words >= _WORDS_OF_CAPTIONS or len(self.texts) >= _MANY_TEXTS

    def warnings(self) -> list[str]:
        """Return what a user should know of these labels."""
        if self.source == "none":
            looked = (
                f"a cls member, a json member with {'/'.join(LABEL_FIELDS)}, a short txt member, folders in the keys"
            )
            return [f"no labels found (looked for {looked}); set label_from if they are elsewhere"]
        found = list(self._order_notes)
        odd = sorted(
            text
            for text in self.texts
            if self.source == "folder" and _SPLIT_WORDS.intersection(text.lower().split("/"))
        )
        if odd:
            found.append(
                f"split words inside class names ({', '.join(odd[:3])}{', ...' if len(odd) > 3 else ''}): if they are "
                "splits, `imgdata shard` reads them as such where all keys begin with one"
            )
        if self._without:
            found.append(
                f"{self._without} samples have no label in {self.source!r}, the first is {self._first_without}"
            )
        if self.source == "txt" and len(self.texts) > 100:
            found.append(
                f"txt members hold {len(self.texts)} different texts; if they are captions, set label_from to 'none'"
            )
        return found


def _check_count(count: int, samples: int) -> None:
    # Each class has a line in every sidecar: one wrong number would write 200 MB of them.
    if count > max(_MANY_CLASSES, samples):
        raise ShardError(
            f"label {count - 1} is no class index: the {samples} samples would have {count} classes, nearly all of "
            "them empty; choose another place with --label-from"
        )


def read_fields(sample: TarSample, descriptor: int, tar: Path, label_source: str) -> tuple[str, list[str]]:
    """Return the further fields of `sample` as one JSON object (empty: none), and the extensions that are not in it.

    The fields are those of the `json` member, and a `txt` member as field `txt` unless it is the label.
    """
    fields = _json_object(sample, descriptor, tar) if "json" in sample.members else {}
    if "txt" in sample.members and label_source != "txt":
        fields.setdefault("txt", _read(sample, "txt", descriptor, tar).decode("utf-8", "replace"))
    unkept = [ext for ext in sample.members if ext not in ("cls", "json", "txt")]
    return json.dumps(fields, ensure_ascii=False) if fields else "", unkept


def _json_object(sample: TarSample, descriptor: int, tar: Path) -> dict[str, object]:
    try:
        return fields_of(parse_json(_read(sample, "json", descriptor, tar)))
    except ValueError as error:
        raise ShardError(
            f"{tar}: json member of {sample.key!r} at byte {sample.members['json'].offset} must be a JSON object "
            f"({error})"
        ) from error


def _read(sample: TarSample, extension: str, descriptor: int, tar: Path) -> bytes:
    return read_member(descriptor, sample.members[extension], tar, _MAX_BYTES.get(extension, MAX_TEXT_BYTES))
