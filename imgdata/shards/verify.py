"""Dataset folder -> faults: tars, index and sidecars compared with each other, byte by byte."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.dataset.index import Index
from imgdata.errors import ShardError
from imgdata.manifest import Manifest, ShardRecord, SplitEntry, read_manifest
from imgdata.sample import ClassName
from imgdata.shards.croissant import CROISSANT
from imgdata.shards.fault import Fault
from imgdata.shards.sidecars import TIMM_INFO, dali_index_path, timm_info, wids_file, wids_index
from imgdata.shards.verify_shard import ShardRows, check_shard

__all__ = ["Fault", "verify"]


def verify(
    out: str | Path,
    *,
    deep: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Fault]:
    """Check the dataset in the folder `out`; an empty list means that every byte is as it was written.

    `deep` decodes every image as well. `progress(done, total)` hears of every checked shard. Raises `ShardError`
    when the folder is no finished dataset, so that there is nothing to compare with.
    """
    folder = Path(out)
    manifest = read_manifest(folder)
    faults = _check_sidecars(folder, manifest) + _check_extra(folder, manifest)
    jobs: list[tuple[ShardRecord, ShardRows | None]] = []
    for split in manifest.splits:
        index, index_faults = _open_index(folder, split)
        faults += index_faults
        start = 0
        for shard in split.shards:
            rows = None if index is None else _rows(index, shard, start)
            start += shard.samples
            if index is not None and rows is None:
                faults.append(
                    Fault(split.index, "", -1, f"rows of {shard.file} are not where they must be; {_REBUILD}")
                )
            jobs.append((shard, rows))
    known = _Known(manifest.label_from, manifest.classes, manifest.source.get("kind") != "index", deep)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # Hashing and decoding leave the interpreter to the other threads.
        running = [pool.submit(_check, folder, shard, rows, known) for shard, rows in jobs]
        try:
            for done, job in enumerate(running, 1):
                faults += job.result()
                if progress is not None:
                    progress(done, len(running))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return faults


_REBUILD = "rebuild the sidecars with `imgdata index` on the folder"


@dataclass(frozen=True, slots=True)
class _Known:
    """What holds for all shards."""

    label_from: str
    classes: tuple[ClassName, ...]
    own: bool
    """Written by imgdata, so that every header byte is known."""
    deep: bool


def _check(folder: Path, shard: ShardRecord, rows: ShardRows | None, known: _Known) -> list[Fault]:
    path = folder / shard.file
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return [Fault(shard.file, "", -1, f"can't be read: {error.strerror or error}")]
    faults = []
    if size != shard.bytes:
        what = "cut short" if size < shard.bytes else "too long"
        faults.append(Fault(shard.file, "", min(size, shard.bytes), f"{what}: {size} bytes, must be {shard.bytes}"))
    if rows is not None:
        faults += check_shard(
            path,
            rows,
            label_from=known.label_from,
            classes=known.classes,
            own=known.own,
            deep=known.deep,
            intact=sha256 == shard.sha256,
        )
    if sha256 != shard.sha256 and not faults:
        unnamed = "no image, label or header shows where" if rows is not None else "the index is damaged as well"
        faults.append(Fault(shard.file, "", -1, f"sha256 is {sha256}, must be {shard.sha256}; {unnamed}"))
    return faults


def _open_index(folder: Path, split: SplitEntry) -> tuple[Index | None, list[Fault]]:
    path = folder / split.index
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        faults = (
            []
            if sha256 == split.index_sha256
            else [Fault(split.index, "", -1, f"sha256 is {sha256}, must be {split.index_sha256}; {_REBUILD}")]
        )
        index = Index(path)
        index.load(index.names)
    except FileNotFoundError:
        return None, [Fault(split.index, "", -1, f"missing; {_REBUILD}")]
    except ShardError as error:
        return None, [Fault(split.index, "", -1, str(error))]
    except OSError as error:
        return None, [Fault(split.index, "", -1, f"can't be read: {error.strerror or error}")]
    if len(index) != split.samples:
        faults.append(Fault(split.index, "", -1, f"{len(index)} rows, must be {split.samples}; {_REBUILD}"))
    return index, faults


def _rows(index: Index, shard: ShardRecord, start: int) -> ShardRows | None:
    """The rows of `shard`, which begin at row `start`; None when others are there."""
    end = start + shard.samples
    words = index.words("shard")
    if end > len(index) or shard.file not in words:
        return None
    if (index.shard_N[start:end] != words.index(shard.file)).any():
        return None
    return ShardRows(index, start, end)


def _check_sidecars(folder: Path, manifest: Manifest) -> list[Fault]:
    expected = {TIMM_INFO: timm_info(manifest)}
    expected |= {wids_file(manifest, split): wids_index(split) for split in manifest.splits}
    faults = []
    for name, data in expected.items():
        found = _json(folder / name)
        if isinstance(found, Fault):
            faults.append(found)
        elif found != json.loads(data):
            faults.append(Fault(name, "", -1, f"says otherwise than dataset.json; {_REBUILD}"))
    found = _json(folder / CROISSANT)
    if isinstance(found, Fault):
        faults.append(found)
    elif _croissant_hashes(found) != {
        **{shard.file: shard.sha256 for split in manifest.splits for shard in split.shards},
        **{split.index: split.index_sha256 for split in manifest.splits},
    }:
        faults.append(Fault(CROISSANT, "", -1, f"lists other files than dataset.json; {_REBUILD}"))
    return faults


def _json(path: Path) -> Any:
    """The parsed file, or the fault that keeps it from being one."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return Fault(path.name, "", -1, f"missing; {_REBUILD}")
    except OSError as error:
        return Fault(path.name, "", -1, f"can't be read: {error.strerror or error}")
    except ValueError as error:
        return Fault(path.name, "", -1, f"no JSON: {error}; {_REBUILD}")


def _croissant_hashes(content: Any) -> dict[str, str]:
    entries = content.get("distribution", ()) if isinstance(content, dict) else ()
    return {entry["@id"]: entry["sha256"] for entry in entries if "@id" in entry and "sha256" in entry}


def _check_extra(folder: Path, manifest: Manifest) -> list[Fault]:
    tars = {shard.file for split in manifest.splits for shard in split.shards}
    indices = {dali_index_path(folder / tar).name for tar in tars}
    extra_tars = sorted(path.name for path in folder.glob("*.tar") if path.name not in tars)
    extra_indices = sorted(path.name for path in folder.glob("*.idx") if path.name not in indices)
    return [Fault(name, "", -1, "not listed in dataset.json; move it away") for name in extra_tars + extra_indices]
