"""Dataset folder -> faults: tars, index and sidecars compared with each other, byte by byte."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Literal

from imgdata.cluster import RayEngine, RayOptions, cluster_options
from imgdata.dataset.index import Index
from imgdata.dataset.manifest import (
    MANIFEST,
    Manifest,
    ShardRecord,
    SplitEntry,
    is_as_written,
)
from imgdata.dataset.split import open_index
from imgdata.errors import OptionError, ShardError
from imgdata.shards.card import CARD
from imgdata.shards.parallel import in_threads
from imgdata.shards.remote_copy import on_this_machine
from imgdata.shards.sidecars import dali_index_path, sidecar_files
from imgdata.shards.verify_by_ray import checked_by_ray
from imgdata.shards.verify_shard import Fault, ShardRows, check_tar, first_difference
from imgdata.shards.verify_versions import check_versions, is_being_appended
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.local_paths import url_scheme
from imgdata.storage.reading import MAX_JSON_BYTES, file_sha256, read_file

__all__ = ["Fault", "verify"]


def verify(
    out: str | Path,
    *,
    deep: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    engine: Literal["local", "ray"] | RayOptions = "local",
    retried: Callable[[str], None] = lambda what: None,
) -> list[Fault]:
    """Check the dataset in the folder `out` (or that of its `dataset.json`), or at a URL: each shard is copied for it.

    An empty list means that every byte of every file imgdata wrote is as it was written; a fault that is not
    `serious` means a `README.md` that was edited since. `deep` decodes every image as well. `progress(done, total)`
    is called after every checked shard. Raises `ShardError` when the folder is no finished dataset, so that there is
    nothing to compare with.

    Shards are compared with the hash that they have. Of one without a hash (`hash="none"`), images are compared with
    their hashes in the index, labels with the index, and headers and padding with what imgdata writes: for tars of its
    own that is every byte as well; in tars from elsewhere times and owners are in no hash.

    The `engine` is `local`, with `workers` threads of this machine, or `ray`, a cluster (`RayOptions` says which),
    whose machines reach the dataset by the same path or URL: each shard is a task. `retried` gets a sentence for each
    task that is tried again.
    """
    cluster = cluster_options(engine)
    if cluster is not None and workers is not None:
        raise OptionError("workers is for engine 'local'; the threads of a Ray task are its task_cpus")
    ray = None if cluster is None else RayEngine(cluster, told=retried)
    if ray is not None:
        ray.check()
    with on_this_machine(out) as (folder, manifest, shard):
        faults = _check_manifest(folder) + _check_files(folder, manifest) + _check_extra(folder, manifest)
        faults += check_versions(folder, manifest)
        jobs, index_faults = _jobs(folder, manifest)
        faults += index_faults
        max_pixels = manifest.max_pixels if deep else None

        def check(job: _Job) -> list[Fault]:
            rows, misplaced = job.rows()
            with shard(job.shard.file):
                return misplaced + check_tar(folder, job.shard, rows, manifest, max_pixels)

        if ray is None:
            found = in_threads(check, jobs, workers=workers, progress=progress)
        else:
            place = str(out) if url_scheme(out) is not None else str(folder.absolute())
            found = checked_by_ray(
                ray, place, manifest, max_pixels, [job.shard for job in jobs], lambda n: jobs[n].rows(), progress
            )
        for some in found:
            faults += some
    return faults


_REBUILD = "rebuild the sidecars with `imgdata index` on the folder"


@dataclass(frozen=True, slots=True)
class _Job:
    """A shard that has to be checked."""

    shard: ShardRecord
    index: Index | None
    """The index that has its samples; None for a damaged one."""
    start: int
    """Its first row there."""

    def rows(self) -> tuple[ShardRows | None, list[Fault]]:
        """Return what the index says of the shard, and a fault where other rows are in its place."""
        if self.index is None:
            return None, []
        rows = _rows(self.index, self.shard, self.start)
        if rows is not None:
            return rows, []
        what = f"rows of {self.shard.file} are not where they must be; {_REBUILD}"
        return None, [Fault(self.index.path.name, "", -1, what)]


def _jobs(folder: Path, manifest: Manifest) -> tuple[list[_Job], list[Fault]]:
    """Return all shards with their rows, and the faults of the indices."""
    jobs, faults = [], []
    for split in manifest.splits:
        index, index_faults = _open_index(folder, split, manifest)
        faults += index_faults
        start = 0
        for shard in split.shards:
            jobs.append(_Job(shard, index, start))
            start += shard.samples
    return jobs, faults


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
    try:
        data = read_file(folder / MANIFEST, MAX_JSON_BYTES)
    except OSError as error:
        return [Fault(MANIFEST, "", -1, f"can't be read: {error.strerror or error}")]
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
