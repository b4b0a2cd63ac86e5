"""Numbers of planned shards -> their reports, by tasks on the machines of a Ray cluster.

A task is the number of a shard: what it needs lies in the folder that all machines share, and so does what it writes.
Nothing but counts comes back, and no object is put into Ray's store. A bounded number of tasks is in flight, so the
driver and the head of the cluster hold as much for ten shards as for a million.

A task whose machine or process dies is tried again, on another machine; at the end, a task that takes much longer than
the others is started a second time, and the first to end counts. Both write the same bytes, by renames.
"""

import contextlib
import os
import signal
import socket
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.errors import ImgdataError, MissingExtraError, OptionError, ShardError
from imgdata.shards.part_files import ClosedError
from imgdata.shards.planned_shard import write_planned_shard

STRAGGLER_S = 30.0
"""Seconds that a shard takes at least before it is started a second time."""
STRAGGLER_FACTOR = 3.0
"""How many times the median of the others that is."""
STALLED_S = 3600.0
"""Seconds without a finished shard after which a run ends."""
_POLL_S = 0.5
_CONNECT_S = 10.0
_MOST_IN_FLIGHT = 4096


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where tasks run, and what each of them may use."""

    address: str | None = None
    """Address of the cluster; `auto`: the one that this machine is part of; None: `RAY_ADDRESS`, else this machine."""
    task_cpus: float = 1.0
    """Processors of a task; each prepares images in as many threads."""
    task_memory: int | None = None
    """Bytes of memory that Ray reserves for a task; None: nothing is reserved."""
    retries: int = 3
    """How many times a shard is tried again after its process or machine died."""

    def __post_init__(self) -> None:
        if self.task_cpus <= 0:
            raise OptionError(f"task_cpus must be above 0, got {self.task_cpus}")
        if self.task_memory is not None and self.task_memory < 1:
            raise OptionError(f"task_memory must be at least 1 byte, got {self.task_memory}")
        if self.retries < 0:
            raise OptionError(f"retries must be at least 0, got {self.retries}")


@dataclass(frozen=True, slots=True)
class Written:
    """What a task says of its shard."""

    number: int
    samples: int
    bytes: int
    rejects: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Try:
    number: int
    begun: float


class RayEngine:
    """Tasks on a Ray cluster; a context manager that ends them on exit, with or without an error."""

    def __init__(self, options: RayOptions, *, told: Callable[[str], None] = lambda text: None) -> None:
        """Take the options; `told` gets a sentence for each task that is tried again. Raises `MissingExtraError`."""
        self._options = options
        self._told = told
        self._ray = _imported()
        self._own = False
        self._flying: dict[Any, _Try] = {}

    def check(self) -> None:
        """Raise `ShardError` where nothing answers at the address: Ray itself tries for many minutes."""
        address = self._options.address or os.environ.get("RAY_ADDRESS", "")
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal():
            return
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, str(getattr(error, "strerror", None) or error)) from error

    def __enter__(self) -> "RayEngine":
        self.check()
        ray = self._ray
        if not ray.is_initialized():
            self._own = True
            try:
                with _own_signals():
                    ray.init(address=self._options.address, log_to_driver=False, logging_level="error")
            except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
                lines = str(error).strip().splitlines()
                raise _no_cluster(
                    self._options.address or "this machine", lines[0].split(". ")[0] if lines else repr(error)
                ) from error
        return self

    def __exit__(self, *error: object) -> None:
        for task in self._flying:
            self._ray.cancel(task, force=True)
        self._flying.clear()
        if self._own:
            self._ray.shutdown()

    def run(self, folder: Path, plan_id: str, numbers: Sequence[int], files: Sequence[str]) -> Iterator[Written]:
        """Write the shards at the positions `numbers` of the plan in `folder`; yield what each says once it is there.

        `files` are the names of all shards of the plan. Raises `ClosedError`, the first error of a task, and
        `ShardError` when the tries of a shard are used up.
        """
        slots = self._slots()
        window = min(2 * slots + 2, _MOST_IN_FLIGHT)
        write = self._ray.remote(_write).options(
            num_cpus=self._options.task_cpus, memory=self._options.task_memory, max_retries=0, retry_exceptions=False
        )
        waiting = deque(numbers)
        done: set[int] = set()
        died: Counter[int] = Counter()
        seconds: deque[float] = deque(maxlen=1000)
        progressed = time.monotonic()
        all_run_since: float | None = None

        def start(number: int) -> None:
            self._flying[write.remote(str(folder), plan_id, number, self._options.task_cpus)] = _Try(
                number, time.monotonic()
            )

        while len(done) < len(numbers):
            while waiting and len(self._flying) < window:
                start(waiting.popleft())
            ended, _ = self._ray.wait(list(self._flying), num_returns=1, timeout=_POLL_S)
            for task in ended:
                number = self._flying.pop(task).number
                try:
                    written: Written = self._ray.get(task)
                except self._ray.exceptions.RayTaskError as error:
                    raise _cause(error, files[number]) from error
                except self._ray.exceptions.RayError as error:
                    # Another try may have written it, or may still run.
                    if number in done or any(other.number == number for other in self._flying.values()):
                        continue
                    died[number] += 1
                    self._try_again(number, died[number], files[number], error)
                    waiting.appendleft(number)
                    continue
                if number not in done:
                    done.add(number)
                    seconds.append(written.seconds)
                    progressed = time.monotonic()
                    self._cancel(number)
                    yield written
            now = time.monotonic()
            if now - progressed > STALLED_S:
                raise ShardError(
                    f"no shard was finished in {STALLED_S / 60:.0f} minutes; `ray status` says what the cluster waits "
                    "for; the same command resumes"
                )
            all_run_since = None if waiting or len(self._flying) > slots else all_run_since or now
            if all_run_since is not None and seconds:
                for number in self._stragglers(all_run_since, statistics.median(seconds)):
                    self._told(f"{files[number]}: takes long, and is started a second time")
                    start(number)

    def _stragglers(self, all_run_since: float, usual_s: float) -> list[int]:
        """Return the shards that were started once and take much longer than usual, since all tasks run."""
        limit_s = max(STRAGGLER_S, STRAGGLER_FACTOR * usual_s)
        tries = Counter(task.number for task in self._flying.values())
        now = time.monotonic()
        return [
            task.number
            for task in self._flying.values()
            if tries[task.number] == 1 and now - max(task.begun, all_run_since) > limit_s
        ]

    def _try_again(self, number: int, died: int, file: str, error: Exception) -> None:
        """Say that a task died. Raises `ShardError` when its tries are used up."""
        why = type(error).__name__
        if died > self._options.retries:
            raise ShardError(
                f"{file}: its process or machine died {died} times ({why}); if it was killed for memory, give "
                "--task-memory; the same command resumes from the finished shards"
            ) from error
        self._told(f"{file}: its process or machine died ({why}); it is tried again")

    def _cancel(self, number: int) -> None:
        """End other tries of a shard that is finished."""
        for task in [task for task, its in self._flying.items() if its.number == number]:
            del self._flying[task]
            self._ray.cancel(task, force=True)

    def _slots(self) -> int:
        """Return how many tasks run at once. Raises `OptionError` when no machine is large enough for one."""
        cpus, memory = self._options.task_cpus, self._options.task_memory or 0
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        slots = sum(
            int(min(machine.get("CPU", 0) // cpus, machine.get("memory", 0) // memory if memory else 1e9))
            for machine in machines
        )
        if not slots:
            raise OptionError(
                f"no machine of the cluster has {cpus:g} processors"
                + (f" and {memory / 1e9:.1f} GB of memory" if memory else "")
                + " for a task; give smaller --task-cpus or --task-memory"
            )
        return slots


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answers to signals, which Ray replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None: not Python's, and not to be set by it.
            if handler is not None:
                signal.signal(number, handler)


def _no_cluster(address: str, why: str) -> ShardError:
    return ShardError(
        f"no Ray cluster at {address}: {why}; start one with `ray start --head`, or give --address HOST:PORT"
    )


def _write(folder: str, plan_id: str, number: int, cpus: float) -> Written:
    """Write a shard; the function of a task."""
    begun = time.monotonic()
    report = write_planned_shard(Path(folder), plan_id, number, threads=max(1, int(cpus)))
    return Written(number, report.samples, report.bytes, len(report.rejects), time.monotonic() - begun)


def _cause(error: Any, file: str) -> Exception:
    """Return the error that a task raised."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, ImgdataError | ClosedError):
        return cause
    return ShardError(f"{file}: {type(cause).__name__}: {cause}; is the same imgdata installed on all machines?")


def _imported() -> Any:
    # Ray reports its use to its makers, unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("engine 'ray' needs Ray: pip install 'imgdata[ray]'") from error
    return ray
