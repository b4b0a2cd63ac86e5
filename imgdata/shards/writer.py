"""One shard task -> one tar, its DALI index and its record; a pure function of the task."""

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import xxhash

from imgdata import native
from imgdata.errors import ImageError, ShardError
from imgdata.images.info import ImageInfo
from imgdata.sample import ClassName, SampleRef
from imgdata.shards.copying import copy_samples, is_copied
from imgdata.shards.plan import ShardTask
from imgdata.shards.prepare import Prepared, read_and_prepare
from imgdata.shards.record import NO_MEMBER, Note, Reject, Repair, ShardReport, ShardRows, job_folder, write_record
from imgdata.shards.sidecars import DaliMember, dali_index_of, dali_index_path, dali_line
from imgdata.shards.store_readers import READS, reading_ahead, reads_objects
from imgdata.shards.tar_file import TarFile
from imgdata.storage.atomic import output_error, sync_folder, write_atomic
from imgdata.tar.archive import members, open_tar

PROGRESS_SECONDS = 0.1
"""Seconds between two reports of a worker's progress; a worker can be stopped at each."""

AHEAD_PER_THREAD = 4
"""Images in memory for each thread that prepares them."""

Progress = Callable[[int, int, int], None]
"""Callback that gets what was done since the last call: samples, bytes, rejects."""


def _unheard(samples: int, num_bytes: int, rejects: int) -> None:
    """Drop the progress of a shard that nobody watches."""


def write_shard(
    task: ShardTask,
    progress: Progress = _unheard,
    *,
    threads: int = 1,
    has_spare_core: Callable[[], bool] = lambda: True,
) -> ShardReport:
    """Write the shard under a temporary name, sync it, check it, and only then give it its name.

    `progress(samples, bytes, rejects)` is called with what was done since the last call. `threads` prepare
    images at the same time, and while there is a spare core others hash and write; they change nothing in the result.
    Raises `ImageError` for the first bad image when the options say so, `OutputError` when the disk is full. A shard of
    which nothing is left, because every image was bad, gets a record but no tar.
    """
    if reads_objects(task.reader):
        threads = max(threads, READS)
    temporary = job_folder(task.folder) / f"{task.file}.{os.getpid()}.tmp"
    final = task.folder / task.file
    try:
        with (
            reading_ahead(task.reader, task.refs) as reader,
            TarFile(temporary, task.options.hash, has_spare_core=has_spare_core) as tar,
        ):
            shard = _Shard(replace(task, reader=reader), tar)
            rows, rejects = shard.rows, shard.rejects
            told, told_at = (0, 0, 0), time.monotonic()
            for number in shard.fill(threads):
                if time.monotonic() - told_at > PROGRESS_SECONDS or number == len(task.refs):
                    now = (number, tar.position, len(rejects))
                    progress(now[0] - told[0], now[1] - told[1], now[2] - told[2])
                    told, told_at = now, time.monotonic()
            digest = tar.finish()
        report = ShardReport(
            file=task.file,
            split=task.split,
            samples=len(rows),
            bytes=tar.position if len(rows) else 0,
            digest=digest if len(rows) else "",
            hash=task.options.hash,
            rejects=tuple(rejects),
            repairs=tuple(shard.repairs),
            notes=tuple(shard.notes.values()),
        )
        if len(rows):
            _check_written(temporary, rows)
            write_atomic(dali_index_path(final), dali_index_of(rows.dali))
        # The record comes first: a tar under its final name then always has one, and a record
        # whose tar is missing or of another size counts for nothing.
        write_record(task.folder, report, rows)
        if len(rows):
            os.replace(temporary, final)
            sync_folder(task.folder)
    except OSError as error:
        raise output_error(error, final) from error
    finally:
        # The error that brought us here matters more; what is left behind is swept by the next run.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return report


class _Shard:
    """What is in the tar so far, and what was not put into it."""

    def __init__(self, task: ShardTask, tar: TarFile) -> None:
        self._task = task
        self._tar = tar
        self.rows = ShardRows(member_names=tuple(member.name for member in task.members))
        self.rejects: list[Reject] = []
        self.repairs: list[Repair] = []
        self.notes: dict[str, Note] = {}

    def fill(self, threads: int) -> Iterator[int]:
        """Append all samples of the task; yield now and then how many are done. `threads` prepare images."""
        if is_copied(self._task):
            yield from copy_samples(self._task, self._tar, self.rows, lambda ref: self._take(ref, self._prepared(ref)))
            return
        for number, (ref, prepared) in enumerate(_prepare_all(self._task, threads, self._prepared), 1):
            self._take(ref, prepared)
            yield number

    def _prepared(self, ref: SampleRef) -> Prepared | ImageError:
        try:
            task = self._task
            return read_and_prepare(task.reader, ref, task.options, task.extension, task.members, task.required)
        except ImageError as error:
            return error

    def _take(self, ref: SampleRef, prepared: Prepared | ImageError) -> None:
        """Append one sample, or note why it is left out. Raises `ImageError` where a bad image ends the run."""
        task = self._task
        if isinstance(prepared, ImageError):
            if task.options.on_bad == "fail":
                raise ImageError(prepared.reason, f"{ref.name}: {prepared.detail}") from prepared
            self.rejects.append(Reject(task.split, ref.name, prepared.reason, prepared.detail))
            return
        _add(self._tar, self.rows, task, ref, prepared)
        if prepared.repairs:
            self.repairs.append(Repair(task.split, ref.key, ref.name, prepared.repairs))
        for text in prepared.notes:
            self.notes[text] = self.notes.get(text, Note(text, ref.name, 0)).again()


def _prepare_all(
    task: ShardTask, threads: int, prepared: Callable[[SampleRef], Prepared | ImageError]
) -> Iterator[tuple[SampleRef, Prepared | ImageError]]:
    """Yield every reference of the task, in order, with its image as it is to be stored, or why that image is bad."""
    if threads == 1:
        yield from ((ref, prepared(ref)) for ref in task.refs)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[SampleRef, Future[Prepared | ImageError]]] = deque()
        for ref in task.refs:
            ahead.append((ref, pool.submit(prepared, ref)))
            if len(ahead) > AHEAD_PER_THREAD * threads:
                first, future = ahead.popleft()
                yield first, future.result()
        for ref, future in ahead:
            yield ref, future.result()


def _add(tar: TarFile, rows: ShardRows, task: ShardTask, ref: SampleRef, prepared: Prepared) -> None:
    """Append one sample: its members in the order of their names, as webdataset's writer has them."""
    data, info = prepared.data, prepared.info
    parts = [(task.extension, data)]
    if ref.label >= 0:
        parts.insert(0, ("cls", b"%d" % ref.label))
    if task.json_classes is not None:
        parts.append(("json", _json_member(task.json_classes, ref, info)))
    parts += [(member.extension, member.data) for member in prepared.members if member.data]
    parts.sort()
    offsets: dict[str, int] = {}
    written: list[DaliMember] = []
    for extension, part in parts:
        name = f"{ref.key}.{extension}"
        offset = tar.add(name.encode("ascii"), part)
        offsets[extension] = offset
        written.append((extension, offset, len(part), name))
        if extension == task.extension:
            rows.add(ref, info, offset, len(part), xxhash.xxh64_intdigest(part))
            if prepared.original_xxh64 is not None:
                rows.crop_ready.append((prepared.interval, prepared.original_xxh64))
        elif extension == "json":
            rows.json.append((offset, len(part), xxhash.xxh64_intdigest(part)))
        rows.places.extend((offset, len(part)))
    if prepared.members:
        rows.members.append(
            [
                (offsets.get(one.extension, 0), len(one.data), one.format, xxhash.xxh64_intdigest(one.data))
                if one.data
                else NO_MEMBER
                for one in prepared.members
            ]
        )
    rows.names.append("".join(f"{name}\0" for *_, name in written))
    rows.dali.append(dali_line(written))


def _json_member(classes: Sequence[ClassName], ref: SampleRef, info: ImageInfo) -> bytes:
    values: dict[str, object] = {"source": ref.name, "width": info.width, "height": info.height}
    if ref.label >= 0:
        values["class_id"], values["class_name"] = classes[ref.label]
    if ref.fields:
        values |= json.loads(ref.fields)
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _is_as_meant(path: Path, rows: ShardRows) -> bool:
    with open_tar(path) as file:
        place_M2 = np.frombuffer(rows.places, np.int64).reshape(-1, 2)
        return native.is_tar_of(file.fileno(), "".join(rows.names).encode("ascii"), place_M2)


def _check_written(path: Path, rows: ShardRows) -> None:
    """Read the headers of the finished tar: every member has to be where the index will say it is, and nothing else."""
    if native.AVAILABLE and _is_as_meant(path, rows):
        return
    # With the reader's own eyes, which say what is wrong.
    try:
        found = [(member.name, member.offset, member.size) for member in members(path)]
    except ShardError as error:
        raise ShardError(f"{error}; the disk or the memory of this machine may be faulty") from error
    names = "".join(rows.names).split("\0")[:-1]
    if found != list(zip(names, rows.places[::2], rows.places[1::2], strict=True)):
        raise ShardError(f"{path}: what was written is not what was meant; the disk may be faulty")
