"""Pieces of the samples of an audit, a function of them -> what it finds of each, by threads or by other machines.

All that reads or decodes many pictures goes through `Workers`. What a function finds of a sample must not depend on
the samples beside it, so that it does not matter how they are cut, and who gets which.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from imgdata.auditing.samples import Samples

Result = TypeVar("Result")
Piece = Sequence[int]
"""Numbers of samples, ascending."""
Finder = Callable[[Samples], Callable[[Piece], Result]]
"""Function of samples that prepares what it needs of them, and returns the function of a piece; picklable."""

_AHEAD = 2
"""Pieces for each thread that are in work or wait."""


class Workers(Protocol):
    """Who looks at the pictures."""

    @property
    def threads(self) -> int:
        """Number of threads in which a finder may work."""
        ...

    def run(self, samples: Samples, finder: Finder[Result], pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Result]]:
        """Yield each piece with what is found of it, in any order. Raises what the finder raises.

        Numbers ascend from piece to piece as well.
        """
        ...


class Threads:
    """Threads of this process. See `Workers`; results come in the order of the pieces."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def threads(self) -> int:
        """See `Workers`: pieces have a thread each."""
        return 1

    def run(self, samples: Samples, finder: Finder[Result], pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Result]]:
        """See `Workers`."""
        find = finder(samples)
        pool = ThreadPoolExecutor(self._number, "imgdata-audit")
        begun: deque[tuple[Piece, Future[Result]]] = deque()
        try:
            for piece in pieces:
                begun.append((piece, pool.submit(find, piece)))
                if len(begun) >= self._number * _AHEAD:
                    first, future = begun.popleft()
                    yield first, future.result()
            while begun:
                first, future = begun.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
