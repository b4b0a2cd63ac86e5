"""Requests side by side -> their end, or the first error; whoever waits can give up."""

import queue
import threading
from collections.abc import Callable

_POLL_S = 0.1
_THREAD = threading.local()
"""`stop`: the event that ends the work of a thread of `in_parallel`."""


class GivenUpError(Exception):
    """The results are not needed, or the program ends."""


def in_parallel(work: Callable[[int], None], count: int, *, threads: int, given_up: Callable[[], bool]) -> None:
    """Call `work` with 0 to `count` - 1 in some threads; raise its first error, without a wait for the others.

    Raises `GivenUpError` once `given_up` says so, and when the program ends.
    """
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def serve() -> None:
        _THREAD.stop = stop
        try:
            while not stop.is_set():
                work(numbers.get_nowait())
        except queue.Empty:
            ended.put(None)
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    left = min(count, threads)
    for _ in range(left):
        # Daemons: a program that ends does not wait for a server. Made for each call, since a fork loses them.
        threading.Thread(target=serve, name="imgdata-remote", daemon=True).start()
    try:
        while left:
            try:
                fault = ended.get(timeout=_POLL_S)
            except queue.Empty:
                if given_up() or not threading.main_thread().is_alive():
                    raise GivenUpError from None
                continue
            if fault is not None:
                raise fault
            left -= 1
    finally:
        stop.set()


def is_stopped() -> bool:
    """Return whether nothing waits for the work of this thread any more."""
    stop: threading.Event | None = getattr(_THREAD, "stop", None)
    return stop is not None and stop.is_set()
