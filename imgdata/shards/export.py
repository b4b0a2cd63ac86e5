"""Dataset folder -> class folders with one file per image, bytes as stored; masks and the like in folders beside."""

import contextlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from imgdata.arrow import number_array
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.fields import OWN_FIELDS
from imgdata.dataset.split import Split
from imgdata.errors import OptionError, OutputError
from imgdata.sample import ClassName
from imgdata.storage.atomic import output_error, sync_folder, sync_tree
from imgdata.storage.file_names import unescape_name
from imgdata.storage.local_paths import local_path
from imgdata.storage.locks import LockHeldError, locked

METADATA = "metadata.jsonl"
"""File of the samples' fields in the folder of a split."""
IMAGES = "images"
"""Folder of the splits where samples have further images and no labels."""
UNLABELLED = "unlabelled"
"""Folder of the images without a label."""

_EXTENSIONS = {"jpeg": ("jpg", "jpeg", "jpe", "jfif"), "tiff": ("tif", "tiff"), "ppm": ("ppm", "pgm", "pbm", "pnm")}
_ALL_EXTENSIONS = {"png", "webp", "gif", "bmp", "avif", *(ext for kinds in _EXTENSIONS.values() for ext in kinds)}
_FORBIDDEN = re.compile(r"[\x00-\x1f/]")
_MAX_NAME_BYTES = 240
"""Leaves room for an extension and a number."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    folder: Path
    files: int
    bytes: int
    left_json: bool
    """Whether samples have `json` members without fields of their own, which are left out."""


def export(
    out: str | Path,
    folder: str | Path,
    *,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the images of the dataset in `out` to `folder/<split>/<class id>/<name>`.

    A file has its name in the raw dataset where that is unique in its class, else its key. Where samples have further
    fields, each split gets a `metadata.jsonl` of them, as Hugging Face's image folders have it, with the class as
    `label`, unless a field has that name. Further images, such as masks, lie in `folder/masks/<split>/...` under the
    same names; where no sample has a label, images then lie in `folder/images/<split>/<name>`. Every image is compared
    with its hash on the way. `progress(done, total)` is called after every thousandth file and the last. Raises
    `OptionError` for an unknown split or a folder that isn't empty, `ShardError` for a damaged dataset,
    `OutputError` when a file can't be written; then `folder` is as it was before.
    """
    dataset = open_dataset(out)
    if split is not None and split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    target = Path(os.path.abspath(local_path(folder, "FOLDER")))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OptionError(f"{folder}: must be a new or an empty folder")
    splits = [dataset[name] for name in dataset if split in (None, name)]
    total = sum(len(one) for one in splits)
    done = num_bytes = 0
    with _whole_folder(target) as temporary:
        for one in splits:
            lines: list[tuple[int, str]] = []
            kept = has_fields(one)
            top = place_of(dataset, one.name)
            for part, row, name in _files(one, dataset.classes, temporary / top, labelled=top == Path(one.name)):
                data = part.verified(row)
                # Never over another: two class ids may have become one folder.
                with open(temporary / top / name, "xb") as file:
                    file.write(data)
                num_bytes += _write_members(part, row, temporary, name)
                if kept:
                    lines.append((row, _line(part, row, name, dataset.classes)))
                done, num_bytes = done + 1, num_bytes + len(data)
                if progress is not None and (done % 1000 == 0 or done == total):
                    progress(done, total)
            if lines:
                (temporary / top / METADATA).write_text("".join(line for _, line in sorted(lines)), "utf-8")
    return Exported(target, done, num_bytes, any(one.index.has_json and not has_fields(one) for one in splits))


@contextlib.contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder to fill, which gets the name `target` afterwards, synced, or is removed.

    Raises `OutputError`.
    """
    temporary = target.with_name(f".{target.name}.export.tmp")
    try:
        with locked(target.with_name(f".{target.name}.export.lock"), remove=True):
            # Of an export that was killed.
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
        os.replace(temporary, target)
        try:
            sync_folder(target.parent)
        except OSError:
            os.replace(target, temporary)
            raise
    except LockHeldError:
        raise OutputError(
            f"{target}: another export writes there; wait for its end, or choose another folder"
        ) from None
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise output_error(error, target) from error
        raise


def place_of(dataset: Dataset, split: str) -> Path:
    """Return the folder of the images of a split, below that of the export."""
    labelled = any(bool((one.index.label_N >= 0).any()) for one in dataset.values())
    return Path(split) if labelled or not dataset.members else Path(IMAGES, split)


def members_folder(member: str) -> str:
    """Return the folder of a further image: `masks` for `mask`, else as it is called."""
    return "masks" if member == "mask" else member


def _write_members(split: Split, row: int, folder: Path, name: Path) -> int:
    """Write the further images of a sample, whose image is called `name` in its split; return their bytes."""
    num_bytes = 0
    for member in split.members:
        data = split.verified_member(row, member.name)
        if not data:
            continue
        _, _, format_column, _ = member.columns
        kind = split.index.words(format_column)[split.index.array(format_column)[row]]
        path = folder / members_folder(member.name) / split.name / name.with_name(f"{name.stem}.{_extensions(kind)[0]}")
        if path.exists():
            # Of `a.jpg` and `a.png` in one class.
            path = path.with_name(f"{name.name}.{_extensions(kind)[0]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
        num_bytes += len(data)
    return num_bytes


def has_fields(split: Split) -> bool:
    """Return whether samples have fields beside those that imgdata writes."""
    return bool(split.columns.types)


def _line(split: Split, row: int, name: Path, classes: tuple[ClassName, ...]) -> str:
    """Return the line of `metadata.jsonl` of a sample: the name of its file, its class, its fields."""
    label = int(split.index.label_N[row])
    own = {"file_name": name.as_posix(), **({"label": classes[label].id} if label >= 0 else {})}
    fields = {key: value for key, value in split.fields(row).items() if key not in OWN_FIELDS and key != "file_name"}
    return json.dumps({**own, **fields}) + "\n"


def _files(
    split: Split, classes: tuple[ClassName, ...], folder: Path, *, labelled: bool
) -> Iterator[tuple[Split, int, Path]]:
    """Yield the split that reads an image, its row, and its path below `folder`, which exists by then.

    Images come class by class, so that few names are held in memory.
    """
    label_N = split.index.label_N
    order_N = np.argsort(label_N, kind="stable")
    ends = np.flatnonzero(np.diff(label_N[order_N], append=-2)) + 1
    for rows in np.split(order_N, ends[:-1]) if len(order_N) else ():
        label = int(label_N[rows[0]])
        of_class = class_folder(classes[label].id) if label >= 0 else Path(UNLABELLED if labelled else ".")
        (folder / of_class).mkdir(parents=True, exist_ok=True)
        names = file_names(split, rows)
        rest = iter(names)
        for part, some in split.in_pieces(rows.tolist()):
            yield from ((part, row, of_class / next(rest)) for row in some)


def class_folder(class_id: str) -> Path:
    """Return the folder of a class: its id, with `/` kept as nested folders and what file systems refuse as `_`.

    Bytes that are not UTF-8 are those of the raw dataset's folder.
    """
    parts = [_clean(part) for part in _as_on_disk(class_id).split("/") if part not in ("", ".", "..")]
    return Path(*parts) if parts else Path("_")


def _as_on_disk(text: str) -> str:
    """Return `text` as it was before `escape_name`; unchanged where the result could not be the name of a file."""
    name = unescape_name(text)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return text
    return name


def file_names(split: Split, rows: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    """Return a file name for each of `rows`, no two of which differ in case alone.

    The name is the base name in the raw dataset, with an extension that fits the bytes, where no other of `rows` has
    that name; else the key with `_` for `/`, and a number if even that is taken.
    """
    positions = number_array(np.asarray(rows, np.int64))
    sources = split.index.column("source").take(positions).to_pylist()
    keys = split.index.column("key").take(positions).to_pylist()
    formats = [split.index.words("format")[code] for code in split.index.array("format")[np.asarray(rows)].tolist()]
    names = [_source_name(source, kind) for source, kind in zip(sources, formats, strict=True)]
    counts = Counter(name.casefold() for name in names)
    taken = {name for name, count in counts.items() if count == 1}
    for i, (key, kind) in enumerate(zip(keys, formats, strict=True)):
        if names[i] and counts[names[i].casefold()] == 1:
            continue
        stem, number = _clean(key.replace("/", "_")), 0
        names[i] = f"{stem}.{_extensions(kind)[0]}"
        while names[i].casefold() in taken:
            number += 1
            names[i] = f"{stem}-{number}.{_extensions(kind)[0]}"
        taken.add(names[i].casefold())
    return names


def _source_name(source: str, kind: str) -> str:
    """Return the base name of `source`, its extension fitting the format; empty when no file can have that name."""
    base = _clean(_as_on_disk(source).rsplit("/", 1)[-1])
    stem, dot, suffix = base.rpartition(".")
    if not (stem and dot and suffix.lower() in _extensions(kind)):
        # Behind the last dot there may be a part of the name, or an extension of bytes that were re-encoded.
        stem = stem if stem and suffix.lower() in _ALL_EXTENSIONS else base
        base = f"{stem}.{_extensions(kind)[0]}"
    too_long = len(base.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES
    return "" if too_long or base.startswith(".") else base


def _extensions(kind: str) -> tuple[str, ...]:
    return _EXTENSIONS.get(kind, (kind if kind != "unknown" else "bin",))


def _clean(part: str) -> str:
    cleaned = _FORBIDDEN.sub("_", part)
    return _shortened(cleaned) if cleaned not in ("", ".", "..") else "_"


def _shortened(part: str) -> str:
    """Return `part` as file systems take it: the end of a longer one is a hash of the whole."""
    data = part.encode("utf-8", "surrogateescape")
    if len(data) <= _MAX_NAME_BYTES:
        return part
    start = data[: _MAX_NAME_BYTES - 37].decode("utf-8", "ignore")
    return f"{start}-{xxhash.xxh64_hexdigest(data)}"
