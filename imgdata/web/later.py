"""A long computation -> its result, computed once in a thread of its own; until then how far it is."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Gets how much is done, and of how much."""


class NotYetError(Exception):
    """The result is still computed; ask again."""

    def __init__(self, what: str, done: int, total: int) -> None:
        super().__init__(f"{what}: {done:,} of {total:,}" if total else what)
        self.what, self.done, self.total = what, done, total


class Later(Generic[T]):
    """A result that the first who asks starts to compute."""

    def __init__(self, what: str, work: Callable[[Progress], T]) -> None:
        """Take what is done, in words that go on with `: 3 of 9`, and the work itself."""
        self._what, self._work = what, work
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._done, self._total = 0, 0
        self._result: list[T] = []
        self._error: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether the result is there."""
        return bool(self._result)

    def get(self) -> T:
        """Return the result. Raises `NotYetError` before it is there, and the work's own error, once; then again."""
        with self._lock:
            if self._result:
                return self._result[0]
            if self._error is not None:
                error, self._error, self._thread = self._error, None, None
                raise error
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name=self._what)
                self._thread.start()
            raise NotYetError(self._what, self._done, self._total)

    def wait(self) -> T:
        """Return the result when it is there. Raises the work's own error."""
        while True:
            try:
                return self.get()
            except NotYetError:
                thread = self._thread
                if thread is not None:
                    thread.join()

    def _run(self) -> None:
        def progress(done: int, total: int) -> None:
            self._done, self._total = done, total

        try:
            self._result.append(self._work(progress))
        except Exception as error:  # Raised for whoever asks next.
            self._error = error
