"""One shard task -> one tar, its DALI index and its record; a pure function of the task."""

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import xxhash

from imgdata.dataset.manifest import HashKind
from imgdata.errors import ImageError, ShardError
from imgdata.images.info import ImageInfo
from imgdata.sample import ClassName, SampleRef
from imgdata.shards.hashing import new_hash
from imgdata.shards.plan import ShardTask
from imgdata.shards.prepare import Prepared, read_and_prepare
from imgdata.shards.record import Note, Reject, Repair, ShardReport, ShardRows, job_folder, write_record
from imgdata.shards.sidecars import dali_index_path, write_dali_index
from imgdata.storage.atomic import output_error, sync_folder
from imgdata.tar.archive import BLOCK, END_OF_ARCHIVE, members, ustar_header

PROGRESS_SECONDS = 0.1
"""Seconds between two reports of a worker's progress; a worker can be stopped at each."""
FLUSH_BYTES = 4 << 20

AHEAD_PER_THREAD = 4
"""Images in memory for each thread that prepares them."""

Progress = Callable[[int, int, int], None]
"""Callback that gets what was done since the last call: samples, bytes, rejects."""

_PADDING = bytes(BLOCK)


def _unheard(samples: int, num_bytes: int, rejects: int) -> None:
    """Drop the progress of a shard that nobody watches."""


def write_shard(task: ShardTask, progress: Progress = _unheard, *, threads: int = 1) -> ShardReport:
    """Write the shard under a temporary name, sync it, check it, and only then give it its name.

    `progress(samples, bytes, rejects)` is called with what was done since the last call. `threads` prepare
    images at the same time; they change nothing in the result. Raises `ImageError` for the first bad image
    when the options say so, `OutputError` when the disk is full. A shard of which nothing is left, because
    every image was bad, gets a record but no tar.
    """
    temporary = job_folder(task.folder) / f"{task.file}.{os.getpid()}.tmp"
    final = task.folder / task.file
    rows = ShardRows()
    rejects: list[Reject] = []
    repairs: list[Repair] = []
    notes: dict[str, Note] = {}
    try:
        with TarFile(temporary, task.options.hash) as tar:
            told, told_at = (0, 0, 0), time.monotonic()
            for number, (ref, prepared) in enumerate(_prepare_all(task, threads), 1):
                if isinstance(prepared, ImageError):
                    if task.options.on_bad == "fail":
                        raise ImageError(prepared.reason, f"{ref.name}: {prepared.detail}") from prepared
                    rejects.append(Reject(task.split, ref.name, prepared.reason, prepared.detail))
                else:
                    _add(tar, rows, task, ref, prepared)
                    if prepared.repairs:
                        repairs.append(Repair(task.split, ref.key, ref.name, prepared.repairs))
                    for text in prepared.notes:
                        notes[text] = notes.get(text, Note(text, ref.name, 0)).again()
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
            repairs=tuple(repairs),
            notes=tuple(notes.values()),
        )
        if len(rows):
            _check_written(temporary, rows)
            write_dali_index(dali_index_path(final), rows.members)
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


def _prepare_all(task: ShardTask, threads: int) -> Iterator[tuple[SampleRef, Prepared | ImageError]]:
    """Yield every reference of the task, in order, with its image as it is to be stored, or why that image is bad."""

    def prepared(ref: SampleRef) -> Prepared | ImageError:
        try:
            return read_and_prepare(task.reader, ref, task.options, task.extension)
        except ImageError as error:
            return error

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


def _add(tar: "TarFile", rows: ShardRows, task: ShardTask, ref: SampleRef, prepared: Prepared) -> None:
    """Append one sample: its members in the order of their names, as webdataset's writer has them."""
    data, info = prepared.data, prepared.info
    parts = [(task.extension, data)]
    if ref.label >= 0:
        parts.insert(0, ("cls", b"%d" % ref.label))
    if task.json_classes is not None:
        parts.append(("json", _json_member(task.json_classes, ref, info)))
        parts.sort()
    written = []
    for extension, part in parts:
        name = f"{ref.key}.{extension}"
        offset = tar.add(name.encode("ascii"), part)
        written.append((extension, offset, len(part), name))
        if extension == task.extension:
            rows.add(ref, info, offset, len(part), xxhash.xxh64_intdigest(part))
            if prepared.original_xxh64 is not None:
                rows.crop_ready.append((prepared.interval, prepared.original_xxh64))
        elif extension == "json":
            rows.json.append((offset, len(part), xxhash.xxh64_intdigest(part)))
    rows.members.append(written)


def _json_member(classes: Sequence[ClassName], ref: SampleRef, info: ImageInfo) -> bytes:
    values: dict[str, object] = {"source": ref.name, "width": info.width, "height": info.height}
    if ref.label >= 0:
        values["class_id"], values["class_name"] = classes[ref.label]
    if ref.fields:
        values |= json.loads(ref.fields)
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _check_written(path: Path, rows: ShardRows) -> None:
    """Walk the finished tar with the reader's own eyes: every member where the index will say it is."""
    try:
        found = [(member.name, member.offset, member.size) for member in members(path)]
    except ShardError as error:
        raise ShardError(f"{error}; the disk or the memory of this machine may be faulty") from error
    expected = [(name, offset, size) for sample in rows.members for _, offset, size, name in sample]
    if found != expected:
        raise ShardError(f"{path}: what was written is not what was meant; the disk may be faulty")


class TarFile:
    """A USTAR archive written from start to end.

    Blocks of members are hashed and written by a thread of its own, in calls long enough that Python's lock
    is no matter: two thirds of the time that copying takes then pass beside the reading.
    """

    def __init__(self, path: Path, hash: HashKind) -> None:
        self.position = 0
        self._chunks: list[bytes | bytearray] = []
        self._pending = 0
        self._hash = new_hash(hash)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> "TarFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()
        os.close(self._descriptor)

    def add(self, name: bytes, data: bytes) -> int:
        """Append a member; returns the position of its first data byte."""
        offset = self.position + BLOCK
        padding = _PADDING[: -len(data) % BLOCK]
        self._chunks += (ustar_header(name, len(data)), data, padding)
        size = BLOCK + len(data) + len(padding)
        self.position += size
        self._pending += size
        if self._pending >= FLUSH_BYTES:
            self._flush()
        return offset

    def finish(self) -> str:
        """Write the end marker, sync the file; returns the hash of all its bytes in hexadecimal."""
        self._chunks.append(END_OF_ARCHIVE)
        self.position += len(END_OF_ARCHIVE)
        self._flush()
        self._wait()
        os.fsync(self._descriptor)
        return self._hash.hexdigest()

    def _flush(self) -> None:
        """Hand on what is there; one block is written while the next one is filled."""
        block = b"".join(self._chunks)
        self._chunks = []
        self._pending = 0
        self._wait()
        self._writing = self._writer.submit(self._write, block)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, block: bytes) -> None:
        self._hash.update(block)
        left = memoryview(block)
        while left:
            left = left[os.write(self._descriptor, left) :]
