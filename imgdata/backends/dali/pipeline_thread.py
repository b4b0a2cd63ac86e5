"""Parts that were read -> the pipeline, one behind the other, by a thread of its own; built again where it fails."""

import atexit
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.dali.available import load
from imgdata.backends.dali.pipeline import DecodeError, Graph, GraphSpec
from imgdata.backends.dali.pipeline_run import Part

_JOIN_S = 10.0
_TOP = {"anchor": 0, "extent": 1, "size": 1, "roi_start": 0, "roi_end": 1, "start": 0, "window": 1}
"""Inputs that ask for the first pixel alone, which takes a fortieth of the time of a crop."""


class Line:
    """The pipeline and its thread, which starts with the first part. Ends with its owner, or with the program."""

    def __init__(self, spec: GraphSpec, depth: int) -> None:
        """Start the thread; `depth` is the number of runs inside the pipeline at a time."""
        _end_before_dali()
        self._parts: queue.SimpleQueue[Part | None] = queue.SimpleQueue()
        thread = threading.Thread(target=_serve, args=(self._parts, spec, depth), name="imgdata-dali", daemon=True)
        # As in `Threads`: once, when called, when nobody holds `self`, or when the program ends.
        self.close = weakref.finalize(self, _stop, self._parts, thread, os.getpid())
        _LINES.add(self)
        thread.start()

    def put(self, part: Part) -> None:
        """Take a part whose bytes are there."""
        self._parts.put(part)


_LINES: "weakref.WeakSet[Line]" = weakref.WeakSet()


@cache
def _end_before_dali() -> None:
    """Let pipelines end at the end of the program, before DALI destroys them under their threads."""
    load()
    # What is registered last runs first: DALI does it when this is imported.
    import_module("nvidia.dali.pipeline")
    atexit.register(_close_all)


def _close_all() -> None:
    for line in list(_LINES):
        line.close()


def _stop(parts: "queue.SimpleQueue[Part | None]", thread: threading.Thread, pid: int) -> None:
    if os.getpid() != pid:  # It did not come along through a fork.
        return
    parts.put(None)
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(_JOIN_S)


def _serve(parts: "queue.SimpleQueue[Part | None]", spec: GraphSpec, depth: int) -> None:
    driver = _Driver(parts, spec, depth)
    while driver.turn():
        pass


class _Driver:
    """Everything that touches the pipeline, in one thread."""

    def __init__(self, parts: "queue.SimpleQueue[Part | None]", spec: GraphSpec, depth: int) -> None:
        self._parts, self._spec, self._depth = parts, spec, depth
        self._waiting: deque[Part] = deque()
        self._running: deque[Part] = deque()
        self._graph: Graph | None = None
        # For first pixels. From a bad picture on, those of the epoch are tried before: where one is, others are.
        self._sieve: Graph | None = None
        self._sifted_epoch: int | None = None

    def turn(self) -> bool:
        """Feed the parts that have come, and take one run; return False once the queue is closed."""
        if not self._fetch():
            self._graph = self._sieve = None
            return False
        while self._waiting and len(self._running) < self._depth:
            self._guarded(self._feed, self._waiting.popleft())
        if self._running:
            self._guarded(self._collect, self._running[0])
        return True

    def _fetch(self) -> bool:
        """Fetch all parts that have come, and wait where there is nothing else to do; return False at the end."""
        idle = not (self._waiting or self._running)
        try:
            while True:
                part = self._parts.get(block=idle)
                if part is None:
                    return False
                self._waiting.append(part)
                idle = False
        except queue.Empty:
            return True

    def _guarded(self, step: Callable[[Part], None], part: Part) -> None:
        try:
            step(part)
        except BaseException as error:  # Whatever it is, `wait` raises it where the batch is wanted.
            # What else runs is lost with the pipeline.
            self._graph = self._sieve = None
            for lost in {part, *self._running}:
                lost.fail(error)
            self._running.clear()

    def _feed(self, part: Part) -> None:
        if part.cancelled or part.fault:
            return
        if part.work.epoch == self._sifted_epoch:
            self._sift(part)
        if self._graph is None:
            self._graph = Graph(self._spec)
        self._graph.start(*part.inputs(self._spec.shape))
        self._running.append(part)

    def _collect(self, part: Part) -> None:
        assert self._graph is not None
        try:
            pixels = self._graph.take()
        except DecodeError as error:
            self._recover(part, error)
            return
        self._running.popleft()
        part.deliver(pixels)

    # --- bad pictures ------------------------------------------------------------------------------------------

    def _recover(self, part: Part, error: DecodeError) -> None:
        """Take out rows that DALI can't decode, and let all that ran run again: its pixels stay what they would be."""
        self._graph = None
        rows = self._refused_alone(part) if error.row is None else [error.row]
        if not rows:
            raise error
        for row in rows:
            is_bad = self._fails(part, row, first_pixel=True)
            # Otherwise crops above the damage are made, in this run and in any other: whatever was read before.
            part.refuse(row, remember=is_bad)
            # A GPU would take as long for it as for the whole.
            if is_bad and self._spec.device_id is None:
                self._sifted_epoch = part.work.epoch
        self._waiting.extendleft(reversed(self._running))
        self._running.clear()

    def _sift(self, part: Part) -> None:
        """Take out the rows of which not even the first pixel can be decoded, and so no crop."""
        while len(part.rows_by_dali()):
            if self._sieve is None:
                self._sieve = Graph(self._spec)
            encoded, arrays = part.inputs(self._spec.shape)
            try:
                self._sieve.start(encoded, _first_pixel(arrays))
                self._sieve.take()
            except DecodeError as error:
                self._sieve = None
                if error.row is None:
                    # Slower: the pipeline itself fails, and each row is tried.
                    return
                part.refuse(error.row, remember=True)
            else:
                return

    def _refused_alone(self, part: Part) -> list[int]:
        """Return the rows that DALI can't decode alone, where DALI doesn't name the row that failed."""
        return [row for row in part.rows_by_dali().tolist() if self._fails(part, row, first_pixel=False)]

    def _fails(self, part: Part, row: int, *, first_pixel: bool) -> bool:
        """Return whether DALI can't decode a row by itself, or not even its first pixel."""
        encoded, arrays = part.inputs(self._spec.shape, slice(row, row + 1))
        graph = Graph(replace(self._spec, batch_size=1))
        try:
            graph.start(encoded, _first_pixel(arrays) if first_pixel else arrays)
            graph.take()
        except DecodeError:
            return True
        return False


def _first_pixel(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {name: np.full_like(array, _TOP[name]) if name in _TOP else array for name, array in arrays.items()}
