"""A process and its children -> the processor time and the memory that they take."""

import os
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_PROCESS_CLOCK = 2
"""`CPUCLOCK_SCHED` of Linux: the clock of a process number, as `clock_getcpuclockid` makes it."""


def sees_children() -> bool:
    """Whether this system shows what living child processes take: Linux does."""
    return (_PROC / "self" / "stat").exists()


def tree() -> list[int]:
    """Numbers of this process, first, of its children and theirs; of this process alone where they can't be seen."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir() if sees_children() else ():
        if entry.name.isdigit():
            # A process may end meanwhile.
            with suppress(OSError):
                # The name of the program stands in parentheses and may hold any character.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of living processes so far, and of children of this one that have ended, in seconds."""
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
    """Most memory of this process so far, and what the others have for themselves now, in 10^6 bytes.

    Workers share pages with their parent, and batches lie in memory that both see: these count once.
    """
    others = (pid for pid in pids if pid != os.getpid())
    return (_own_peak() + sum(_private(pid) for pid in others)) / 1e6


def _own_peak() -> int:
    if not sees_children():
        # In bytes on macOS, in KiB elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # Not `ru_maxrss`: on Linux it begins with the memory of whoever started this process.
    return _kib(_PROC / "self" / "status", ("VmHWM",))


def _private(pid: int) -> int:
    with suppress(OSError):
        return _kib(_PROC / str(pid) / "smaps_rollup", ("Private_Clean", "Private_Dirty"))
    return 0


def _kib(path: Path, names: tuple[str, ...]) -> int:
    """The sum of these lines, `Name:  123 kB`, in bytes."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return sum(1024 * int(value.split()[0]) for name, _, value in lines if name in names)
