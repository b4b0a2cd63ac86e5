"""The same work over many files, in threads: hashing and decoding leave the interpreter to the other threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from imgdata.devices import own_cores
from imgdata.errors import OptionError

Job = TypeVar("Job")
Result = TypeVar("Result")


_thread = threading.local()


class StoppedError(Exception):
    """A job ends before its time because another one failed, or the user interrupted the command."""


def end_if_stopped() -> None:
    """Raise `StoppedError` in a job of `in_threads` whose result is not needed any more."""
    stop = getattr(_thread, "stop", None)
    if stop is not None and stop.is_set():
        raise StoppedError


def check_workers(workers: int | None) -> int:
    """Return the number of workers; by default the cores that this process may use. Raises `OptionError`."""
    if workers is None:
        return len(own_cores())
    if workers < 1:
        raise OptionError(f"workers must be at least 1, got {workers}")
    return workers


def in_threads(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Result]:
    """Yield `work` of each job, in order; `progress(done, all)` is called after each.

    The first error, and Ctrl-C, ends the jobs that have not begun, and those that call `end_if_stopped`.
    """
    stop = threading.Event()

    def stoppable(job: Job) -> Result:
        _thread.stop = stop
        return work(job)

    with ThreadPoolExecutor(check_workers(workers)) as pool:
        running = deque(pool.submit(stoppable, job) for job in jobs)
        try:
            for done in range(1, len(jobs) + 1):
                # A job that is taken out is not held here any more, nor is what it made.
                result = running.popleft().result()
                if progress is not None:
                    progress(done, len(jobs))
                yield result
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
