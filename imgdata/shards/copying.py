"""A shard task whose images are stored as they are -> its samples in the tar, by the compiled extension.

The extension reads, probes and hashes one image after the other into the block that the tar is written from, without
Python's lock. An image with which anything is not as usual it leaves to Python, which reads it again: verdicts, retries
and messages have one place.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.images.info import ImageInfo
from imgdata.native.copying import PICTURE_KINDS, TAR_BLOCK, SamplesToCopy
from imgdata.sample import SampleRef
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import ShardTask
from imgdata.shards.record import ShardRows
from imgdata.shards.tar_file import TarFile
from imgdata.sources.readers import PlainReader
from imgdata.storage.file_state import steady_devices

_BATCH = 1024
"""Samples whose columns are made at once."""


def is_copied(task: ShardTask) -> bool:
    """Return whether the extension can copy the images of a task: nothing but their bytes and headers is wanted.

    Further images, which are compared with the pictures, are left to Python.
    """
    return (
        native.AVAILABLE
        and task.json_classes is None
        and not task.members
        and _keeps_bytes(task.options)
        and isinstance(task.reader, PlainReader)
    )


def _keeps_bytes(options: ShardOptions) -> bool:
    return options.check != "decode" and not options.encodes


def copy_samples(task: ShardTask, tar: TarFile, rows: ShardRows, take: Callable[[SampleRef], None]) -> Iterator[int]:
    """Append all samples of the task to `tar` and `rows`; yield now and then how many are done.

    `take` is called for each sample that the extension leaves to Python, when those before it are appended.
    """
    for start in range(0, len(task.refs), _BATCH):
        refs = task.refs[start : start + _BATCH]
        batch = _Batch.of(task, refs)
        done = added = 0
        while done < len(refs):
            is_left = True
            if batch is not None:
                done, is_left = tar.copy(batch.wanted, batch.found_N6, first=done, max_pixels=task.options.max_pixels)
                # Many rows at once take less time.
                if is_left or done == len(refs):
                    _add_rows(rows, task, refs[added:done], batch.found_N6[added:done])
                    added = done
            if is_left:
                take(refs[done])
                done += 1
                added = done
            yield start + done


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Samples as the extension wants them, and room for what it finds."""

    wanted: SamplesToCopy
    found_N6: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, task: ShardTask, refs: Sequence[SampleRef]) -> "_Batch | None":
        """Return the columns; None where samples lie in no file that has a name."""
        assert isinstance(task.reader, PlainReader)
        found = [task.reader.file(ref) for ref in refs]
        starts = [task.reader.start(ref) for ref in refs]
        if None in found:
            return None
        paths = native.zero_ended([str(path) for path in found])
        keys = "".join([f"{ref.key}\0" for ref in refs]).encode("ascii")
        path_at_N, key_at_N = _starts(paths), _starts(keys)
        if len(path_at_N) != len(refs):
            return None
        wanted_N6 = np.empty((len(refs), 6), np.int64)
        wanted_N6[:, 0] = path_at_N
        wanted_N6[:, 1] = key_at_N
        wanted_N6[:, 2] = [ref.size for ref in refs]
        wanted_N6[:, 3] = [-1 if start is None else start for start in starts]
        wanted_N6[:, 4] = [ref.label for ref in refs]
        wanted_N6[:, 5] = [ref.state for ref in refs]
        wanted = SamplesToCopy(
            paths=paths,
            keys=keys,
            wanted_N6=wanted_N6,
            extension=task.extension,
            steady_devices=np.array(sorted(steady_devices()) if task.inodes else [], np.uint64),
        )
        return cls(wanted=wanted, found_N6=np.empty((len(refs), 6), np.int64))


def _starts(names: bytes) -> NDArray[np.int64]:
    """Return where each of the names begins, which all end in a zero."""
    end_N = np.flatnonzero(np.frombuffer(names, np.uint8) == 0)
    return np.concatenate([np.zeros(1, np.int64), end_N[:-1] + 1])


def _add_rows(rows: ShardRows, task: ShardTask, refs: Sequence[SampleRef], found_N6: NDArray[np.int64]) -> None:
    extension = task.extension
    offset_N = found_N6[:, 0]
    rows.refs.extend(refs)
    rows.infos.extend(map(_info, *found_N6[:, 2:].T.tolist()))
    rows.offset.frombytes(offset_N.tobytes())
    rows.size.extend([ref.size for ref in refs])
    rows.xxh64.frombytes(found_N6[:, 1].tobytes())
    for ref, offset in zip(refs, offset_N.tolist(), strict=True):
        size, key = ref.size, ref.key
        if ref.label >= 0:
            # The label stands before the image: a header, and one block of data.
            label_at, digits = offset - 2 * TAR_BLOCK, len(str(ref.label))
            rows.names.append(f"{key}.cls\0{key}.{extension}\0")
            rows.places.extend((label_at, digits, offset, size))
            rows.dali.append(f"cls {label_at} {digits} {key}.cls {extension} {offset} {size} {key}.{extension}")
        else:
            rows.names.append(f"{key}.{extension}\0")
            rows.places.extend((offset, size))
            rows.dali.append(f"{extension} {offset} {size} {key}.{extension}")


@functools.lru_cache(1 << 14)
def _info(width: int, height: int, kind: int, orientation: int) -> ImageInfo:
    """Return the facts of a picture; many have the same."""
    format, mode = PICTURE_KINDS[kind]
    return ImageInfo(format, width, height, mode, 8, orientation)
