"""Things lent out -> the same things back, when whoever held them is gone."""

import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")


class Loans(Generic[Thing]):
    """Remembers what is lent until its holder is gone, and then has it to fetch.

    No Python code runs when a holder goes, which is at any place and in any thread: Ctrl-C there would be lost, and a
    lock might be held already. One thread at a time may lend and fetch.
    """

    def __init__(self) -> None:
        self._lent: dict[int, tuple[weakref.ref[Any], Thing]] = {}
        self._ended: deque[weakref.ref[Any]] = deque()

    def __len__(self) -> int:
        """How many are lent, those included that wait to be fetched."""
        return len(self._lent)

    def lend(self, thing: Thing, holder: Any) -> None:
        """`thing` is in use as long as `holder` lives."""
        ended = weakref.ref(holder, self._ended.append)
        # The number of a weak reference: its hash would be its holder's, and arrays have none.
        self._lent[id(ended)] = (ended, thing)

    def fetch(self) -> Iterator[Thing]:
        """Each of the things that nobody uses any more, once."""
        while self._ended:
            yield self._lent.pop(id(self._ended.popleft()))[1]
