"""Calls, loaders, processes -> how long they take: by the clock, in processor time, on the device; and how much memory.

The one place where times are measured. At its top it imports nothing but NumPy, so that processes that start workers
can measure their start.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from imgdata.cgroups import read_text

if TYPE_CHECKING:
    import torch

    from imgdata.loader.loader import Loader

_PROC = Path("/proc")
_PROCESS_CLOCK = 2
"""`CPUCLOCK_SCHED` of Linux: the clock of a process number, as `clock_getcpuclockid` makes it."""
_WARM_UP_BATCHES = 2
"""After the first one: threads start, memory is taken."""
_LEAST_BATCHES = 4
_CALL_S = 1.0
_LEAST_CALLS, _UNFINISHED = 3, 8
"""Calls that are timed, at least; calls that may be unfinished on a device, so that few are when time is up."""
K = TypeVar("K")


# Calls


def least_cpu_ms(calls: Mapping[K, Callable[[], int]], rounds: int = 3) -> dict[K, float]:
    """Return processor milliseconds for one image by each of `calls`, which return how many images they did.

    Time of the process and not of the clock: other programs hardly change it. The calls alternate, and the least of
    the rounds counts; each is called once before, to warm up.
    """
    for call in calls.values():
        call()
    best = {name: float("inf") for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.process_time()
            images = call()
            best[name] = min(best[name], 1000 * (time.process_time() - begun) / images)
    return best


def least_ms(call: Callable[[], object], device: "torch.device | str" = "cpu", *, rounds: int = 3) -> float:
    """Return the least milliseconds of `rounds` calls, by the clock; call it once before, to warm up."""
    best = float("inf")
    for _ in range(rounds):
        synchronize(device)
        begun = time.perf_counter()
        call()
        synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 1000 * best


def mean_s(call: Callable[[], object], device: "torch.device | str") -> float:
    """Return seconds of one call, the mean over about a second of them, after two calls to warm up."""
    for _ in range(2):
        call()
    synchronize(device)
    begun, count = time.perf_counter(), 0
    while count < _LEAST_CALLS or time.perf_counter() - begun < _CALL_S:
        call()
        count += 1
        if count % _UNFINISHED == 0:
            synchronize(device)
    synchronize(device)
    return (time.perf_counter() - begun) / count


# Loaders


class Rate(NamedTuple):
    """The measured rate of a loader."""

    images_per_s: float
    cpu_ms: float
    """Processor time for one image in milliseconds: user and system time of all threads."""
    cores: float
    """Cores that worked for this process on average."""
    denied: float
    """Cores that it was ready to use beside them, which ran other programs. 0 where the system doesn't say: Linux does.
    """


def loader_rate(loader: "Loader", seconds: float) -> Rate:
    """Return the rate of a loader in about so many seconds, epoch after epoch; its first batches don't count."""
    batches = _endless(loader)
    device = loader.device
    for _ in range(1 + _WARM_UP_BATCHES):
        next(batches)
    synchronize(device)
    begun, cpu_begun, queued_begun = time.perf_counter(), time.process_time(), _queued_s()
    images = count = 0
    while count < _LEAST_BATCHES or time.perf_counter() - begun < seconds:
        images += next(batches)
        count += 1
    synchronize(device)
    took, cpu_took = time.perf_counter() - begun, time.process_time() - cpu_begun
    queued = max(0.0, _queued_s() - queued_begun)
    return Rate(
        images_per_s=images / took, cpu_ms=1000 * cpu_took / images, cores=cpu_took / took, denied=queued / took
    )


def _endless(loader: "Loader") -> Iterator[int]:
    """Yield the number of images of each batch. No batch is kept, so its memory is used again."""
    while True:
        for batch in loader:
            yield len(batch.positions)


def _queued_s() -> float:
    """Return the seconds that living threads of this process were ready to run and had to wait for a core.

    The second number of `schedstat`, see the kernel's Documentation/scheduler/sched-stats.
    """
    # A thread may end meanwhile.
    lines = (read_text(file).split() for file in (_PROC / "self" / "task").glob("*/schedstat"))
    return sum(int(words[1]) for words in lines if words) / 1e9


# Devices


def synchronize(device: "torch.device | str") -> None:
    """Wait until the device has done all its work; a processor has."""
    name = str(device)
    if name == "cpu":
        return
    import torch

    if name.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif name == "mps":
        torch.mps.synchronize()


class Ticks:
    """Marks moments of a device: on an NVIDIA GPU those at which the GPU gets there, for which nothing waits."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._is_cuda = device.startswith("cuda")
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> float:
        """Mark this moment of the device; return the seconds of the host's clock."""
        now = time.perf_counter()
        self._times.append(now)
        if self._is_cuda:
            import torch

            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(torch.device(self._device)))
            self._events.append(event)
        return now

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        synchronize(self._device)

    def gaps_ms(self) -> NDArray[np.float64]:
        """Return milliseconds from each mark to the next, float64 `(marks - 1,)`; call `wait` first."""
        if not self._is_cuda:
            return 1000 * np.diff(self._times)
        pairs = zip(self._events, self._events[1:], strict=False)
        return np.array([before.elapsed_time(after) for before, after in pairs], np.float64)


# Processes


def sees_children() -> bool:
    """Return whether this system shows what living child processes take: Linux does."""
    return (_PROC / "self" / "stat").exists()


def process_tree() -> list[int]:
    """Return the numbers of this process, first, of its children and theirs; of it alone where they can't be seen."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir() if sees_children() else ():
        if entry.name.isdigit():
            # A process may end meanwhile.
            with suppress(OSError):
                # The name of the program is in parentheses and may hold any character.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return seconds of user and system time: of living processes so far, and of ended children of this one."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for pid in pids:
        if pid == os.getpid():
            seconds += time.process_time()
        else:
            # A worker that ended is among the ended ones.
            with suppress(OSError):
                seconds += time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)
    return seconds


def peak_mb(pids: Iterable[int]) -> float:
    """Return the peak memory of this process, and what the others have for themselves now, in 10^6 bytes.

    Workers share pages with their parent, and batches are in memory that both see: these count once.
    """
    others = (pid for pid in pids if pid != os.getpid())
    return (_own_peak() + sum(_private(pid) for pid in others)) / 1e6


def _own_peak() -> int:
    if not sees_children():
        # In bytes on macOS, in KiB elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # Not `ru_maxrss`: on Linux it begins with the memory of the process that started this one.
    return _kib(_PROC / "self" / "status", ("VmHWM",))


def _private(pid: int) -> int:
    with suppress(OSError):
        return _kib(_PROC / str(pid) / "smaps_rollup", ("Private_Clean", "Private_Dirty"))
    return 0


def _kib(path: Path, names: tuple[str, ...]) -> int:
    """Return the sum of these lines, `Name:  123 kB`, in bytes."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return sum(1024 * int(value.split()[0]) for name, _, value in lines if name in names)
