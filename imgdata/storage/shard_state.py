"""The settings of a cache of shards, what it counts, and what it has in one process: plain data."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imgdata.storage.shard_parts import OpenShard
from imgdata.storage.shard_shelves import Shelf


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """Where shards are kept, and how many."""

    memory: bool = False
    """In the memory of this process, not in the cache folder."""
    limit: int | None = None
    """Bytes; None, on the disk alone, for what the cache folder may hold in all."""
    ahead: int = 16
    """Shards that are fetched before a batch needs them, at most."""


@dataclass(frozen=True, slots=True)
class Need:
    """When an epoch needs a shard."""

    name: str
    first: int
    """The first batch, counted from where the epoch began here."""
    last: int
    """The last batch that is known so far."""


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """What a cache of shards has done in this process so far; printed, it is one line."""

    images: int = 0
    """Images that were asked for."""
    hits: int = 0
    """Those of them that needed no request: they were on this machine already."""
    fetched_bytes: int = 0
    """Bytes that came from the store, also of what is not kept."""
    waited_s: float = 0.0
    """Seconds for which batches waited for a store, all batches together."""

    @property
    def hit_share(self) -> float:
        """Share of the images that needed no request, 0 to 1; 1 where none was asked for."""
        return self.hits / self.images if self.images else 1.0

    def since(self, before: "CacheFacts") -> "CacheFacts":
        """Return what has been done since `before`, facts of the same cache."""
        return CacheFacts(
            self.images - before.images,
            self.hits - before.hits,
            self.fetched_bytes - before.fetched_bytes,
            self.waited_s - before.waited_s,
        )

    def __str__(self) -> str:
        share = 100 * self.hit_share
        return f"{share:.0f} % hits, {size_text(self.fetched_bytes)} fetched, waited {self.waited_s:.1f} s"


def size_text(num_bytes: int) -> str:
    """Return a number of bytes for people, such as `1.5 GB`."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


@dataclass(eq=False)
class CacheState:
    """What a cache has in one process."""

    shelf: Shelf | None
    """None once it can't be used."""
    shards: dict[str, OpenShard] = field(default_factory=dict)
    by_file: dict[int, OpenShard] = field(default_factory=dict)
    needs: dict[str, Need] = field(default_factory=dict)
    waiting: deque[Need] = field(default_factory=deque)
    """Needs for which nothing has begun."""
    passage: Iterator[Sequence[Need]] = field(default_factory=lambda: iter(()))
    batch: int = 0
    """No batch before this one is still to be made."""
    known: int = -1
    """The last batch whose needs are known."""
    complete: deque[OpenShard] = field(default_factory=deque)
    """Shards to be verified."""
    facts: CacheFacts = CacheFacts()
    fetchers: int = 0
    syncing: set[str] = field(default_factory=set)
    """Shards that are verified, and on their way to the disk."""
    warning: str = ""
    not_before: dict[str, float] = field(default_factory=dict)
    """When to ask again for a shard that another process has begun; under the empty name, for room."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    first_is_here: threading.Event = field(default_factory=threading.Event)
    """Set once the first batch has its bytes: until then others ask for none."""
