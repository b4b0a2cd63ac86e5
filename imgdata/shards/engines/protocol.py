"""What a job asks of an engine: shard tasks -> their reports, in any order, by whatever runs them.

An engine decides where and when tasks run, and nothing else: a task holds all that its worker needs, and its bytes
follow from it alone. `local` has threads and processes of this machine; another engine is another module here.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from imgdata.shards.plan import ShardTask
from imgdata.shards.record import ShardReport
from imgdata.shards.writer import Progress


class Engine(Protocol):
    """A runner of shard tasks; a context manager that ends all workers on exit, with or without an error."""

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *error: object) -> None: ...

    def run(self, tasks: Iterable[ShardTask], total: int, told: Progress) -> Iterator[ShardReport]:
        """Write every shard, and give its report as soon as it is finished, in any order.

        `tasks` are made as they are asked for, `total` is their number, and `told(samples, bytes, rejects)` is called,
        in this thread, with what was done since the last call. Raises the first error of a task.
        """
        ...
