"""A raw dataset -> what the system says of its folders, tables and archives: has anything changed since it was listed?

A folder's time changes with the names in it. The state of each image is in the index, and is compared as well.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from imgdata.arrow import number_array, numbers, text_array
from imgdata.dataset.index import Index
from imgdata.dataset.members import loose_columns
from imgdata.errors import SourceError
from imgdata.images.info import IMAGE_SUFFIXES
from imgdata.loose.places import CHUNK, OWN, THREADS, beginning, state_of, states
from imgdata.sources.options import SourceOptions
from imgdata.storage.atomic import write_atomic
from imgdata.storage.file_names import escape_name, unescape_name

_UNUSED_SUFFIXES = frozenset((*IMAGE_SUFFIXES, ".xml"))
"""Files that decide nothing about a listing but by their names: images, whose states are in the index, annotations.
Those of Pascal VOC do: they are beside the folder `JPEGImages`."""
_VOC = "JPEGImages"
_SETTLED_NS = 2_000_000_000
"""Within so many nanoseconds of a change, another one may leave the same time."""


def look_around(root: Path, read: SourceOptions) -> tuple[list[str], list[int], int]:
    """Return all folders, tables and archives below `root`, their states, and when they were looked at, in ns."""
    begun = time.time_ns()
    paths = list(_below(os.fspath(root)) if root.is_dir() else [os.fspath(root)])
    paths += [os.path.abspath(one) for one in (read.table, read.devkit) if one is not None]
    return paths, [state_of(path) for path in paths], begun


def write_stamp(path: Path, around: tuple[list[str], list[int], int], content: str) -> None:
    """Write what `look_around` found when the dataset whose files begin with `content` was listed."""
    paths, state, begun = around
    table = pa.table(
        {"path": text_array([escape_name(one) for one in paths]), "state": number_array(np.array(state, np.int64))}
    )
    table = table.replace_schema_metadata({"content": content, "begun": str(begun)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomic(path, sink.getvalue().to_pybytes())


def read_stamp(path: Path) -> str | None:
    """Return the content that the stamp names, if all it lists is as it was; None where it is not, or there is none."""
    try:
        with pa.OSFile(os.fspath(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        begun, content = int(facts["begun"]), facts["content"]
        names = [unescape_name(name) for name in table.column("path").to_pylist()]
        before = numbers(table.column("state")).tolist()
        for name, state in zip(names, before, strict=True):
            if state_of(name) != state or (state and os.stat(name).st_mtime_ns > begun - _SETTLED_NS):
                return None
    except (OSError, pa.ArrowException, KeyError, ValueError, SourceError):
        return None
    return str(content)


def is_unchanged(index: Index, root: Path) -> bool:
    """Return whether all files of an index are as they were: names, sizes, times."""
    try:
        if any(state_of(os.path.join(root, unescape_name(name))) != state for name, state in index.archives):
            return False
        with ThreadPoolExecutor(THREADS) as pool:
            return all(_are_unchanged(index, name, root, pool) for name in ("", *index.members))
    except SourceError:
        # Whoever lists the files says what is wrong with them.
        return False


def _are_unchanged(index: Index, member: str, root: Path, pool: ThreadPoolExecutor) -> bool:
    """Return whether the pictures, or the further images `member`, are as they were. Raises `SourceError`."""
    before = beginning(root)
    file, state, path = loose_columns(member)
    file_N, state_N = index.array(file), index.array(state)
    for start in range(0, len(index), CHUNK):
        rows = slice(start, start + CHUNK)
        own_K = file_N[rows] == OWN
        if not own_K.any():
            continue
        named = index.column(path)[rows].to_pylist()
        sources = [""] * len(named) if member else index.column("source")[rows].to_pylist()
        names = [own or source for own, source, is_own in zip(named, sources, own_K.tolist(), strict=True) if is_own]
        # A sample without this image has no name, and no state.
        plain = map(unescape_name, names)
        paths = [name if not name or name[0] == os.sep else before + name for name in plain]
        if not np.array_equal(states(paths, pool)[1], state_N[rows][own_K]):
            return False
    return True


def _below(top: str) -> Iterator[str]:
    """Yield the folders of `top`, those that links lead to once, and the files that are no images."""
    folders, seen = [top], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            yield folder
            with os.scandir(folder) as entries:
                suffixes = IMAGE_SUFFIXES if _is_beside_voc(folder) else _UNUSED_SUFFIXES
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() not in suffixes:
                        yield entry.path
        except OSError:
            # A source that needs it says so; a change of it changes the state of the folder above.
            continue


def _is_beside_voc(folder: str) -> bool:
    return os.path.isdir(os.path.join(os.path.dirname(folder), _VOC))
