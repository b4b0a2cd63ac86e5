"""Numbered tasks -> their results, on the machines of a Ray cluster.

A task is a number with few small arguments: what it needs lies in folders or stores that all machines reach. What all
tasks share is sent once to each process, and a bounded number of tasks is in flight, so the driver and the head of the
cluster hold as much for ten tasks as for a million.

A task whose machine or process dies is tried again, on another machine; at the end, a task that takes much longer than
the others is started a second time, and the first to end counts. So tasks do no harm where they run twice.
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
from typing import Any, Generic, Literal, TypeVar

from imgdata.errors import ImgdataError, MissingExtraError, OptionError, ShardError

STRAGGLER_S = 30.0
"""Seconds that a task takes at least before it is started a second time."""
STRAGGLER_FACTOR = 3.0
"""How many times the median of the others that is."""
STALLED_S = 3600.0
"""Seconds without a finished task after which a run ends."""
_POLL_S = 0.5
_CONNECT_S = 10.0
_MOST_IN_FLIGHT = 4096

Result = TypeVar("Result")


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
    """How many times a task is tried again after its process or machine died."""

    def __post_init__(self) -> None:
        if self.task_cpus <= 0:
            raise OptionError(f"task_cpus must be above 0, got {self.task_cpus}")
        if self.task_memory is not None and self.task_memory < 1:
            raise OptionError(f"task_memory must be at least 1 byte, got {self.task_memory}")
        if self.retries < 0:
            raise OptionError(f"retries must be at least 0, got {self.retries}")


ChosenEngine = Literal["local", "ray"] | RayOptions
"""Where work is done: on this machine, or on a Ray cluster."""


def cluster_options(engine: ChosenEngine) -> RayOptions | None:
    """Return what is asked of a cluster; None for this machine. Raises `OptionError`."""
    if engine not in ("local", "ray") and not isinstance(engine, RayOptions):
        raise OptionError(f"engine must be local, ray or RayOptions, got {engine!r}")
    if isinstance(engine, RayOptions):
        return engine
    return RayOptions() if engine == "ray" else None


@dataclass(frozen=True, kw_only=True)
class Tasks(Generic[Result]):
    """What tasks do, and what is said of those that fail."""

    work: Callable[..., Result]
    """Function of a task's arguments; sent once to each process, with all that it holds, so it must be picklable."""
    arguments: Callable[[int], tuple[Any, ...]]
    """Function of a task's number: its arguments, made whenever it is started."""
    name: Callable[[int], str]
    """Function of a task's number: what it works on, for people."""
    raises: tuple[type[Exception], ...] = ()
    """Errors of the work, beside imgdata's own, that are raised as they are."""
    way_out: str = "the same command resumes"
    """What to do after an error."""


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

    @property
    def threads(self) -> int:
        """Number of threads in which a task may work."""
        return max(1, int(self._options.task_cpus))

    def run(self, tasks: Tasks[Result], numbers: Sequence[int]) -> Iterator[tuple[int, Result]]:
        """Run the tasks `numbers`; yield the number and the result of each as soon as it is there, in any order.

        Raises the first error of a task, and `ShardError` when the tries of one are used up.
        """
        slots = self._slots()
        window = min(2 * slots + 2, _MOST_IN_FLIGHT)
        remote = self._ray.remote(_measured(tasks.work)).options(
            num_cpus=self._options.task_cpus, memory=self._options.task_memory, max_retries=0, retry_exceptions=False
        )
        waiting = deque(numbers)
        done: set[int] = set()
        died: Counter[int] = Counter()
        seconds: deque[float] = deque(maxlen=1000)
        progressed = time.monotonic()
        all_run_since: float | None = None

        def start(number: int) -> None:
            self._flying[remote.remote(*tasks.arguments(number))] = _Try(number, time.monotonic())

        while len(done) < len(numbers):
            while waiting and len(self._flying) < window:
                start(waiting.popleft())
            ended, _ = self._ray.wait(list(self._flying), num_returns=1, timeout=_POLL_S)
            for task in ended:
                number = self._flying.pop(task).number
                try:
                    took_s, result = self._ray.get(task)
                except self._ray.exceptions.RayTaskError as error:
                    raise _cause(error, tasks, number) from error
                except self._ray.exceptions.RayError as error:
                    # Another try may have ended well, or may still run.
                    if number in done or any(other.number == number for other in self._flying.values()):
                        continue
                    died[number] += 1
                    self._try_again(tasks, number, died[number], error)
                    waiting.appendleft(number)
                    continue
                if number not in done:
                    done.add(number)
                    seconds.append(took_s)
                    progressed = time.monotonic()
                    self._cancel(number)
                    yield number, result
            now = time.monotonic()
            if now - progressed > STALLED_S:
                raise ShardError(
                    f"no task ended in {STALLED_S / 60:.0f} minutes; `ray status` says what the cluster waits for; "
                    f"{tasks.way_out}"
                )
            all_run_since = None if waiting or len(self._flying) > slots else all_run_since or now
            if all_run_since is not None and seconds:
                for number in self._stragglers(all_run_since, statistics.median(seconds)):
                    self._told(f"{tasks.name(number)}: takes long, and is started a second time")
                    start(number)

    def _stragglers(self, all_run_since: float, usual_s: float) -> list[int]:
        """Return the tasks that were started once and take much longer than usual, since all tasks run."""
        limit_s = max(STRAGGLER_S, STRAGGLER_FACTOR * usual_s)
        tries = Counter(task.number for task in self._flying.values())
        now = time.monotonic()
        return [
            task.number
            for task in self._flying.values()
            if tries[task.number] == 1 and now - max(task.begun, all_run_since) > limit_s
        ]

    def _try_again(self, tasks: Tasks[Any], number: int, died: int, error: Exception) -> None:
        """Say that a task died. Raises `ShardError` when its tries are used up."""
        what, why = tasks.name(number), type(error).__name__
        if died > self._options.retries:
            raise ShardError(
                f"{what}: its process or machine died {died} times ({why}); if it was killed for memory, give "
                f"--task-memory; {tasks.way_out}"
            ) from error
        self._told(f"{what}: its process or machine died ({why}); it is tried again")

    def _cancel(self, number: int) -> None:
        """End other tries of a task that is finished."""
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


def _measured(work: Callable[..., Result]) -> Callable[..., tuple[float, Result]]:
    """Return the function of a task: `work`, and the seconds that it takes.

    It is a function inside of one, which Ray pickles with all that it refers to, once for all tasks.
    """
    run = _timed

    def task(*arguments: Any) -> tuple[float, Result]:
        return run(work, arguments)

    return task


def _timed(work: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[float, Result]:
    begun = time.monotonic()
    result = work(*arguments)
    return time.monotonic() - begun, result


def _cause(error: Any, tasks: Tasks[Any], number: int) -> Exception:
    """Return the error that a task raised."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception) and isinstance(cause, (ImgdataError, *tasks.raises)):
        return cause
    what = tasks.name(number)
    return ShardError(f"{what}: {type(cause).__name__}: {cause}; is the same imgdata installed on all machines?")


def _imported() -> Any:
    # Ray reports its use to its makers, unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("engine 'ray' needs Ray: pip install 'imgdata[ray]'") from error
    return ray
