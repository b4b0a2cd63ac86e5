"""The path of raw images -> a `Dataset` on them, by an index in the cache folder that is kept as long as it is true."""

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import tempfile
import warnings
from pathlib import Path

from imgdata.dataset.dataset import Dataset, reopen
from imgdata.dataset.index import Index
from imgdata.errors import ShardError
from imgdata.loose.build import build
from imgdata.loose.stamp import is_unchanged, look_around, read_stamp, write_stamp
from imgdata.sources.options import SourceOptions
from imgdata.storage.cache_folder import CacheWarning, cache_folder
from imgdata.storage.folder import LooseFolder
from imgdata.storage.locks import locked

_VERSION = 2


def open_raw(root: Path, read: SourceOptions) -> Dataset:
    """Open the raw images at `root`. Warns with `CacheWarning`; raises `SourceError`, `OptionError`, `ShardError`."""
    kept = cache_folder() / "loose"
    place = hashlib.sha256(repr((_VERSION, os.path.abspath(root), dataclasses.astuple(read))).encode()).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        try:
            kept.mkdir(parents=True, exist_ok=True)
            if not os.access(kept, os.W_OK):
                raise PermissionError(errno.EACCES, "may not be written")
            # The ranks of a run open it at once: one lists it, the others wait.
            stack.enter_context(locked(kept / f"{place}.lock", wait_s=math.inf, mode=0o666))
        except OSError as error:
            kept = Path(tempfile.mkdtemp(prefix="imgdata-"))
            warnings.warn(
                f"{cache_folder()} can't be used as cache folder ({error.strerror}): the index of {root} is in {kept}, "
                "and the next process makes it anew; IMGDATA_CACHE names another folder",
                CacheWarning,
                stacklevel=4,
            )
        stamp = kept / f"{place}.stamp"
        content = read_stamp(stamp)
        dataset = None if content is None else _kept(kept, root, content, read)
        if dataset is not None and all(is_unchanged(split.index, root) for split in dataset.values()):
            return dataset
        around = look_around(root, read)
        content = build(root, read, kept, place, _indices(kept, place))
        write_stamp(stamp, around, content)
        return reopen(LooseFolder(root, kept=kept, key=content, read=read.to_dict()))


def _kept(kept: Path, root: Path, content: str, read: SourceOptions | None = None) -> Dataset | None:
    """Return the dataset whose files begin with `content`; None where a file of it is missing or damaged."""
    with contextlib.suppress(ShardError):
        dataset = reopen(LooseFolder(root, kept=kept, key=content, read={} if read is None else read.to_dict()))
        for split in dataset.values():
            if split.columns.are_stored:
                # What of its columns is damaged is said by their types already.
                _ = split.columns.types
        return dataset
    return None


def _indices(kept: Path, place: str) -> list[Index]:
    """Return the indices of the newest listing of a place, whose headers need not be read again."""
    newest = max(kept.glob(f"{place}-*.json"), key=lambda path: path.stat().st_mtime_ns, default=None)
    dataset = None if newest is None else _kept(kept, Path(), newest.stem)
    return [] if dataset is None else [split.index for split in dataset.values()]
