"""Finished tars + index rows -> every file beside them, `dataset.json` last.

Each file is a function of the manifest alone: no times, no places, the same bytes for the same dataset.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from imgdata.dataset.columns import columns_file, write_columns
from imgdata.dataset.index_parts import write_parts
from imgdata.dataset.index_writing import write_index
from imgdata.dataset.lazy_array import MAX_WHOLE
from imgdata.dataset.manifest import MANIFEST, IndexParts, Manifest, ShardRecord, SplitEntry, json_bytes
from imgdata.errors import ShardError
from imgdata.shards.card import CARD, card
from imgdata.shards.croissant import CROISSANT, croissant
from imgdata.storage.atomic import output_error, write_atomic
from imgdata.storage.reading import file_sha256

__all__ = [
    "TIMM_INFO",
    "ShardRecord",
    "SplitRecord",
    "dali_index_path",
    "is_of_others",
    "sidecar_files",
    "write_dali_index",
    "write_sidecars",
]

TIMM_INFO = "_info.json"

DaliMember = tuple[str, int, int, str]
"""Extension, first data byte, size in bytes, member name."""


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """One split whose tars are finished."""

    name: str
    index_file: str
    shards: tuple[ShardRecord, ...]
    tables: Iterable[pa.Table]
    """The rows of the index, in the order of the shards; each table is asked for when the one before it was written."""
    columns: pa.Table | None = None
    """The samples' fields, as `fields_table` makes it, in the same order; None for no fields."""


def write_sidecars(
    folder: Path,
    facts: Manifest,
    splits: Sequence[SplitRecord],
    *,
    lists: Sequence[str] = (),
    before: Manifest | None = None,
    indices: Mapping[str, SplitEntry] | None = None,
) -> Manifest:
    """Write every sidecar but the DALI indices, which are made with each shard; `dataset.json` comes last.

    `facts` is the manifest but for splits and hashes of files, which are found here; the finished one is returned.
    `lists` names files that were written already, where there was something to list. A `README.md` that is not the
    card of the dataset `before` was written by someone else, and stays. `indices` are entries, by the name of the
    split, whose index was written already. Raises `ShardError` when the tables don't fit the shards, `OutputError` when
    a file can't be written.
    """
    entries = []
    lists = list(lists)
    for split in splits:
        expected = sum(shard.samples for shard in split.shards)
        written_before = (indices or {}).get(split.name)
        entries.append(written_before or _write_index(folder, split, expected))
        if split.columns is not None and split.columns.num_columns:
            if len(split.columns) != expected:
                raise ShardError(f"split {split.name}: columns must have {expected} rows, got {len(split.columns)}")
            lists.append(columns_file(split.index_file))
            write_columns(folder / lists[-1], split.columns)
    manifest = dataclasses.replace(
        facts,
        splits=tuple(entries),
        files={name: file_sha256(folder / name) for name in lists if (folder / name).exists()},
    )
    written = sidecar_files(manifest)
    if CROISSANT not in written and before is not None and CROISSANT in before.files:
        _remove_own(folder / CROISSANT, before)
    if is_of_others(folder / CARD, written[CARD], before):
        del written[CARD]
    for name, data in written.items():
        write_atomic(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}
    manifest = dataclasses.replace(manifest, files=dict(sorted({**manifest.files, **hashes}.items())))
    write_atomic(folder / MANIFEST, manifest.to_bytes())
    if before is not None:
        _remove_old_indices(folder, before, manifest)
    return manifest


def _counted(split: SplitRecord, expected: int) -> Iterator[pa.Table]:
    """Yield the tables of a split. Raises `ShardError` behind the last one when they have more or fewer rows."""
    found = 0
    for table in split.tables:
        found += len(table)
        yield table
        del table
    if found != expected:
        raise ShardError(f"split {split.name}: index must have {expected} rows, got {found}")


def needs_parts(rows: int) -> bool:
    """Return whether an index of so many rows is in parts."""
    return rows > MAX_WHOLE


def _write_index(folder: Path, split: SplitRecord, rows: int) -> SplitEntry:
    return write_any_index(folder, split.name, split.index_file, split.shards, _counted(split, rows))


def write_any_index(
    folder: Path,
    split: str,
    file: str,
    shards: Sequence[ShardRecord],
    tables: Iterable[pa.Table],
    *,
    before: IndexParts | None = None,
) -> SplitEntry:
    """Write the index of a split, in parts where it has many rows; with `before` behind those of that index in parts.

    Raises `ShardError`, `OutputError`.
    """
    if not needs_parts(sum(shard.samples for shard in shards)):
        write_index(folder / file, tables)
        return SplitEntry(split, file, file_sha256(folder / file), tuple(shards))
    parts = write_parts(folder, file, tables, [shard.file for shard in shards], before=before)
    return SplitEntry(split, file, parts.sha256, tuple(shards), parts)


def _remove_old_indices(folder: Path, before: Manifest, manifest: Manifest) -> None:
    """Remove the indices of the same splits that were of one file, and are in parts now, or the other way round."""
    new = {file for split in manifest.splits for file in split.index_files}
    names = {split.name for split in manifest.splits}
    for split in before.splits:
        for file in set(split.index_files) - new if split.name in names else ():
            (folder / file).unlink(missing_ok=True)


def sidecar_files(manifest: Manifest) -> dict[str, bytes]:
    """Name -> bytes of all files that follow from the manifest, but for itself."""
    return {
        TIMM_INFO: timm_info(manifest),
        **{wids_file(manifest, split): wids_index(split) for split in manifest.splits},
        **({CROISSANT: croissant(manifest)} if manifest.has_sha256 else {}),
        CARD: card(manifest),
    }


def is_of_others(path: Path, data: bytes, before: Manifest | None) -> bool:
    """Return whether the file at `path` is neither `data` nor the file that the dataset `before` wrote there."""
    try:
        found = file_sha256(path)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    known = before.files.get(path.name) if before else None
    return found not in (hashlib.sha256(data).hexdigest(), known)


def _remove_own(path: Path, before: Manifest) -> None:
    """Remove a file that the dataset `before` had and this one has not, unless someone else wrote it since."""
    try:
        if file_sha256(path) == before.files[path.name]:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise output_error(error, path) from error


def timm_info(manifest: Manifest) -> bytes:
    """Return `_info.json` of timm's reader."""
    splits = {
        split.name: {
            "name": split.name,
            "num_samples": split.samples,
            "filenames": [shard.file for shard in split.shards],
            "shard_lengths": [shard.samples for shard in split.shards],
        }
        for split in manifest.splits
    }
    return json_bytes({"splits": splits})


def wids_file(manifest: Manifest, split: SplitEntry) -> str:
    """Name of the split's wids index."""
    return f"{manifest.name}-{split.name}.wids.json"


def wids_index(split: SplitEntry) -> bytes:
    """Return webdataset's indexed form (`wids-shard-index-v1`); the tars' hashes are in `dataset.json`."""
    shards = [{"url": s.file, "nsamples": s.samples, "filesize": s.bytes} for s in split.shards]
    return json_bytes({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards})


def dali_index_path(tar: Path) -> Path:
    """Return where DALI looks for the index of `tar`: its base name up to the first dot, with `.idx`."""
    return tar.with_name(tar.name.split(".", 1)[0] + ".idx")


def dali_index(samples: Iterable[Sequence[DaliMember]]) -> bytes:
    """Return NVIDIA DALI's index v1.2: for each sample the extension, data offset, size and name of its members.

    DALI reads it word by word as ASCII, so other characters in names, which serve messages only, become `_`.
    Raises `ShardError` without samples, which DALI refuses.
    """
    return dali_index_of([dali_line(members) for members in samples])


def dali_line(members: Sequence[DaliMember]) -> str:
    """Return the line of one sample in DALI's index."""
    return " ".join(f"{_word(ext)} {offset} {size} {_word(name)}" for ext, offset, size, name in members)


def dali_index_of(lines: Sequence[str]) -> bytes:
    """Return DALI's index of samples with these lines. Raises `ShardError` when there are none."""
    if not lines:
        raise ShardError("a DALI index must have at least one sample, got none")
    text = "\n".join(lines)
    return f"v1.2 {len(lines)}\n{text}\n".encode("ascii")


def write_dali_index(path: Path, samples: Iterable[Sequence[DaliMember]]) -> None:
    """Write `dali_index` of `samples` to `path`."""
    write_atomic(path, dali_index(samples))


def _word(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    return "".join(c if c.isascii() and c.isprintable() and c != " " else "_" for c in text)
