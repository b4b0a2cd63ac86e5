"""Positions in a split -> the files that hold the images, open descriptors, errors that say what is wrong with a file.

The files are shards, each with thousands of images, or the user's own: an image each, or archives.
"""

import errno
import os
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.index import Index
from imgdata.dataset.members import loose_columns, member_columns
from imgdata.dataset.remote_files import RemoteShards
from imgdata.errors import ImgdataError, ShardError, SourceError
from imgdata.storage.file_names import escape_name, unescape_name
from imgdata.storage.file_state import file_state
from imgdata.storage.folder import DatasetFolder, LooseFolder
from imgdata.storage.joined_remote import JoinedRemoteFolder
from imgdata.storage.reading import open_regular
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache


class ImageFiles(Protocol):
    """The files of a split. Each has a number, and is opened by it."""

    keeps_open: bool
    """Whether it pays to keep a file open: another image of it may be read soon."""

    def numbers(self, position_N: NDArray[np.int64], member: str = "") -> NDArray[np.int64]:
        """Return the number of the file of each picture, or of each further image `member`, int64 `(N,)`."""
        ...

    def path(self, number: int) -> Path:
        """Return the path of a file."""
        ...

    def open(self, number: int) -> int:
        """Return the descriptor of a file. Raises `OSError`, and `SourceError` for one that has changed."""
        ...

    def unreadable(self, number: int, error: OSError) -> ImgdataError:
        """Return what to raise where the system can't open or read a file."""
        ...

    def cut_short(self, number: int, key: str, end: int) -> ImgdataError:
        """Return what to raise where a file ends before byte `end`, up to which the image of `key` goes."""
        ...


class ShardPaths:
    """The shards of a split. See `ImageFiles`."""

    keeps_open = True

    def __init__(self, folder: DatasetFolder, index: Index) -> None:
        self._folder, self._index = folder, index

    def numbers(self, position_N: NDArray[np.int64], member: str = "") -> NDArray[np.int64]:
        """See `ImageFiles`."""
        return self._index.shard_N[position_N].astype(np.int64)

    def path(self, number: int) -> Path:
        """See `ImageFiles`. Raises `ShardError` for a name that leads out of the folder."""
        return self._folder.local(self._index.words("shard")[number])

    def open(self, number: int) -> int:
        """See `ImageFiles`."""
        return open_regular(self.path(number))

    def unreadable(self, number: int, error: OSError) -> ShardError:
        """See `ImageFiles`."""
        return ShardError(f"{self.path(number)}: {error.strerror or error}; copy the shard again")

    def cut_short(self, number: int, key: str, end: int) -> ShardError:
        """See `ImageFiles`."""
        return ShardError(f"{self.path(number)}: cut short, {key} ends at byte {end}; copy the shard again")


class LoosePaths:
    """The user's files: archives first, then a file for each position, and for each further image. See `ImageFiles`."""

    keeps_open = False

    def __init__(self, folder: LooseFolder, index: Index) -> None:
        self._folder, self._index = folder, index

    def numbers(self, position_N: NDArray[np.int64], member: str = "") -> NDArray[np.int64]:
        """See `ImageFiles`."""
        index, image = self._index, self._images.index(member)
        file_N = index.array(loose_columns(member)[0])[position_N].astype(np.int64)
        number_N = np.where(file_N >= 0, file_N, len(self._archives) + len(index) * image + position_N)
        if not member:
            return number_N
        # Of a sample without this image nothing is read, from whatever file: from that of its picture.
        has_N = index.array(member_columns(member)[1])[position_N] > 0
        return np.where(has_N, number_N, self.numbers(position_N))

    def path(self, number: int) -> Path:
        """See `ImageFiles`."""
        if number < len(self._archives):
            return self._folder.path / unescape_name(self._archives[number][0])
        (_, _, path), row = self._place(number)
        name = self._index.column(path)[row].as_py() or self._index.column("source")[row].as_py()
        return self._folder.path / unescape_name(name)

    def open(self, number: int) -> int:
        """See `ImageFiles`: a file is the one that was listed, by its size, time and inode."""
        if number < len(self._archives):
            expected = self._archives[number][1]
        else:
            (_, state, _), row = self._place(number)
            expected = int(self._index.array(state)[row])
        descriptor = open_regular(self.path(number))
        try:
            if file_state(os.fstat(descriptor)) != expected:
                raise self._changed(number, "changed")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def unreadable(self, number: int, error: OSError) -> SourceError:
        """See `ImageFiles`."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return self._changed(number, "gone")
        shown = escape_name(str(self.path(number)))
        return SourceError(f"{shown}: can't be read: {error.strerror or error}; make it readable, or leave it out")

    def cut_short(self, number: int, key: str, end: int) -> SourceError:
        """See `ImageFiles`."""
        return self._changed(number, f"cut short ({key} ended at byte {end})")

    @cached_property
    def _archives(self) -> list[tuple[str, int]]:
        return self._index.archives

    @cached_property
    def _images(self) -> tuple[str, ...]:
        """The images of each sample: its picture, which has no name, and further ones."""
        return ("", *self._index.members)

    def _place(self, number: int) -> tuple[tuple[str, str, str], int]:
        """Return the columns of the index, and the row, that are about a file."""
        which, row = divmod(number - len(self._archives), len(self._index))
        return loose_columns(self._images[which]), row

    def _changed(self, number: int, how: str) -> SourceError:
        shown = escape_name(str(self.path(number)))
        return SourceError(
            f"{shown}: {how} since the folder was opened; open it again, which looks at all files, and let nothing "
            "write to them meanwhile"
        )


def image_files(folder: DatasetFolder, index: Index, cache: ShardCache | None = None) -> ImageFiles:
    """Return the files of the split with this index, those of a remote one with its cache."""
    if isinstance(folder, RemoteFolder | JoinedRemoteFolder):
        return RemoteShards(folder, index, cache)
    return LoosePaths(folder, index) if isinstance(folder, LooseFolder) else ShardPaths(folder, index)
