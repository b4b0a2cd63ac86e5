"""Samples as Python objects, one by one -> a file of their encoded images, and a `Listing` of them.

Python objects can be read once, from start to end, and shards are cut and shuffled before they are written: so the
images are copied into one file of the job folder first, where each can be read at any time. From there on they are a
source like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from imgdata.dataset.members import is_member_name
from imgdata.errors import SourceError
from imgdata.sample import ClassName, SampleRef
from imgdata.shards.objects import class_list, encoded, encoded_member, fields_text, label_of
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.member_columns import Place
from imgdata.sources.readers import RangeReader
from imgdata.sources.splits import split_name
from imgdata.tar.keys import clean_key

KIND = "objects"


class SpoolReader(RangeReader):
    """Images of a file that this job wrote itself: it does not change."""

    def file(self, ref: SampleRef) -> None:  # type: ignore[override]
        """Return None: the file is no source whose changes matter."""


class ObjectSpool:
    """The file of images, open for writing until `listing` is asked for."""

    def __init__(self, path: Path, classes: Sequence[Any] | None = None) -> None:
        self.path = path
        self._classes = None if classes is None else class_list(classes)
        self._index = {one.id: index for index, one in enumerate(self._classes or ())}
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._builder = ListingBuilder()
        self._content = xxhash.xxh3_128()
        self._keys: set[str] = set()
        self._names: dict[str, int] = {}
        self._highest = -1
        self._given_splits = False

    def __len__(self) -> int:
        return len(self._builder)

    def add(
        self,
        image: Any,
        label: Any = None,
        *,
        split: str = "train",
        key: str | None = None,
        fields: Mapping[str, Any] | None = None,
        members: Mapping[str, Any] | None = None,
        at: str = "",
    ) -> None:
        """Append one sample, with further images by name.

        Raises `SourceError`, which says `at`, for a wrong type or a key given twice.
        """
        at = at or f"sample {len(self)}"
        name = split_name(split) if isinstance(split, str) else ""
        if not name:
            raise SourceError(f"{at}: a split must be a word such as train or val, got {split!r}")
        data = encoded(image, at)
        further = {one: encoded_member(value, one, at) for one, value in (members or {}).items() if value is not None}
        wrong = next((one for one in further if not is_member_name(one)), None)
        if wrong is not None:
            raise SourceError(
                f"{at}: a further image must be called by a word of lower-case letters, digits and '_', such as mask "
                f"or depth, got {wrong!r}"
            )
        number = self._label(label_of(label, at), at)
        text = fields_text(fields, at)
        key = self._key(key, at)
        self._builder.add(
            split=name,
            name=f"{name}/{key}",
            key=key,
            label=number,
            size=len(data),
            offset=self._file.tell(),
            fields=text,
            members=self._places(f"{name}/{key}", self._file.tell() + len(data), further),
        )
        self._given_splits = self._given_splits or name != "train"
        for part in (data, *further.values()):
            self._content.update(part)
            self._file.write(part)

    def listing(self, title: str) -> Listing:
        """Return what was added. Raises `SourceError` when nothing was, or when labels are names and numbers."""
        self.close()
        if self._names and self._highest >= 0:
            raise SourceError(
                f"labels are numbers and names, such as {self._highest} and {next(iter(self._names))!r}; use one kind"
            )
        listing = self._builder.build(
            title=title,
            kind=KIND,
            reader=SpoolReader((self.path,)),
            classes=self._all_classes(),
            given_splits=self._given_splits,
            content=self._content.hexdigest(),
        )
        if not self._names:
            return listing
        # Names got numbers as they came; the classes are in the order of their names.
        rank = {name: place for place, name in enumerate(sorted(self._names))}
        new_label = np.array([*(rank[name] for name in self._names), -1], np.int32)
        return replace(listing, label_N=new_label[listing.label_N])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _places(self, name: str, start: int, further: Mapping[str, bytes]) -> dict[str, Place]:
        """Return where the further images of the sample `name` lie, one behind the other from `start` on."""
        places = {}
        for one, data in further.items():
            places[one] = Place(f"{name}.{one}", len(data), 0, start)
            start += len(data)
        return places

    def _all_classes(self) -> tuple[ClassName, ...]:
        if self._classes is not None:
            return self._classes
        return class_list(sorted(self._names) or [str(number) for number in range(self._highest + 1)])

    def _label(self, label: int | str | None, at: str) -> int:
        if label is None:
            return -1
        if self._classes is not None:
            number = self._index.get(label, -1) if isinstance(label, str) else label
            if not 0 <= number < len(self._classes):
                raise SourceError(
                    f"{at}: label {label!r} is none of the {len(self._classes)} classes, such as "
                    f"{', '.join(one.id for one in self._classes[:3])}"
                )
            return number
        if isinstance(label, str):
            return self._names.setdefault(label, len(self._names))
        if label > _MAX_LABEL:
            raise SourceError(
                f"{at}: label {label} is larger than {_MAX_LABEL}; give names of classes, or smaller numbers"
            )
        self._highest = max(self._highest, label)
        return label

    def _key(self, key: Any, at: str) -> str:
        if key is None:
            key = f"{len(self):08d}"
        if not isinstance(key, str) or not key:
            raise SourceError(f"{at}: a key must be a text, got {key!r}")
        cleaned = clean_key(key)
        if cleaned in self._keys:
            raise SourceError(
                f"{at}: key {key!r} was given before"
                + ("" if cleaned == key else f" (as {cleaned!r}, which is what readers of tars take)")
                + "; keys must differ over all splits"
            )
        self._keys.add(cleaned)
        return cleaned


_MAX_LABEL = 999_999
