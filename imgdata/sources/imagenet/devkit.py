"""ImageNet's devkit, or Kaggle's and Tiny ImageNet's tables -> class ids and names, labels of flat val images."""

import csv
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgdata.errors import SourceError
from imgdata.sources.imagenet.matfile import load_mat
from imgdata.storage.reading import bounded_lines, open_regular, read_file
from imgdata.tar.packed import open_packed, read_packed

WNID = re.compile(r"n\d{8}")

DEVKIT = "ILSVRC2012_devkit_t12"
_META = "meta.mat"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_SOLUTION = "LOC_val_solution.csv"
_MAPPING = "LOC_synset_mapping.txt"
_TINY_WORDS = "words.txt"
_TINY_TRUTH = "val/val_annotations.txt"
_MAX_BYTES = 64 * 2**20
"""Most bytes of each of these files, and of the unpacked devkit; the real files have up to 10 MB."""
_MAX_LINE_CHARS = 2**20


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Classes, names and labels from the files beside the images; every part may be missing."""

    classes: tuple[str, ...] | None = None
    """All wnids, sorted: the class index is the position."""
    classes_from: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    """Readable name of each wnid."""
    val: Mapping[str, str] | None = None
    """Wnid of each val image, by file name without extension."""
    val_from: str = ""


def gather(folders: Iterable[Path], given: Path | None) -> Knowledge:
    """Return the knowledge in `given` (`options.devkit`) and `folders`; of each part the first one found is used.

    Raises `SourceError` when a file is damaged, or `given` is neither devkit nor solution table.
    """
    found: list[Knowledge] = []
    if given is not None:
        found = _given(given)
        if not found:
            raise SourceError(
                f"{given}: neither {DEVKIT}.tar.gz, nor its extracted folder, nor {_SOLUTION}; check the devkit option"
            )
    for folder in folders:
        found += _in_folder(folder)
    merged = Knowledge()
    for one in found:
        merged = Knowledge(
            classes=one.classes if merged.classes is None else merged.classes,
            classes_from=one.classes_from if merged.classes is None else merged.classes_from,
            names=merged.names or one.names,
            val=one.val if merged.val is None else merged.val,
            val_from=one.val_from if merged.val is None else merged.val_from,
        )
    return merged


def _given(path: Path) -> list[Knowledge]:
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise SourceError(f"{path}: no such devkit; check the devkit option")
    if path.suffix.lower() == ".csv":
        return [_solution(path), *_in_folder(path.parent)]
    return [_devkit_archive(path)]


def _in_folder(folder: Path) -> list[Knowledge]:
    found = []
    archives = [folder / f"{DEVKIT}{ending}" for ending in (".tar.gz", ".tgz", ".tar")]
    extracted = [place for place in (folder, folder / DEVKIT) if (place / "data" / _META).is_file()]
    if extracted:
        data = extracted[0] / "data"
        found.append(_devkit(_read(data / _META), _read(data / _TRUTH), str(extracted[0])))
    else:
        found += [_devkit_archive(archive) for archive in archives if archive.is_file()][:1]
    if (folder / _MAPPING).is_file():
        found.append(_mapping(folder / _MAPPING))
    if (folder / _SOLUTION).is_file():
        found.append(_solution(folder / _SOLUTION))
    if (folder / _TINY_TRUTH).is_file():
        found.append(_tiny(folder))
    return found


def _devkit_archive(path: Path) -> Knowledge:
    contents: dict[str, bytes] = {}
    try:
        with open_packed(path, _MAX_BYTES) as archive:
            for member in archive:
                file = member.name.rpartition("/")[2]
                if file in (_META, _TRUTH) and member.isreg():
                    contents[file] = read_packed(archive, member)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise SourceError(f"{path}: damaged or cut short ({error}); get the devkit again") from error
    for file in (_META, _TRUTH):
        if file not in contents:
            raise SourceError(f"{path}: has no data/{file}; it must be {DEVKIT}.tar.gz")
    return _devkit(contents[_META], contents[_TRUTH], str(path))


def _devkit(meta: bytes, truth: bytes, where: str) -> Knowledge:
    """Return the knowledge in the two files of a devkit.

    Leaf synsets have no children; line i of the truth is the ILSVRC id of val image i, counted from 1.
    """
    wnid_of: dict[int, str] = {}
    names: dict[str, str] = {}
    synsets = load_mat(meta, f"{where}/data/{_META}").get("synsets")
    if not isinstance(synsets, list) or not all(isinstance(synset, dict) for synset in synsets):
        raise SourceError(f"{where}/data/{_META}: has no struct array 'synsets'; get the devkit again")
    for synset in synsets:
        number, children = _integer(synset, "ILSVRC2012_ID"), _integer(synset, "num_children")
        wnid, words = synset.get("WNID"), synset.get("words")
        if number is None or children is None or not isinstance(wnid, str) or not WNID.fullmatch(wnid):
            raise SourceError(f"{where}/data/{_META}: a synset lacks its id, wnid or children; get the devkit again")
        if children == 0:
            wnid_of[number] = wnid
            names[wnid] = words if isinstance(words, str) and words else wnid
    if not wnid_of or len(names) != len(wnid_of):
        raise SourceError(
            f"{where}/data/{_META}: {len(wnid_of)} ids for {len(names)} leaf synsets; get the devkit again"
        )
    val = {}
    for number, line in enumerate(truth.split(), start=1):
        if not line.isdigit() or int(line) not in wnid_of:
            raise SourceError(
                f"{where}/data/{_TRUTH}: line {number} must be an ILSVRC id of {_META}, got {line.decode('latin-1')!r}"
            )
        val[f"ILSVRC2012_val_{number:08d}"] = wnid_of[int(line)]
    return Knowledge(classes=tuple(sorted(names)), classes_from=where, names=names, val=val, val_from=where)


def _integer(synset: dict[str, Any], key: str) -> int | None:
    value = synset.get(key)
    return int(value[0]) if value is not None and not isinstance(value, str | list) and len(value) == 1 else None


def _mapping(path: Path) -> Knowledge:
    """Return the classes and names in lines such as `n01440764 tench, Tinca tinca`."""
    names = dict(_split_lines(path, " "))
    for wnid in names:
        _check_wnid(wnid, path)
    return Knowledge(classes=tuple(sorted(names)), classes_from=str(path), names=names)


def _solution(path: Path) -> Knowledge:
    """Return the val labels in rows `ILSVRC2012_val_00048981,n03995372 85 1 499 272`, where boxes follow the class."""
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=open_regular) as file:
            rows = csv.DictReader(bounded_lines(file, _MAX_LINE_CHARS))
            columns = tuple(rows.fieldnames or ())
            if not {"ImageId", "PredictionString"} <= set(columns):
                raise SourceError(
                    f"{path}: the columns must be ImageId and PredictionString, got {', '.join(columns) or 'none'}"
                )
            val = {row["ImageId"]: (row["PredictionString"] or "").split(" ")[0] for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); get the file again") from error
    for wnid in set(val.values()):
        _check_wnid(wnid, path)
    return Knowledge(val=val, val_from=str(path))


def _tiny(folder: Path) -> Knowledge:
    """Return the val labels and names of Tiny ImageNet.

    Lines are `val_0.JPEG<tab>n03444034<tab>box`, and `n00001740<tab>entity` for all of WordNet.
    """
    path = folder / _TINY_TRUTH
    val = {name.rpartition(".")[0]: rest.split("\t")[0] for name, rest in _split_lines(path, "\t")}
    for wnid in set(val.values()):
        _check_wnid(wnid, path)
    words = folder / _TINY_WORDS
    return Knowledge(names=dict(_split_lines(words, "\t")) if words.is_file() else {}, val=val, val_from=str(path))


def _split_lines(path: Path, separator: str) -> list[tuple[str, str]]:
    try:
        lines = _read(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not text in UTF-8 ({error}); get the file again") from error
    pairs = [line.partition(separator) for line in lines if line.strip()]
    return [(first.strip(), rest.strip()) for first, _, rest in pairs]


def _check_wnid(wnid: str, path: Path) -> None:
    if not WNID.fullmatch(wnid):
        raise SourceError(f"{path}: must name classes by wnids such as n01440764, got {wnid!r}")


def _read(path: Path) -> bytes:
    try:
        return read_file(path, _MAX_BYTES)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error
