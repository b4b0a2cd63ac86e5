"""A view of more samples than memory holds, a rule -> the samples that meet it.

The rule is asked part by part, in order; what it keeps is a `Selection` in the cache folder, which is found there again
by whoever opens the same view. A result that memory holds is a view like any other.
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.index import Index, index_id
from imgdata.dataset.lazy_array import lazy_array
from imgdata.dataset.selection import Selection, SelectionWriter, open_selection, selection_bytes
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.order.bijection import scatter
from imgdata.storage.cache_folder import CacheWarning, cache_folder, make_room
from imgdata.storage.locks import LockHeldError, locked
from imgdata.storage.reading import unnamed_file
from imgdata.stratify import split_counts
from imgdata.views.text import Step
from imgdata.views.view import View, check_not_balanced, fits_memory, select_rows

_FORMAT = "1"
"""Changes when the same steps keep other samples."""
_WAIT_S = 1800.0
"""How long a process waits for another one that makes the same selection, before it makes its own."""

Keeps = Callable[[View], NDArray[np.bool_]]


def keep_rows(view: View, keeps: Keeps, step: Step) -> View:
    """Keep the rows for which `keeps` is true; `step` says how they were chosen.

    Of a large view `keeps` is asked for its parts, one after the other, unless the cache folder has the result.
    """
    check_not_balanced(view, step.name)
    if not view.is_large:
        return select_rows(view, keeps(view), step)
    selection = _selection(view, keeps, step)
    steps = (*view.steps, step)
    if len(selection) == len(view.index):
        return replace(view, steps=steps, name="")
    if fits_memory(len(selection)):
        found = replace(view, selection=selection, steps=steps, name="")
        parts = [(part.position_N, part.label_N) for part in found.parts()]
        position_N = np.concatenate([np.empty(0, np.int64), *(position_N for position_N, _ in parts)])
        label_N = np.concatenate([np.empty(0, np.int32), *(label_N for _, label_N in parts)])
        return replace(found, position_N=position_N, label_N=label_N, selection=None)
    labels = partial(_labels, view.index, selection)
    return replace(
        view,
        position_N=_lazy("positions", np.int64, selection, selection.positions),
        label_N=_lazy(f"{view.index.path}, label", np.int32, selection, labels),
        selection=selection,
        steps=steps,
        name="",
    )


class ClassDraws:
    """A random order of the rows of each class of a large view, of which no part needs the others.

    Rows of a class are numbered as they come, and numbers go through a keyed bijection of their class. Parts have to be
    asked for in order.
    """

    def __init__(self, view: View, seed: int, stream: int) -> None:
        self._view, self._seed, self._stream = view, seed, stream
        self._seen_C: NDArray[np.int64] | None = None

    @cached_property
    def _count_C(self) -> NDArray[np.int64]:  # noqa: N802
        """Rows of each class, those without a label first."""
        size = len(self._view.classes) + 1
        counted = (np.bincount(part.label_N + 1, minlength=size) for part in self._view.parts())
        return sum(counted, np.zeros(size, np.int64))

    def of(self, part: View) -> NDArray[np.int64]:
        """Return the place of each row of the next part in the order of its class, from 0, int64 `(N,)`."""
        class_N = part.label_N + 1
        if self._seen_C is None:
            self._seen_C = np.zeros_like(self._count_C)
        # Numbers of 16 bits are sorted by counting.
        row_N = np.argsort(class_N.astype(np.uint16) if class_N.max() < 2**16 else class_N, kind="stable")
        sorted_N = class_N[row_N]
        number_N = np.empty(len(row_N), np.int64)
        number_N[row_N] = np.arange(len(row_N)) - np.searchsorted(sorted_N, sorted_N)
        number_N += self._seen_C[class_N]
        self._seen_C += np.bincount(class_N, minlength=len(self._seen_C))
        return scatter(
            number_N, self._count_C[class_N], seed=self._seed, stream=self._stream, tweak_K=class_N.astype(np.int64)
        )

    def splits(self, fractions: Sequence[float]) -> Callable[[View], NDArray[np.int64]]:
        """Return a function of the parts, in order: which of `fractions` each row is in, each class by its share."""
        bounds: list[NDArray[np.int64]] = []

        def split(part: View) -> NDArray[np.int64]:
            if not bounds:
                count_CS = np.zeros((len(self._count_C), len(fractions)), np.int64)
                there_C = self._count_C > 0
                count_CS[there_C] = split_counts(self._count_C[there_C], fractions)
                bounds.append(np.cumsum(count_CS, axis=1)[:, :-1])
            split_N: NDArray[np.int64] = (self.of(part)[:, None] >= bounds[0][part.label_N + 1]).sum(axis=1)
            return split_N

        return split


def _lazy(
    name: str, kind: type, selection: Selection, some: Callable[[NDArray[np.int64]], NDArray[Any]]
) -> NDArray[Any]:
    count = len(selection)
    return lazy_array(name, count, kind, some=some, whole=partial(_whole, some, count))


def _whole(some: Callable[[NDArray[np.int64]], NDArray[Any]], count: int) -> NDArray[Any]:
    return some(np.arange(count))


def _labels(index: Index, selection: Selection, row_K: NDArray[np.int64]) -> NDArray[np.int32]:
    return index.label_N[selection.positions(row_K)]


def _selection(view: View, keeps: Keeps, step: Step) -> Selection:
    """Return what `keeps` keeps of a large view, from the cache folder where it is. Raises `OutputError`."""
    path = cache_folder() / "views" / f"{_name(view, step)}.bits"
    with contextlib.suppress(OSError, ShardError):
        return open_selection(path, len(view.index))
    try:
        room = make_room(selection_bytes(len(view.index)))
        path.parent.mkdir(parents=True, exist_ok=True)
        why = "" if room else "it is larger than the cache may be"
    except (OSError, OptionError, OutputError) as error:
        why = str(error)
    if why:
        warnings.warn(
            f"{path}: the view can't be kept ({why}): its bits stay in memory, and who opens it again makes it again",
            CacheWarning,
            stacklevel=2,
        )
        return _in_memory(view, keeps)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(LockHeldError):
            stack.enter_context(locked(path.with_suffix(".lock"), wait_s=_WAIT_S, remove=True))
        with contextlib.suppress(OSError, ShardError):
            return open_selection(path, len(view.index))
        _write(view, keeps, path)
    return open_selection(path, len(view.index))


def _write(view: View, keeps: Keeps, path: Path) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            _fill(SelectionWriter(file, len(view.index)), view, keeps)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{temporary}: can't be written: {error.strerror or error}; IMGDATA_CACHE names another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _in_memory(view: View, keeps: Keeps) -> Selection:
    descriptor = unnamed_file()
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            _fill(SelectionWriter(file, len(view.index)), view, keeps)
        return Selection(descriptor, len(view.index))
    finally:
        os.close(descriptor)


def _fill(writer: SelectionWriter, view: View, keeps: Keeps) -> None:
    for part in view.parts():
        writer.keep(part.position_N[keeps(part)])
    writer.finish()


def _name(view: View, step: Step) -> str:
    """Return what tells the result of a step from others: the samples before it, the classes, and the step's file."""
    before = "" if view.selection is None else view.selection.digest
    digest = hashlib.sha256(repr([_FORMAT, index_id(view.index), len(view.index), before]).encode())
    digest.update(repr([tuple(one) for one in view.classes]).encode())
    digest.update(repr([str(step), hashlib.sha256(step.data or b"").hexdigest()]).encode())
    return digest.hexdigest()[:32]
