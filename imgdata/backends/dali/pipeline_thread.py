"""Parts that were read -> the pipeline, one behind the other, by a thread of its own; built again where it fails."""

import atexit
import os
import queue
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.dali.available import load
from imgdata.backends.dali.faults import DecodeError, not_a_pictures, with_advice
from imgdata.backends.dali.pipeline import Encoded, Graph, GraphSpec
from imgdata.backends.dali.pipeline_run import Part
from imgdata.errors import ImageError

_JOIN_S = 10.0
_MANY = 8
"""Rows of a part that fail alone after which the machine is suspected."""
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

    DALI blames a picture also where memory is short or a GPU has faults. So a row that doesn't fail alone is not at
    fault, and where the host decodes what DALI refuses, DALI must decode a good picture of the same size and crop, and
    refuse the row once more. Else the fault is raised, and nothing remembered. A part of which no row fails alone is
    run once more.
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
            # The traceback references the pipeline, which would keep its memory until the collector runs.
            traceback.clear_frames(error.__traceback__)
            # What else runs is lost with the pipeline.
            self._graph = self._probe = None
            told = with_advice(
                error,
                device="cpu" if self._spec.device_id is None else f"cuda:{self._spec.device_id}",
                batch_size=self._spec.batch_size,
                depth=self._depth,
                threads=self._spec.threads,
            )
            for lost in {part, *self._running}:
                lost.fail(told)
            self._running.clear()

    def _feed(self, part: Part) -> None:
        if part.cancelled or part.fault:
            return
        if part.work.epoch == self._probed_epoch:
            self._probe_part(part)
        if self._graph is None:
            self._graph = self._built(part)
        self._graph.start(*part.inputs(self._spec.shape))
        self._running.append(part)

    def _built(self, part: Part) -> Graph:
        """Return a new pipeline. On a GPU its first run is of full size, and shows nothing where `part` is smaller.

        By the first run nvImageCodec shares out the rows between the decoder engine and the cores, for all runs.
        """
        graph, count = Graph(self._spec), self._spec.batch_size
        if self._spec.device_id is not None and len(part.work.position_N) < count:
            graph.start(*part.placeholders(self._spec.shape, count))
            graph.take()
        return graph

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
        # The traceback references the failed pipeline, whose memory the next ones need.
        traceback.clear_frames(error.__traceback__)
        rows = self._refused_alone(part, error) if error.row is None else [error.row]
        if not [row for row in rows if self._take_out(part, row, error)]:
            if part.was_rerun:
                raise not_a_pictures(error, f"a batch of {len(part.work.position_N)} fails, and none of it alone")
            part.was_rerun = True
        self._waiting.extendleft(reversed(self._running))
        self._running.clear()

    def _take_out(self, part: Part, row: int, error: DecodeError) -> bool:
        """Give a row that DALI can't decode alone to the host; return whether that is so."""
        is_bad = not self._decodes(part, row, first_pixel=True)
        if not is_bad and self._decodes(part, row):
            return False
        # Not remembered if the first pixel can be decoded: crops above the damage succeed, in this run and in any
        # other, so that pixels don't depend on what was read before.
        if not self._give_to_host(part, row, error, first_pixel=is_bad):
            return False
        # Not on a GPU, where decoding the first pixel takes as long as decoding the whole picture.
        if is_bad and self._spec.device_id is None:
            self._probed_epoch = part.work.epoch
        return True

    def _give_to_host(self, part: Part, row: int, error: DecodeError, *, first_pixel: bool) -> bool:
        """Let the host make a row that DALI refuses; return False if DALI decodes it after all.

        A row that DALI refuses down to its first pixel is remembered.
        """
        made = part.cut_on_host(row)
        if not isinstance(made, ImageError):
            # Either DALI's decoder is stricter than the host's, or it fails on all pictures, or it did so for a while.
            self._check_machine(part, row, error)
            if self._decodes(part, row, first_pixel=first_pixel):
                return False
        part.refuse(row, made, remember=first_pixel)
        return True

    def _check_machine(self, part: Part, row: int, error: DecodeError) -> None:
        """Raise the fault of the machine if DALI can't decode a good picture of the same size and crop either."""
        if not self._decodes(part, row, data=part.stand_in(row)):
            raise not_a_pictures(error, "a good picture fails as well")

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
                if not self._give_to_host(part, error.row, error, first_pixel=True):
                    return
            else:
                return

    def _refused_alone(self, part: Part, error: DecodeError) -> list[int]:
        """Return the rows that DALI can't decode alone, where DALI doesn't name the row that failed."""
        rows, refused, graph = part.rows_by_dali().tolist(), list[int](), None
        for row in rows:
            if len(refused) % _MANY == 0 and graph is None:
                # Before the first, and again where many fail: it may be all that fails now.
                self._check_machine(part, row, error)
            graph = graph or self._alone()
            if not _succeeds(graph, *part.inputs(self._spec.shape, slice(row, row + 1))):
                refused.append(row)
                graph = None
        return refused

    def _decodes(self, part: Part, row: int, *, first_pixel: bool = False, data: bytes | None = None) -> bool:
        """Return whether DALI decodes a row by itself, or its first pixel; or `data` in its place."""
        encoded, arrays = part.inputs(self._spec.shape, slice(row, row + 1))
        if data is not None:
            encoded = [np.frombuffer(data, np.uint8)]
        graph = self._alone(cores_only=first_pixel)
        return _succeeds(graph, encoded, _first_pixel(arrays) if first_pixel else arrays)

    def _alone(self, *, cores_only: bool = False) -> Graph:
        """Return a pipeline for one row, with as little memory as can be: it may be memory that is missing.

        With `cores_only` a GPU's engine is left out: what is remembered, neither can decode.
        """
        spec = replace(self._spec, batch_size=1, threads=1, largest_2=None)
        return Graph(replace(spec, hw_decoder_load=0.0) if cores_only else spec)


def _succeeds(graph: Graph, encoded: Encoded, arrays: Mapping[str, NDArray[np.generic]]) -> bool:
    """Return whether the pipeline decodes all of it; if not, it is of no use any more."""
    try:
        graph.start(encoded, arrays)
        graph.take()
    except DecodeError:
        return False
    return True


def _first_pixel(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {name: np.full_like(array, _TOP[name]) if name in _TOP else array for name, array in arrays.items()}
