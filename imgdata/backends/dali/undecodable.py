"""Pictures that DALI can't decode -> a file in the cache folder, so that the next run needs no failure to find them.

`dali-VERSION-DECODER-INDEX.jsonl` has a line for each: position, hash of its bytes, reason and detail; without a reason
it is a picture that the host can decode, and does. A line counts for those very bytes alone: a shard may be copied
again; and for that decoder alone: a GPU's may take what the processor's refuses, and a crop what the whole is not.
"""

import json
import threading
import warnings
from pathlib import Path

import xxhash

from imgdata.errors import ImageError
from imgdata.storage.cache_folder import CacheWarning


class Known:
    """The pictures of a split that DALI can't decode. Safe in threads, and for several processes."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there; what is no such line is passed over: a crash may leave half of one."""
        self._path: Path | None = path
        self._lock = threading.Lock()
        self._found: dict[int, tuple[int, ImageError | None]] = {}
        for line in _lines(path):
            row = _row(line)
            if row is not None:
                position, digest, reason, detail = row
                self._found[position] = digest, ImageError(reason, detail) if reason else None

    def __len__(self) -> int:
        return len(self._found)

    def at(self, position: int, data: bytes) -> tuple[bool, ImageError | None]:
        """Return whether DALI is known to refuse these bytes at `position`, and why the host can't; None if it can."""
        digest, error = self._found.get(position, (None, None))
        if digest is None or digest != xxhash.xxh64_intdigest(data):
            return False, None
        return True, error

    def note(self, position: int, data: bytes, error: ImageError | None) -> None:
        """Note the image. Warns with `CacheWarning`, once, where the file can't be written."""
        digest = xxhash.xxh64_intdigest(data)
        row = [position, digest, error.reason if error else "", error.detail if error else ""]
        with self._lock:
            self._found[position] = digest, error
            if self._path is None:
                return
            path = self._path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # One write behind the end: lines of several processes don't mix.
                with open(path, "ab", buffering=0) as file:
                    file.write(json.dumps(row).encode() + b"\n")
            except OSError as problem:
                self._path = None
                warnings.warn(
                    f"{path}: can't be written ({problem.strerror}); bad images are found anew in each run: set "
                    "IMGDATA_CACHE to a folder for it",
                    CacheWarning,
                    stacklevel=2,
                )


def _row(line: bytes) -> tuple[int, int, str, str] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, list) or [type(value) for value in row] != [int, int, str, str]:
        return None
    position, digest, reason, detail = row
    return position, digest, reason, detail


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        # Not there yet; or it can't be read, and then `note` will not be able to write it and say so.
        return []
