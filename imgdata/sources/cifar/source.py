"""CIFAR-10 or CIFAR-100 in any official form, or Kaggle's -> listing, with the arrays read as PNG."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError, SourceError
from imgdata.images.png import encode_png
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.cifar.classes import CIFAR10
from imgdata.sources.cifar.files import Place, find, read
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader
from imgdata.sources.walk import image_files
from imgdata.storage.reading import bounded_lines, open_regular

NAME = "cifar"

_PNG_BYTES = 2300
"""Mean size of a CIFAR image as PNG, measured."""
_KAGGLE_LABELS = "trainLabels.csv"
_MAX_LINE_CHARS = 2**16


def recognise(path: Path) -> str | None:
    """Return why `path` is CIFAR in one phrase, or None; looks at names only."""
    if (path / _KAGGLE_LABELS).is_file() and (path / "train").is_dir():
        return f"{_KAGGLE_LABELS} beside train/: Kaggle's CIFAR-10"
    places = find(path)
    return " and ".join(f"{place.form.title} as {_what(place, path)}" for place in places) or None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all samples of the CIFAR dataset at `path`, in the official order.

    The python and the binary form of the same images give the same listing. Raises `SourceError` for what is
    missing, damaged or contradictory, and `OptionError` for coarse labels of CIFAR-10.
    """
    if (path / _KAGGLE_LABELS).is_file():
        _refuse_coarse(options, "Kaggle's CIFAR-10")
        return _list_kaggle(path)
    places = find(path)
    if not places:
        raise SourceError(
            f"{path}: no CIFAR found; looked for the folders and archives "
            "cifar-10-batches-py, cifar-100-python, *-binary and for trainLabels.csv"
        )
    if len(places) > 1:
        several = " and ".join(str(place.path) for place in places)
        raise SourceError(f"{path}: holds {several}; name one of them")
    if not places[0].form.has_coarse:
        _refuse_coarse(options, "CIFAR-10")
    return _list_official(places[0], options)


@dataclass
class CifarReader:
    """Reader of the images in official CIFAR files, as PNG; each process reads all files into memory once (180 MB)."""

    place: Place
    _pixels: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False, compare=False)
    """`(N, 3072)` for each part; empty until the first read, unless the listing has them already."""

    def __getstate__(self) -> dict[str, object]:
        """Return the place alone: workers read the arrays themselves."""
        return {"place": self.place, "_pixels": ()}

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the archive, or of the part, that holds `ref`."""
        place = self.place
        return place.path if place.path.is_file() else place.path / place.form.parts[ref.container][0]

    def read(self, ref: SampleRef) -> bytes:
        """Return the PNG of row `ref.offset` in part `ref.container`."""
        if not self._pixels:
            self._pixels = tuple(part.pixels_ND for part in read(self.place).parts)
        pixels_ND = self._pixels[ref.container]
        if ref.offset >= len(pixels_ND):
            raise SourceError(f"{self.place.path}: has no {ref.name} any more; it changed while it was read")
        return encode_png(pixels_ND[ref.offset].reshape(3, 32, 32).transpose(1, 2, 0))


def _list_official(place: Place, options: SourceOptions) -> Listing:
    parts, fine, coarse = read(place)
    builder = ListingBuilder()
    by_coarse = options.labels == "coarse"
    counts: dict[str, int] = {}
    for position, (part, (_, split)) in enumerate(zip(parts, place.form.parts, strict=True)):
        label_N, other_N = (part.coarse_N, part.fine_N) if by_coarse else (part.fine_N, part.coarse_N)
        assert label_N is not None
        fields = _other_labels(other_N, *(("fine", fine) if by_coarse else ("coarse", coarse)))
        for row, label in enumerate(label_N.tolist()):
            number = counts.get(split, 0)
            counts[split] = number + 1
            builder.add(
                split=split,
                name=f"{split}/{number:05d}",
                key=f"{number:05d}",
                label=label,
                size=_PNG_BYTES,
                container=position,
                offset=row,
                fields=fields[row] if fields else "",
            )
    return builder.build(
        title=place.form.title,
        kind=NAME,
        reader=CifarReader(place, tuple(part.pixels_ND for part in parts)),
        classes=_classes(coarse if by_coarse else fine),
        exact_sizes=False,
    )


def _other_labels(label_N: NDArray[np.int64] | None, what: str, names: tuple[str, ...]) -> list[str]:
    """Return JSON of each image's label that is not the class; an empty list for CIFAR-10."""
    if label_N is None:
        return []
    texts = [json.dumps({what: index, f"{what}_name": name}) for index, name in enumerate(names)]
    return [texts[label] for label in label_N.tolist()]


def _list_kaggle(path: Path) -> Listing:
    label_of = _kaggle_labels(path / _KAGGLE_LABELS)
    names = sorted(set(label_of.values()))
    # A sample of the data may have no image of some class; all classes stay.
    names = list(CIFAR10) if set(names) <= set(CIFAR10) else names
    index = {name: position for position, name in enumerate(names)}
    builder = ListingBuilder()
    files = {Path(file).stem: (file, size) for file, size in image_files(path / "train", builder)}
    unlabelled = sorted(files.keys() - label_of.keys())
    missing = sorted(label_of.keys() - files.keys())
    if unlabelled or missing:
        what = f"no label for {unlabelled[0]}" if unlabelled else f"no image for {missing[0]}"
        count = len(unlabelled or missing)
        raise SourceError(f"{path / _KAGGLE_LABELS}: {what} of train/ ({count} such); extract train.7z again")
    for stem in sorted(files, key=lambda stem: (len(stem), stem)):
        file, size = files[stem]
        builder.add(split="train", name=f"train/{file}", key=stem, label=index[label_of[stem]], size=size)
    if (path / "test").is_dir():
        # Only images are counted here; other files of the test folder are not reported.
        count = sum(1 for _ in image_files(path / "test", ListingBuilder()))
        if count:
            builder.see(count)
            builder.skip("test images without labels", count)
    return builder.build(title="cifar10", kind=NAME, reader=FileReader(path), classes=_classes(tuple(names)))


def _kaggle_labels(path: Path) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=open_regular) as file:
            rows = csv.DictReader(bounded_lines(file, _MAX_LINE_CHARS))
            columns = tuple(rows.fieldnames or ())
            if not {"id", "label"} <= set(columns):
                raise SourceError(f"{path}: the columns must be id and label, got {', '.join(columns) or 'none'}")
            labels = {row["id"]: row["label"] for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); get the file again") from error
    if not all(labels.values()):
        raise SourceError(f"{path}: a row has no label; get the file again")
    return labels


def _classes(names: tuple[str, ...]) -> tuple[ClassName, ...]:
    return tuple(ClassName(name, name) for name in names)


def _refuse_coarse(options: SourceOptions, dataset: str) -> None:
    if options.labels == "coarse":
        raise OptionError(f"labels 'coarse' exist in CIFAR-100 only, and this is {dataset}; leave the option out")


def _what(place: Place, path: Path) -> str:
    form = place.form
    if place.path.is_file():
        return f"the archive {place.path.name}"
    files = f"{form.parts[0][0]} ... {form.parts[-1][0]}"
    return files if place.path == path else f"{form.folder}/ with {files}"
