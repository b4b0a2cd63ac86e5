"""A folder -> its image files in a fixed order, with what was passed over counted."""

import contextlib
import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgdata import native
from imgdata.errors import SourceError
from imgdata.images.info import IMAGE_SUFFIXES
from imgdata.sources.folder_names import is_hidden, mask_folders
from imgdata.sources.listing import ListingBuilder

_MAX_EXTENSION_CHARS = 12
_LEADS_NOWHERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
_STATS = 1024
"""Files that are looked at in one call."""
_KIND = 0o170000
"""Bits of a mode that say what kind of file it is."""
_MAX_LINKS = 64
"""Times that one folder may be reached through links."""


class Entries(NamedTuple):
    """The names of one folder that a person would see, each list sorted."""

    folders: list[str]
    files: list[str]


class _Level(NamedTuple):
    prefix: str
    names: Iterator[tuple[str, int]]
    """Name, and size in bytes; -1 for a folder, and for what is not plainly a file."""
    identity: tuple[int, int]
    linked: bool
    """Whether this folder was reached through a link."""


def extension(name: str) -> str:
    """Return the extension of a file name, lower-case with its dot; empty when it has none."""
    if "/" in name:
        return os.path.splitext(name)[1].lower()
    # Asked several times of each file: `splitext` takes three times as long.
    stem, dot, last = name.rpartition(".")
    return dot + last.lower() if stem.strip(".") else ""


def is_image(name: str) -> bool:
    """Return whether a file of this name is taken for an image: visible, with an image's extension."""
    return extension(name) in IMAGE_SUFFIXES and not is_hidden(name)


_REMEMBERED_NAMES = 200_000
"""Most names that `remembered` keeps: some 20 MB."""
_memory = threading.local()


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Let `visible` look only once at a folder inside the block, in this thread: layouts are recognised one by one."""
    before = getattr(_memory, "folders", None)
    _memory.folders, _memory.names = {}, 0
    try:
        yield
    finally:
        _memory.folders = before


def visible(folder: Path) -> Entries:
    """Return the visible folders and files directly in `folder`; broken links are left out.

    Raises `SourceError` when the folder can't be read.
    """
    known: dict[str, Entries] | None = getattr(_memory, "folders", None)
    path = os.fspath(folder)
    if known is None:
        return _visible(path)
    entries = known.get(path)
    if entries is None:
        entries = _visible(path)
        _memory.names += len(entries.folders) + len(entries.files)
        if _memory.names <= _REMEMBERED_NAMES:
            known[path] = entries
    return Entries(list(entries.folders), list(entries.files))


def _visible(folder: str) -> Entries:
    entries = Entries([], [])
    for entry in scan(folder):
        if is_hidden(entry.name):
            continue
        if _is_folder(entry):
            entries.folders.append(entry.name)
        elif not entry.is_symlink() or not _is_broken(entry.path):
            entries.files.append(entry.name)
    entries.folders.sort()
    entries.files.sort()
    return entries


def image_files(folder: Path, builder: ListingBuilder, *, masks: bool = True) -> Iterator[tuple[str, int]]:
    """Yield every image below `folder`: its path relative to `folder` with `/` between, and its size in bytes.

    Images are sorted by that path as a string, whatever the file system's order and the locale. Links to files and
    folders are followed, a link to a folder above it is not. What is passed over is counted with
    `builder.skip`, so that samples and skipped entries add up to `ListingBuilder.seen`. Without `masks`, folders that
    hold masks or annotations of the images beside them are passed over, and their images are counted. Raises
    `SourceError` that names the file or folder that can't be read.

    One folder's names are held at a time, so that millions of files take little memory.
    """
    top = os.fspath(folder)
    stack = [_Level("", _names(top, builder, masks), _identity(top), False)]
    through_links: Counter[tuple[int, int]] = Counter()
    while stack:
        prefix, names, _, linked = stack[-1]
        for name, size in names:
            path = prefix + name
            if size >= 0:
                yield path, size
                continue
            if name[-1] == "/":
                identity = _identity(f"{top}/{path}")
                if any(level.identity == identity for level in stack):
                    builder.see()
                    builder.skip("symlinks to a folder above")
                    continue
                inside = linked or os.path.islink(f"{top}/{path[:-1]}")
                through_links[identity] += inside
                if through_links[identity] > _MAX_LINKS:
                    raise SourceError(
                        f"{top}/{path}: reached through links more than {_MAX_LINKS} times; thirty folders that link "
                        "to each other have a billion paths: remove the links"
                    )
                stack.append(_Level(path, _names(f"{top}/{path}", builder, masks), identity, inside))
                break
            info = _stat(f"{top}/{path}")
            if info is None:
                builder.skip("broken symlinks")
            elif not stat.S_ISREG(info.st_mode):
                builder.skip("not regular files")
            else:
                yield path, info.st_size
        else:
            stack.pop()


def _names(folder: str, builder: ListingBuilder, masks: bool) -> Iterator[tuple[str, int]]:
    """Return the images and folders directly in `folder`; folders end in `/`, and so sort as the whole paths do.

    With each comes the size of a regular file, or -1 where that takes a closer look.
    """
    names: list[str] = []
    folders: list[str] = []
    seen = 0
    for entry in scan(folder):
        name = entry.name
        is_folder = _is_folder(entry)
        if is_hidden(name):
            builder.skip("hidden folders" if is_folder else "hidden files")
        elif is_folder:
            folders.append(name)
            continue
        elif extension(name) in IMAGE_SUFFIXES:
            names.append(name)
        elif entry.is_symlink() and _is_broken(entry.path):
            builder.skip("broken symlinks")
        else:
            builder.skip(f"not images ({_printable_extension(name)})")
        seen += 1
    builder.see(seen)
    if folders and not masks:
        for name in mask_folders(folders, images_beside=bool(names)):
            count_below(Path(folder, name), builder, f"images in folders of masks or annotations ({name})")
            folders.remove(name)
    names += [name + "/" for name in folders]
    names.sort()
    return _with_sizes(folder, names)


def _with_sizes(folder: str, names: list[str]) -> Iterator[tuple[str, int]]:
    for start in range(0, len(names), _STATS):
        part = names[start : start + _STATS]
        found_N7 = native.stat_files([f"{folder}/{name}" for name in part]) if native.AVAILABLE else None
        if found_N7 is None:
            yield from ((name, -1) for name in part)
            continue
        is_file_N = (found_N7[:, 0] == 0) & (found_N7[:, 1] & _KIND == stat.S_IFREG)
        yield from zip(part, np.where(is_file_N, found_N7[:, 2], -1).tolist(), strict=True)


def count_below(folder: Path, builder: ListingBuilder, what: str) -> int:
    """Count the images below `folder` as `what`, and all else there as usual; returns how many images there are."""
    images = sum(1 for _ in image_files(folder, builder))
    if images:
        builder.skip(what, images)
    return images


def scan(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield what is directly in `folder`. Raises `SourceError` when the folder can't be read."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise SourceError(f"{folder}: can't read this folder: {error.strerror or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return False
        # Anything else may be a folder of images: passing over it would lose them.
        raise SourceError(f"{entry.path}: can't read this entry: {error.strerror or error}") from error


def _is_broken(path: str) -> bool:
    """Return whether the link at `path` leads nowhere. Raises `SourceError` when the system can't say."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return True
        raise SourceError(f"{path}: can't read this entry: {error.strerror or error}") from error
    return False


def _identity(folder: str) -> tuple[int, int]:
    """Return the device and inode of a folder, which are the same when it is reached by another path."""
    try:
        info = os.stat(folder)
    except OSError as error:
        raise SourceError(f"{folder}: can't read this folder: {error.strerror or error}") from error
    return info.st_dev, info.st_ino


def _stat(path: str) -> os.stat_result | None:
    """Return the status of the file at `path`; None when it is a link that leads nowhere."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE and os.path.islink(path):
            return None
        raise SourceError(f"{path}: can't read this file: {error.strerror or error}") from error


def _printable_extension(name: str) -> str:
    text = extension(name)
    if not text:
        return "no extension"
    return text if text.isascii() and text.isprintable() and len(text) <= _MAX_EXTENSION_CHARS else "other"
