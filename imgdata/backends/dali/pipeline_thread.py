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
        # As in `Threads`: once, when called, when `self` is no longer referenced, or when the program ends.
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
    while driver.step():
        pass


class _Driver:
    """Everything that touches the pipeline, in one thread.

    A picture that DALI can't decode ends the whole pipeline, with all runs in it. Then (`_recover`) the row is found by
    name or by trying each alone, and given to the host; a new pipeline runs the part and those behind it again.
    A row that fails alone, but whose first pixel can be decoded, is damaged below: other crops of it may succeed, so
    nothing of it is remembered. Rows that fail with their first pixel are remembered in the cache folder.
    """

    def __init__(self, parts: "queue.SimpleQueue[Part | None]", spec: GraphSpec, depth: int) -> None:
        self._parts, self._spec, self._depth = parts, spec, depth
        self._waiting: deque[Part] = deque()
        self._running: deque[Part] = deque()
        self._graph: Graph | None = None
        # Another pipeline, for first pixels: a picture whose first pixel can't be decoded is bad in every crop.
        self._probe: Graph | None = None
        # From the first bad picture on, all parts of that epoch are probed before they are fed: where one picture is
        # bad, others are, and each that the pipeline itself finds costs all runs in it.
        self._probed_epoch: int | None = None

    def step(self) -> bool:
        """Pass on the parts that have come, and take one run; return False once the queue is closed."""
        if not self._fetch():
            self._graph = self._probe = None
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
        except BaseException as error:  # Any error is raised by `wait`, where the batch is needed.
            # What else runs is lost with the pipeline.
            self._graph = self._probe = None
            for lost in {part, *self._running}:
                lost.fail(error)
            self._running.clear()

    def _feed(self, part: Part) -> None:
        if part.cancelled or part.fault:
            return
        if part.work.epoch == self._probed_epoch:
            self._probe_part(part)
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
        """Take out rows that DALI can't decode, and run all that was in the pipeline again, with the same pixels."""
        self._graph = None
        rows = self._refused_alone(part) if error.row is None else [error.row]
        if not rows:
            raise error
        for row in rows:
            is_bad = self._fails(part, row, first_pixel=True)
            # Not remembered otherwise: crops above the damage succeed, in this run and in any other, so that pixels
            # don't depend on what was read before.
            part.refuse(row, remember=is_bad)
            # Not on a GPU, where decoding the first pixel takes as long as decoding the whole picture.
            if is_bad and self._spec.device_id is None:
                self._probed_epoch = part.work.epoch
        self._waiting.extendleft(reversed(self._running))
        self._running.clear()

    def _probe_part(self, part: Part) -> None:
        """Take out the rows of which not even the first pixel can be decoded, and so no crop."""
        while len(part.rows_by_dali()):
            if self._probe is None:
                self._probe = Graph(self._spec)
            encoded, arrays = part.inputs(self._spec.shape)
            try:
                self._probe.start(encoded, _first_pixel(arrays))
                self._probe.take()
            except DecodeError as error:
                self._probe = None
                if error.row is None:
                    # DALI doesn't say which: the pipeline itself will fail, and each row is tried alone, more slowly.
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
