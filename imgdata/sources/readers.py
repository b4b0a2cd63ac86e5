"""Readers that several sources share: a file for each sample, or ranges of larger files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgdata.errors import ImageError, SourceError
from imgdata.sample import SampleRef
from imgdata.sources.listing import unescape_name
from imgdata.storage.atomic import FilePool


@dataclass(frozen=True)
class FileReader:
    """Each sample is a file: `root / ref.name`."""

    root: Path

    def read(self, ref: SampleRef) -> bytes:
        """The whole file; refused when its size is not the listed one."""
        try:
            descriptor = os.open(f"{self.root}/{unescape_name(ref.name)}", os.O_RDONLY)
            try:
                # One byte more than listed tells a file that has grown since.
                data = os.read(descriptor, ref.size + 1)
                if len(data) < ref.size:
                    # One call reads 2 GiB at most, and less on some network disks.
                    while len(data) <= ref.size and (more := os.read(descriptor, ref.size + 1 - len(data))):
                        data += more
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
        if len(data) != ref.size:
            raise ImageError("unreadable", f"size changed while sharding: {ref.size} bytes listed")
        return data


class RangeReader:
    """Each sample is a byte range of one of `containers` (tars, blobs)."""

    def __init__(self, containers: Sequence[Path]) -> None:
        self._files = FilePool(containers)

    @property
    def containers(self) -> tuple[Path, ...]:
        """The files that samples lie in."""
        return self._files.paths

    def read(self, ref: SampleRef) -> bytes:
        """The bytes from `ref.offset` on; `SourceError` when the container ends before."""
        path = self._files.paths[ref.container]
        try:
            data = self._files.read(ref.container, ref.offset, ref.size)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror or error}") from error
        if len(data) != ref.size:
            raise SourceError(
                f"{path}: ends inside {ref.name} (byte {ref.offset + len(data)}); the file is cut short or changed"
            )
        return data
