"""A listed sample -> its raw bytes, from the file that was listed; errors of the system are not the image's fault.

A fault of the bytes (`ImageError`) leaves an image out of the dataset for good, so nothing else may look like one. A
read that fails because of the system (an I/O error, too many open files, a stale handle, no memory) is tried again for
some seconds, and stops the run if the failure lasts: the same command resumes then, with every image.
"""

import errno
import functools
import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata import native
from imgdata.errors import SourceError
from imgdata.sample import SampleRef
from imgdata.sources.listing import Listing, Reader
from imgdata.sources.readers import LEADS_NOWHERE
from imgdata.storage.file_state import both_states, states_of, steady_inode, steady_inodes

RETRY_S = (0.1, 0.3, 1.0, 2.0)
"""Seconds between tries; a temporary failure (too many open files, a server that restarts) is mostly shorter."""
_LASTING = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
)
"""Error numbers of failures that last."""
_STATS_KEPT = 4096

Result = TypeVar("Result")


def read_sample(reader: Reader, ref: SampleRef) -> bytes:
    """Return the encoded image of `ref`.

    Raises `ImageError` when the bytes themselves are bad, and `SourceError` with the file's name when the system can't
    read them, or when the file has changed since it was listed.
    """
    data = retried(lambda: reader.read(ref), ref.name)
    # After the read: a file that is written to during the read has another modification time by now.
    path = reader.file(ref) if ref.state else None
    if path is not None and ref.state not in retried(lambda: both_states(os.stat(path)), ref.name):
        raise SourceError(
            f"{path}: changed between listing and reading; wait until nothing writes to the source, then "
            "run the same command again"
        )
    return data


def retried(work: Callable[[], Result], name: str) -> Result:
    """Return the result of `work`, which is called again, with pauses, while the system fails.

    Raises `SourceError` with `name`, or the file's own path, for a failure that lasts.
    """
    for pause_s in (*RETRY_S, None):
        try:
            return work()
        except (OSError, MemoryError) as error:
            if pause_s is None or getattr(error, "errno", None) in _LASTING:
                raise SourceError(_lasting(error, name)) from error
        time.sleep(pause_s)
    raise AssertionError


def with_states(listing: Listing, *, inodes: bool = True) -> tuple[Listing, str]:
    """Return `listing` with the state of each sample's file, and one hash of the states of all.

    The hash differs when a file was written to, replaced or moved since; equal bytes may have another hash, in a
    copy for example. The hash is empty for sources without files. Without `inodes` a file has the same state on all
    machines that read it, over a network too. Raises `SourceError` for a file that is gone.
    """
    digest = xxhash.xxh3_128()
    state_N = _states(listing, listing.refs, np.arange(len(listing)), digest, inodes)
    if state_N is None:
        return listing, ""
    members = []
    for columns in listing.members:
        state_of_N = _states(listing, columns.refs, np.flatnonzero(columns.there_N), digest, inodes)
        members.append(replace(columns, state_N=state_of_N))
    return replace(listing, state_N=state_N, members=tuple(members)), digest.hexdigest()


def _states(
    listing: Listing,
    refs_of: Callable[[NDArray[np.int64]], Iterable[SampleRef]],
    row_N: NDArray[np.int64],
    digest: "xxhash.xxh3_128",
    inodes: bool,
) -> NDArray[np.int64] | None:
    """Return the states of the files of the rows `row_N`, 0 for other rows; None for a source without files."""
    state_N = np.zeros(len(listing), np.int64)
    for start in range(0, len(row_N), _STATS_KEPT):
        row_K = row_N[start : start + _STATS_KEPT]
        refs = list(refs_of(row_K))
        paths = [os.fspath(place) for ref in refs if (place := listing.reader.file(ref)) is not None]
        if len(paths) < len(refs):
            return None
        states, facts = _quick_facts(paths, inodes) or _all_facts(paths, refs, inodes)
        state_N[row_K] = states
        digest.update(facts)
    return state_N


def _quick_facts(paths: Sequence[str], inodes: bool) -> tuple[list[int], bytes] | None:
    """Return `_all_facts` by one call of the extension; None without it, and where one of the files can't be found."""
    found_N7 = native.stat_files(paths) if native.AVAILABLE else None
    if found_N7 is None or found_N7[:, 0].any():
        return None
    size_N, mtime_N, ctime_N, inode_N, device_N = found_N7[:, 2:].T
    inode_N = steady_inodes(inode_N, device_N)
    facts = np.stack([size_N, mtime_N, ctime_N, inode_N], axis=1).astype("<i8").tobytes()
    return states_of(size_N, mtime_N, inode_N if inodes else 0), facts


def _all_facts(paths: Sequence[str], refs: Sequence[SampleRef], inodes: bool) -> tuple[list[int], bytes]:
    """Return `SampleRef.state` of each file, and the facts of all."""
    found: dict[str, tuple[int, bytes]] = {}
    for path, ref in zip(paths, refs, strict=True):
        if path not in found:
            found[path] = retried(functools.partial(_facts, path, inodes, may_be_missing=not ref.size), path)
    states, facts = zip(*(found[path] for path in paths), strict=True)
    return list(states), b"".join(facts)


def _facts(path: str, inodes: bool, *, may_be_missing: bool) -> tuple[int, bytes]:
    """Return `SampleRef.state` of a file, 0 for a missing one, and bytes that differ when the file was touched."""
    try:
        info = os.stat(path)
    except OSError as error:
        if may_be_missing and error.errno in LEADS_NOWHERE:
            return 0, b"missing"
        raise
    return both_states(info)[not inodes], struct.pack(
        "<qqqQ", info.st_size, info.st_mtime_ns, info.st_ctime_ns, steady_inode(info)
    )


def _lasting(error: OSError | MemoryError, name: str) -> str:
    resume = "the finished shards are kept, and the same command resumes"
    if isinstance(error, MemoryError):
        return f"{name}: not enough memory to read or decode it; use fewer --workers or free some memory: {resume}"
    where = name if error.filename is None else os.fsdecode(error.filename)
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{where}: was listed and is gone ({reason}); put it back, or run the command again without it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: may not be read ({reason}); make it readable or leave it out with --exclude: {resume}"
    return f"{where}: can't be read: {reason} (tried {len(RETRY_S) + 1} times); once it can be, {resume}"
