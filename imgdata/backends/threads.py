"""Tasks -> a few threads that run them; the threads end with their owner, or with the program."""

import os
import queue
import threading
import weakref
from collections.abc import Callable

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
