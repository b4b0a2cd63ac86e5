"""The same work over many files, in threads: hashing and decoding leave the interpreter to the other threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from imgdata.devices import own_cores
from imgdata.errors import OptionError

Job = TypeVar("Job")
Result = TypeVar("Result")


def check_workers(workers: int | None) -> int:
    """The number of workers; by default the cores that this process may use. Raises `OptionError`."""
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
    """`work` of each job, in order; `progress(done, all)` hears of each. The first error ends what has not begun."""
    with ThreadPoolExecutor(check_workers(workers)) as pool:
        running = [pool.submit(work, job) for job in jobs]
        try:
            for done, job in enumerate(running, 1):
                result = job.result()
                if progress is not None:
                    progress(done, len(running))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
