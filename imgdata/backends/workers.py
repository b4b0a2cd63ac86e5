"""Tasks -> a few threads that run them; batches in work and what makes them, which all end with their backend."""

# PyTorch, which the first batch imports, needs it, and it can't be imported while the program ends.
import concurrent.futures.thread  # noqa: F401
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

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
        # Runs once: when called, when `self` is no longer referenced, or when the program ends. Python itself does not
        # wait for daemon threads, which it would do before this.
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
    if os.getpid() != pid:  # A forked child has none of the threads.
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


class Completion:
    """The end of a batch: any thread signals it, one waits for it; safe in threads."""

    def __init__(self) -> None:
        self.cancelled = False
        self._fault: BaseException | None = None
        # A queue, not an event: the collector may call `cancel` while this same thread holds an event's lock. Each
        # signal ends one `wait`.
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def abandoned(self) -> bool:
        """Whether the rest of the work can be left out: the batch was cancelled, or has failed."""
        return self.cancelled or self._fault is not None

    def fail(self, fault: BaseException) -> None:
        """Let the next `wait` raise `fault`, once `signal` ends it."""
        self._fault = None if self.cancelled else fault

    def signal(self) -> None:
        """End one `wait`."""
        self._signals.put(None)

    def cancel(self) -> None:
        """End every `wait`, now and later."""
        self.cancelled = True
        self._fault = None
        self.signal()

    def wait(self) -> None:
        """Wait for a signal. Raises the fault if there is one, and `OptionError` once the batch is cancelled."""
        if not self.cancelled:
            self._signals.get()
        if self.cancelled:
            raise closed()
        fault, self._fault = self._fault, None
        try:
            if fault is not None:
                raise fault
        finally:
            # The fault's traceback references this frame.
            del fault


def closed() -> OptionError:
    """Return the error of a use of a closed backend or loader."""
    return OptionError("this loader is closed; make another Loader")


class Cancellable(Protocol):
    """A batch, as far as its backend ends it."""

    def cancel(self) -> None:
        """Stop as soon as possible."""
        ...


class Closable(Protocol):
    """Threads, or something that has threads."""

    def close(self) -> object:
        """End it; may be called twice."""
        ...


B = TypeVar("B", bound=Cancellable)
C = TypeVar("C", bound=Closable)


class Workers(Generic[B]):
    """The life of a backend: the batches in work, and what makes them, each started once, when it is first needed.

    `close` cancels the batches and closes what makes them. Safe in threads. Nothing here references the backend: one
    that is no longer referenced ends its threads.
    """

    def __init__(self) -> None:
        self._makers: dict[str, Closable] = {}
        self._batches: list[weakref.ref[B]] = []
        self._closed = False
        # Reentrant, since the collector may close a loader that is no longer referenced anywhere.
        self._lock = threading.RLock()

    def begin(self, make: Callable[[], B]) -> B:
        """Return the batch that `make` gives, and know it until it is no longer referenced."""
        with self._lock:
            self.check_open()
            batch = make()
            # No `WeakSet`, which runs Python code wherever a batch goes: Ctrl-C there would be lost.
            self._batches = [*(known for known in self._batches if known() is not None), weakref.ref(batch)]
            return batch

    def once(self, name: str, make: Callable[[], C]) -> C:
        """Return what `make` gave for `name` at the first call. Raises `OptionError` after `close`."""
        with self._lock:
            self.check_open()
            if name not in self._makers:
                self._makers[name] = make()
            made: C = self._makers[name]  # type: ignore[assignment]
            return made

    def pool(self, name: str, count: int) -> Threads:
        """Return the `count` threads of that name."""
        return self.once(name, lambda: Threads(count))

    def batches(self) -> list[B]:
        """Return the batches that are still referenced."""
        return [batch for known in self._batches if (batch := known()) is not None]

    def check_open(self) -> None:
        """Raise `OptionError` after `close`."""
        if self._closed:
            raise closed()

    def close(self) -> None:
        """Cancel all batches, then end what makes them, the last first; may be called twice."""
        with self._lock:
            self._closed = True
            makers = list(self._makers.values())
        for batch in self.batches():
            batch.cancel()
        for maker in reversed(makers):
            maker.close()
