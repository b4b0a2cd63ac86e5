"""Tasks -> a few threads that run them; the threads end with their owner, or with the program."""

import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from imgdata.errors import OptionError

Task = Callable[[], None]
_JOIN_S = 10.0
"""Seconds to wait for a thread's last task. A limit, since this may run while the garbage is collected anywhere."""


class Threads:
    """`count` threads that take tasks in order. A task must not raise.

    `concurrent.futures` would run all that is still queued before the program could end.
    """

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=_serve, args=(self._tasks,), name=f"imgdata-{number}", daemon=True)
            for number in range(count)
        ]
        # Runs once: when called, when nobody holds `self` any more, or when the program ends. Daemons are not waited
        # for by Python itself, which would be before this.
        self.close = weakref.finalize(self, _stop, self._tasks, threads, os.getpid())
        for thread in threads:
            thread.start()

    def submit(self, task: Task) -> None:
        """Run `task` when those before it are taken; never after `close`."""
        self._tasks.put(task)


def _serve(tasks: "queue.SimpleQueue[Task | None]") -> None:
    while _run_next(tasks):
        pass


def _run_next(tasks: "queue.SimpleQueue[Task | None]") -> bool:
    # A function of its own, so that a thread that waits for the next task doesn't hold the last one.
    task = tasks.get()
    if task is not None:
        task()
    return task is not None


def _stop(tasks: "queue.SimpleQueue[Task | None]", threads: list[threading.Thread], pid: int) -> None:
    if os.getpid() != pid:  # They did not come along through a fork.
        return
    try:
        while True:
            tasks.get_nowait()
    except queue.Empty:
        pass
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(_JOIN_S)


T = TypeVar("T")


class Ending:
    """How a batch ends. Any thread tells, one waits; safe in threads."""

    def __init__(self) -> None:
        self.cancelled = False
        self._fault: BaseException | None = None
        # Something to take out each time. No event: the collector may call `cancel` while this same thread holds the
        # event's lock.
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def given_up(self) -> bool:
        """Whether nothing more need be done for it."""
        return self.cancelled or self._fault is not None

    def fail(self, fault: BaseException) -> None:
        """Let the next `wait` raise `fault`; `tell` ends it."""
        self._fault = None if self.cancelled else fault

    def tell(self) -> None:
        """End one `wait`."""
        self._told.put(None)

    def cancel(self) -> None:
        """End it for good."""
        self.cancelled = True
        self._fault = None
        self.tell()

    def wait(self) -> None:
        """Until something is told. Raises what went wrong, and `OptionError` once it is cancelled."""
        if not self.cancelled:
            self._told.get()
        if self.cancelled:
            raise closed()
        fault, self._fault = self._fault, None
        try:
            if fault is not None:
                raise fault
        finally:
            # Its traceback holds this frame.
            del fault


def closed() -> OptionError:
    """What using a closed backend or loader raises."""
    return OptionError("this loader is closed; make another Loader")


def begun(batches: list[weakref.ref[T]], batch: T) -> list[weakref.ref[T]]:
    """Those of `batches` that somebody holds yet, and `batch`.

    No set of them, which runs Python code wherever one goes: Ctrl-C there would be lost.
    """
    return [*(known for known in batches if known() is not None), weakref.ref(batch)]


def alive(batches: list[weakref.ref[T]]) -> list[T]:
    """The batches that somebody holds yet."""
    return [batch for known in batches if (batch := known()) is not None]
