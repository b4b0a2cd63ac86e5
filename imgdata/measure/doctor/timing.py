"""Something to do, some images -> processor time or rate, as little disturbed as the machine allows."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from imgdata.measure.machine.cgroups import read_text

if TYPE_CHECKING:
    from imgdata.loader.loader import Loader

_WARM_UP_BATCHES = 2
"""Behind the first one: threads start, memory is taken."""
_LEAST_BATCHES = 4
K = TypeVar("K")


class Rate(NamedTuple):
    """What a loader gave."""

    images_per_s: float
    cpu_ms: float
    """Of the processor for one image: user and system time of all threads."""
    cores: float
    """How many of them worked for this process on average."""
    denied: float
    """How many more it was ready to use, which ran other programs. 0 where the system doesn't say: Linux does."""


def least_cpu_ms(calls: Mapping[K, Callable[[], int]], rounds: int = 3) -> dict[K, float]:
    """Processor milliseconds for one image by each of `calls`, which return how many images they did.

    Time of the process and not of the clock: other programs hardly change it. The calls take turns, and the least of
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


def loader_rate(loader: "Loader", seconds: float) -> Rate:
    """Images of a real loader in about so many seconds, epoch after epoch; its first batches don't count."""
    batches = _endless(loader)
    for _ in range(1 + _WARM_UP_BATCHES):
        next(batches)
    _settle(loader)
    begun, cpu_begun, queued_begun = time.perf_counter(), time.process_time(), _queued_s()
    images = count = 0
    while count < _LEAST_BATCHES or time.perf_counter() - begun < seconds:
        images += next(batches)
        count += 1
    _settle(loader)
    took, cpu_took = time.perf_counter() - begun, time.process_time() - cpu_begun
    queued = max(0.0, _queued_s() - queued_begun)
    return Rate(
        images_per_s=images / took, cpu_ms=1000 * cpu_took / images, cores=cpu_took / took, denied=queued / took
    )


def _queued_s() -> float:
    """Seconds that living threads of this process were ready to run and had to wait for a core.

    The second number of `schedstat`, see the kernel's Documentation/scheduler/sched-stats.
    """
    # A thread may end meanwhile.
    lines = (read_text(file).split() for file in Path("/proc/self/task").glob("*/schedstat"))
    return sum(int(words[1]) for words in lines if words) / 1e9


def _endless(loader: "Loader") -> Iterator[int]:
    """Images of each batch. No batch is held on to, so its memory is used again."""
    while True:
        for batch in loader:
            yield len(batch.positions)


def _settle(loader: "Loader") -> None:
    """Wait for a GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
