"""The environment -> the folder that keeps what can be made again, and nothing else; its content, its limit."""

import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imgdata.errors import OptionError, OutputError

_SHARE = 0.1
"""Of the disk, at most, unless `IMGDATA_CACHE_GB` says otherwise."""
_ABANDONED_S = 3600.0
"""A file that no process has finished for so long belongs to one that was killed."""
_WHAT = {
    "audit": "audit",
    "columns": "columns",
    "loose": "index of raw images",
    "remote": "file of a remote dataset",
    "resident": "decoded split",
    "shards": "shard of a remote dataset",
    "views": "view of a large dataset",
}
"""Folder in the cache folder -> what it keeps."""
_LOCK, _UNFINISHED = ".lock", ".tmp"


class CacheWarning(UserWarning):
    """The cache can't be used: what was made is not kept, and the next run makes it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheEntry:
    """What is kept of one thing: the decoded pictures of a split, or what DALI can't do."""

    what: str
    """For people."""
    files: tuple[Path, ...]
    num_bytes: int
    written_s: float
    """When it was written last, in seconds since 1970."""


def cache_folder() -> Path:
    """Return `$IMGDATA_CACHE`, else `$XDG_CACHE_HOME/imgdata`, else `~/.cache/imgdata`; it may not exist yet."""
    own, common = os.environ.get("IMGDATA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else Path(common or "~/.cache") / "imgdata").expanduser()


def cache_limit() -> int:
    """Return how many bytes the cache folder may hold: `$IMGDATA_CACHE_GB` times 10^9, else a tenth of its disk.

    Raises `OptionError` where the variable is no number.
    """
    text = os.environ.get("IMGDATA_CACHE_GB")
    if text:
        try:
            limit = float(text)
        except ValueError:
            limit = math.nan
        if not (math.isfinite(limit) and limit >= 0):
            raise OptionError(f"IMGDATA_CACHE_GB must be a number of at least 0, such as 20, got {text!r}")
        return int(limit * 1e9)
    return int(_SHARE * shutil.disk_usage(existing_folder()).total)


def existing_folder() -> Path:
    """Return the cache folder, or the nearest folder above it that exists."""
    folder = cache_folder()
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def cache_entries() -> tuple[CacheEntry, ...]:
    """Return what the cache folder holds, the largest first. Files of one name with several endings are one entry."""
    groups: dict[Path, list[Path]] = {}
    for path in _files():
        if path.suffix not in (_LOCK, _UNFINISHED):
            groups.setdefault(path.with_suffix(""), []).append(path)
    entries = [entry for files in groups.values() if (entry := _entry(_what(files[0]), files)) is not None]
    unfinished = _entry("unfinished", [path for path in _files() if _is_abandoned(path)])
    entries += [] if unfinished is None else [unfinished]
    return tuple(sorted(entries, key=lambda entry: -entry.num_bytes))


def clear_cache(entries: Iterable[CacheEntry]) -> int:
    """Remove these entries; return the bytes that this freed. What a process reads now stays readable for it.

    Raises `OutputError` where a file can't be removed.
    """
    freed = 0
    for entry in entries:
        for path in entry.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{path}: can't be removed: {error.strerror or error}") from error
        freed += entry.num_bytes
    return freed


def make_room(num_bytes: int) -> bool:
    """Remove the entries that were written first until `num_bytes` more are within the limit; return whether they are.

    Nothing is removed where they can never be. Raises `OptionError`, `OutputError`.
    """
    limit = cache_limit()
    if num_bytes > limit:
        return False
    entries = sorted(cache_entries(), key=lambda entry: entry.written_s)
    held = sum(entry.num_bytes for entry in entries)
    for entry in entries:
        if held + num_bytes <= limit:
            break
        held -= clear_cache([entry])
    return True


def _files() -> list[Path]:
    """Return the files of the folder and of the folders in it; none where it does not exist."""
    folder = cache_folder()
    return sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())


def _what(path: Path) -> str:
    if path.parent.name in _WHAT:
        return _WHAT[path.parent.name]
    return "DALI's limits" if path.name.startswith("dali-") else "other"


def _is_abandoned(path: Path) -> bool:
    try:
        return path.suffix == _UNFINISHED and time.time() - path.stat().st_mtime > _ABANDONED_S
    except OSError:
        return False


def _entry(what: str, files: list[Path]) -> CacheEntry | None:
    """Return the entry of these files; None where another process has removed them."""
    facts = []
    has_holes = any("+" in path.name for path in files)
    for path in files:
        try:
            facts.append(path.stat())
        except OSError:
            continue
    if not facts:
        return None
    return CacheEntry(
        what=what,
        files=tuple(files),
        # Of a file with holes what is in it counts.
        num_bytes=sum(min(fact.st_size, fact.st_blocks * 512) if has_holes else fact.st_size for fact in facts),
        written_s=max(fact.st_mtime for fact in facts),
    )
