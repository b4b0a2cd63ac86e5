"""Files that are compressed as a whole -> ranges of what is in them; the last used ones stay unpacked in memory."""

import gzip
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from imgdata.errors import SourceError
from imgdata.sample import SampleRef
from imgdata.storage.reading import open_regular, require_regular

CACHE_BYTES = 512 * 2**20
"""Bytes that one reader keeps unpacked; a single file larger than that is kept alone."""
MAX_BYTES = 8 * 2**30
"""Most bytes of one unpacked file."""


def unpacked(path: Path, size: int | None = None) -> bytes:
    """Return what a file compressed with gzip holds, or one compressed with zstd when `size` is the unpacked size.

    Other files are returned as they are. Raises `SourceError` for files that are damaged, cut short or too large.
    """
    require_regular(path)
    with open(path, "rb", opener=open_regular) as file:
        head = file.read(4)
        file.seek(0)
        try:
            if head.startswith(b"\x1f\x8b"):
                data = gzip.GzipFile(fileobj=file).read(MAX_BYTES + 1)
            elif head == b"\x28\xb5\x2f\xfd" and size is not None:
                if size > MAX_BYTES:
                    raise SourceError(f"{path}: says {size:,} bytes, the limit is {MAX_BYTES:,}")
                data = pa.decompress(file.read(), decompressed_size=size, codec="zstd").to_pybytes()
            else:
                data = file.read()
        except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException) as error:
            raise SourceError(f"{path}: cut short or damaged ({error}); get the file again") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise SourceError(f"{path}: cut short or damaged ({error}); get the file again") from error
    if len(data) > MAX_BYTES:
        raise SourceError(f"{path}: unpacks to more than {MAX_BYTES:,} bytes; unpack it first")
    return data


@dataclass
class PackedReader:
    """Reader of samples that are byte ranges of unpacked `files`: fast in their order, slow in random order."""

    files: tuple[Path, ...]
    sizes: tuple[int | None, ...]
    """Unpacked sizes, where they are known."""
    _kept: "OrderedDict[int, bytes]" = field(default_factory=OrderedDict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings alone: unpacked files stay in their process."""
        return {"files": self.files, "sizes": self.sizes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the file that holds `ref`."""
        return self.files[ref.container]

    def read(self, ref: SampleRef) -> bytes:
        """Return the bytes of `ref`. Raises `SourceError` when the file is damaged or has changed, `OSError`."""
        with self._lock:
            kept = self._kept
            if ref.container not in kept:
                data = unpacked(self.files[ref.container], self.sizes[ref.container])
                while kept and sum(map(len, kept.values())) + len(data) > CACHE_BYTES:
                    kept.popitem(last=False)
                kept[ref.container] = data
            kept.move_to_end(ref.container)
            found = kept[ref.container][ref.offset : ref.offset + ref.size]
        if len(found) != ref.size:
            raise SourceError(f"{self.files[ref.container]}: ends inside {ref.name}; the file has changed")
        return found
