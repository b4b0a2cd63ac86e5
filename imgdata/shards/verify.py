"""Dataset folder -> faults: tars, index and sidecars compared with each other, byte by byte."""

import re
from collections.abc import Callable
from hashlib import sha256 as new_sha256
from pathlib import Path

from imgdata.dataset.index import Index
from imgdata.dataset.manifest import (
    MANIFEST,
    Manifest,
    ShardRecord,
    SplitEntry,
    is_as_written,
)
from imgdata.dataset.split import open_index
from imgdata.errors import ShardError
from imgdata.shards.card import CARD
from imgdata.shards.hashing import file_hash
from imgdata.shards.parallel import in_threads
from imgdata.shards.remote_copy import Shard, on_this_machine
from imgdata.shards.sidecars import dali_index_path, sidecar_files
from imgdata.shards.verify_shard import Fault, ShardRows, check_shard, first_difference
from imgdata.shards.verify_versions import check_versions, is_being_appended
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import MAX_JSON_BYTES, file_sha256, read_file

__all__ = ["Fault", "verify"]


def verify(
    out: str | Path,
    *,
    deep: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Fault]:
    """Check the dataset in the folder `out` (or that of its `dataset.json`), or at a URL: each shard is copied for it.

    An empty list means that every byte of every file imgdata wrote is as it was written; a fault that is not
    `serious` means a `README.md` that was edited since. `deep` decodes every image as well. `progress(done, total)`
    is called after every checked shard. Raises `ShardError` when the folder is no finished dataset, so that there is
    nothing to compare with.

    Shards are compared with the hash that they have. Of one without a hash (`hash="none"`), images are compared with
    their hashes in the index, labels with the index, and headers and padding with what imgdata writes: for tars of its
    own that is every byte as well; in tars from elsewhere times and owners are in no hash.
    """
    with on_this_machine(out) as (folder, manifest, shard):
        return _faults(folder, manifest, shard, deep, workers, progress)


def _faults(
    folder: Path,
    manifest: Manifest,
    here: Shard,
    deep: bool,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[Fault]:
    faults = _check_manifest(folder) + _check_files(folder, manifest) + _check_extra(folder, manifest)
    faults += check_versions(folder, manifest)
    jobs: list[tuple[ShardRecord, Index | None, int]] = []
    for split in manifest.splits:
        index, index_faults = _open_index(folder, split, manifest)
        faults += index_faults
        start = 0
        for shard in split.shards:
            jobs.append((shard, index, start))
            start += shard.samples

    def check(job: tuple[ShardRecord, Index | None, int]) -> list[Fault]:
        with here(job[0].file):
            return _check(folder, *job, manifest, deep)

    for found in in_threads(check, jobs, workers=workers, progress=progress):
        faults += found
    return faults


_REBUILD = "rebuild the sidecars with `imgdata index` on the folder"


def _check(
    folder: Path, shard: ShardRecord, index: Index | None, start: int, manifest: Manifest, deep: bool
) -> list[Fault]:
    rows = None if index is None else _rows(index, shard, start)
    misplaced = []
    if index is not None and rows is None:
        misplaced = [Fault(index.path.name, "", -1, f"rows of {shard.file} are not where they must be; {_REBUILD}")]
    return misplaced + _check_tar(folder, shard, rows, manifest, deep)


def _check_tar(folder: Path, shard: ShardRecord, rows: ShardRows | None, manifest: Manifest, deep: bool) -> list[Fault]:
    path = folder / shard.file
    try:
        size = path.stat().st_size
        digest = file_hash(path, shard.hash)
    except OSError as error:
        return [Fault(shard.file, "", -1, f"can't be read: {error.strerror or error}")]
    faults = []
    if size != shard.bytes:
        what = "cut short" if size < shard.bytes else "too long"
        faults.append(Fault(shard.file, "", min(size, shard.bytes), f"{what}: {size} bytes, must be {shard.bytes}"))
    intact = digest == shard.digest and shard.hash != "none"
    if rows is not None:
        faults += check_shard(path, rows, manifest, deep=deep, intact=intact)
    if digest != shard.digest and not faults:
        unnamed = "no image, label or header shows where" if rows is not None else "the index is damaged as well"
        faults.append(Fault(shard.file, "", -1, f"{shard.hash} is {digest}, must be {shard.digest}; {unnamed}"))
    return faults


def _open_index(folder: Path, split: SplitEntry, manifest: Manifest) -> tuple[Index | None, list[Fault]]:
    """Open the index and return it with its faults; None for a damaged index, whose rows can't be trusted."""
    path = folder / split.index
    try:
        differing = _differing(folder, split)
        if differing:
            return None, differing
        index = open_index(DatasetFolder(folder), split, len(manifest.classes))
        index.load(index.names)
    except ShardError as error:
        return None, [Fault(split.index, "", -1, str(error).removeprefix(f"{path}: "))]
    named = {member.name for member in manifest.members}
    if set(index.members) != named:
        what = f"further images are {sorted(index.members)}, must be {sorted(named)}; {_REBUILD}"
        return None, [Fault(split.index, "", -1, what)]
    if len(index) == split.samples:
        return index, []
    return index, [Fault(split.index, "", -1, f"{len(index)} rows, must be {split.samples}; {_REBUILD}")]


def _differing(folder: Path, split: SplitEntry) -> list[Fault]:
    """Return a fault for each file of the index that isn't as it was written."""
    hashes = {split.index: split.index_sha256}
    if split.parts is not None:
        pairs = [((part.file, part.sha256), (part.places, part.places_sha256)) for part in split.parts.parts]
        hashes = dict(one for pair in pairs for one in pair)
    faults = []
    for name, expected in hashes.items():
        try:
            sha256 = file_sha256(folder / name)
        except FileNotFoundError:
            faults.append(Fault(name, "", -1, f"missing; {_REBUILD}"))
        except OSError as error:
            faults.append(Fault(name, "", -1, f"can't be read: {error.strerror or error}"))
        else:
            if sha256 != expected:
                faults.append(Fault(name, "", -1, f"sha256 is {sha256}, must be {expected}; {_REBUILD}"))
    return faults


def _rows(index: Index, shard: ShardRecord, start: int) -> ShardRows | None:
    """Return the rows of `shard`, which begin at row `start`; None when others are there."""
    end = start + shard.samples
    words = index.words("shard")
    if end > len(index) or shard.file not in words:
        return None
    if (index.shard_N[start:end] != words.index(shard.file)).any():
        return None
    return ShardRows(index, start, end)


def _check_manifest(folder: Path) -> list[Fault]:
    data = read_file(folder / MANIFEST, MAX_JSON_BYTES)
    if is_as_written(data):
        return []
    return [Fault(MANIFEST, "", -1, f"changed since it was written: its own sha256 is another; {_REBUILD}")]


def _check_files(folder: Path, manifest: Manifest) -> list[Fault]:
    """Compare the sidecars with the hashes in the manifest; where it can be made again, with the file itself."""
    faults = []
    again = sidecar_files(manifest)
    for name, sha256 in manifest.files.items():
        way_out = "copy it again" if name.endswith(".jsonl") else _REBUILD
        try:
            same = file_sha256(folder / name) == sha256
            # The lists of bad images may be long; only short files are compared byte by byte.
            found = b"" if same else read_file(folder / name, MAX_JSON_BYTES)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            what = f"missing; {way_out}" if missing else f"can't be read: {error.strerror or error}"
            faults.append(Fault(name, "", -1, what))
            continue
        if same:
            continue
        # Another version of imgdata may have made it otherwise.
        written = again.get(name, b"")
        byte = first_difference(found, written) if new_sha256(written).hexdigest() == sha256 else None
        place = -1 if byte is None else byte
        if name == CARD:
            faults.append(Fault(name, "", place, "edited since it was written; no reader depends on it", serious=False))
        else:
            faults.append(Fault(name, "", place, f"not as it was written; {way_out}"))
    return faults


def _check_extra(folder: Path, manifest: Manifest) -> list[Fault]:
    tars = {shard.file for split in manifest.splits for shard in split.shards}
    indices = {dali_index_path(folder / tar).name for tar in tars}
    extra_tars = sorted(path.name for path in folder.glob("*.tar") if path.name not in tars)
    extra_indices = sorted(path.name for path in folder.glob("*.idx") if path.name not in indices)
    if is_being_appended(folder):
        # They were moved in, and dataset.json is about to list them; readers see the version before.
        what = "of an append that was interrupted; the same command ends it"
        return [Fault(name, "", -1, what, serious=False) for name in (*extra_tars, *extra_indices)]
    faults = [Fault(name, "", -1, "not listed in dataset.json; move it away") for name in extra_tars]
    for name in extra_indices:
        # Such as Energon's, `x.tar.idx`. A file that DALI would read is the index of a tar that is missing.
        tar = name.removesuffix(".idx")
        if tar in tars or not _IDX_OF_SHARD.fullmatch(name):
            faults.append(Fault(name, "", -1, "a sidecar of another program; left alone", serious=False))
        else:
            faults.append(Fault(name, "", -1, "not listed in dataset.json; move it away"))
    return faults


_IDX_OF_SHARD = re.compile(r"[^.]+\.idx")
