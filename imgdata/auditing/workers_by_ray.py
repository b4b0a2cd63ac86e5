"""Pieces of the samples of an audit -> what is found of each, by tasks on the machines of a Ray cluster.

A task gets positions in the splits, and opens the dataset where it runs, once in each process. What it finds is the
result of the task: it waits in Ray's store on the machine that found it until it is fetched, and no more tasks are in
flight than `cluster` allows.
"""

import dataclasses
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.samples import Samples
from imgdata.auditing.workers import Finder, Piece, Result, Threads
from imgdata.cluster import RayEngine, RayOptions, Tasks
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_shards
from imgdata.dataset.index import index_id
from imgdata.errors import OptionError, ShardError
from imgdata.images.encode import encoder
from imgdata.storage.local_paths import url_scheme
from imgdata.version import __version__
from imgdata.views.view import View, whole

_SAMPLES = 1024
"""Samples of a task, in whole pieces."""
_BYTES = 2**28
"""Encoded bytes of a task, unless a single piece has more."""


class RayWorkers:
    """Tasks on a cluster. See `workers.Workers`; a context manager that ends them on exit.

    The cluster is connected to when the first piece asks for it: what an earlier audit has kept needs none.
    """

    def __init__(self, options: RayOptions, dataset: Dataset, *, told: Callable[[str], None]) -> None:
        """Take the dataset whose samples will be looked at. Raises `MissingExtraError`, `OptionError`, `ShardError`."""
        if dataset.is_loose:
            raise OptionError(
                f"{dataset.path}: raw images, and engine 'ray' audits shards; run `imgdata shard` on it, or leave out "
                "the engine"
            )
        self._dataset = dataset
        self._engine = RayEngine(options, told=told)
        self._engine.check()
        self._entered = False

    @property
    def threads(self) -> int:
        """See `workers.Workers`."""
        return self._engine.threads

    def __enter__(self) -> "RayWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._entered:
            self._engine.__exit__(*error)

    def run(self, samples: Samples, finder: Finder[Result], pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Result]]:
        """See `workers.Workers`."""
        tasks = list(_grouped(pieces, samples.array("size")))
        if not tasks:
            return
        if not self._entered:
            self._engine.__enter__()
            self._entered = True
        there = _There(
            place=str(self._dataset.path if url_scheme(self._dataset.path) else self._dataset.path.absolute()),
            version=self._dataset.version,
            splits=tuple((view.split, index_id(view.index)) for view in samples.views),
            programs=_programs(),
            threads=self._engine.threads,
            finder=finder,
        )

        def arguments(number: int) -> tuple[list[tuple[int, NDArray[np.int64]]], list[int]]:
            task = tasks[number]
            return _positions(samples, np.concatenate([np.asarray(piece) for piece in task])), list(map(len, task))

        def name(number: int) -> str:
            first, last = samples.texts("key", [tasks[number][0][0], tasks[number][-1][-1]])
            return f"images {first} to {last}"

        wanted: Tasks[list[Any]] = Tasks(work=there.find, arguments=arguments, name=name)
        for number, found in self._engine.run(wanted, range(len(tasks))):
            yield from zip(tasks[number], found, strict=True)


def _grouped(pieces: Iterable[Piece], size_M: NDArray[Any]) -> Iterator[list[Piece]]:
    """Yield lists of pieces: of up to `_SAMPLES` samples and `_BYTES` bytes."""
    group: list[Piece] = []
    samples = size = 0
    for piece in pieces:
        piece_bytes = int(size_M[np.asarray(piece)].sum(dtype=np.int64))
        if group and (samples + len(piece) > _SAMPLES or size + piece_bytes > _BYTES):
            yield group
            group, samples, size = [], 0, 0
        group.append(piece)
        samples, size = samples + len(piece), size + piece_bytes
    if group:
        yield group


def _positions(samples: Samples, number_K: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return the views of some samples, by their numbers, and the positions in each."""
    view_K, position_K = samples.view_M[number_K], samples.position_M[number_K]
    return [(view, position_K[view_K == view]) for view in np.unique(view_K).tolist()]


def _programs() -> str:
    """Return the versions of what decides the findings."""
    return f"imgdata {__version__}, {encoder()}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _There:
    """What all tasks share; a process keeps it for all of its tasks, with the dataset that it has opened."""

    place: str
    version: int
    splits: Sequence[tuple[str, str]]
    """Split of each view, and the name of its contents."""
    programs: str
    threads: int
    finder: Finder[Any]

    def find(self, rows: Sequence[tuple[int, NDArray[np.int64]]], lengths: Sequence[int]) -> list[Any]:
        """Return what is found of each piece; the function of a task.

        `rows` are views and positions in them, one after the other; `lengths` cut them into pieces.
        """
        views = tuple(self._some(view, position_N) for view, position_N in rows)
        end_P = np.cumsum([0, *lengths]).tolist()
        pieces = [range(start, end) for start, end in pairwise(end_P)]
        samples = Samples(views=views, classes=views[0].classes)
        return [found for _, found in Threads(self.threads).run(samples, self.finder, pieces)]

    def _some(self, view: int, position_N: NDArray[np.int64]) -> View:
        split = self._views[view]
        return dataclasses.replace(split, position_N=position_N, label_N=split.label_N[position_N])

    @cached_property
    def _views(self) -> list[View]:
        """The splits, opened here. Raises `ShardError` where this machine has other shards or other versions."""
        machine = socket.gethostname()
        if _programs() != self.programs:
            raise ShardError(
                f"the machine {machine} has {_programs()}, the audit was begun by {self.programs}; install the same "
                "versions on all machines"
            )
        try:
            dataset = open_shards(self.place, version=self.version)
        except ShardError as error:
            raise ShardError(f"on the machine {machine}: {error}") from error
        views = []
        for name, contents in self.splits:
            if name not in dataset or index_id(dataset[name].index) != contents:
                raise ShardError(
                    f"{self.place}: on the machine {machine} another dataset; it must be the same on all machines"
                )
            views.append(whole(dataset, name))
        return views
