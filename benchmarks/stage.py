"""A stage of the work -> its time by pytest-benchmark, and what it costs, as `extra_info` of the result.

Set-up lies outside the timer, waiting for the device inside it. Rounds are few and long: the median counts.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from imgdata.measure.timing import cpu_s as cpu_s_of
from imgdata.measure.timing import process_tree, synchronize

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
"""What the kernel's `clear_refs` takes to forget the largest resident set; see proc(5)."""

Setup = Callable[[], tuple[Any, ...]]


class Stage:
    """One benchmark: `stage("imgdata", work, images=64)`."""

    def __init__(self, benchmark: BenchmarkFixture, rounds: int) -> None:
        self._benchmark = benchmark
        self._rounds = rounds

    def __call__(
        self,
        name: str,
        work: Callable[..., Any],
        *,
        images: int,
        num_bytes: int = 0,
        setup: Setup = tuple,
        teardown: Callable[..., None] = lambda *_: None,
        device: str = "cpu",
        rounds: int | None = None,
        **notes: Any,
    ) -> Any:
        """Time `work(*setup())`, which does so many images, or samples, of so many bytes; what `work` returned last.

        The first round is a warm-up. `name` is what the tables call it; the first of a group with `imgdata` in its name
        is what the others are compared with. `notes` join the figures.
        """
        cpu_s: list[float] = []
        rss_mb: list[int] = []

        def begin() -> tuple[tuple[Any, ...], dict[str, Any]]:
            arguments = setup()
            _forget_peak()
            rss_mb.append(peak_rss_mb())
            cpu_s.append(cpu_s_of(process_tree()))
            return arguments, {}

        def end(*arguments: Any) -> None:
            cpu_s[-1] = cpu_s_of(process_tree()) - cpu_s[-1]
            rss_mb[-1] = peak_rss_mb() - rss_mb[-1]
            teardown(*arguments)

        def timed(*arguments: Any) -> Any:
            found = work(*arguments)
            synchronize(device)
            return found

        pedantic: Callable[..., Any] = self._benchmark.pedantic
        found = pedantic(timed, setup=begin, teardown=end, rounds=rounds or self._rounds, warmup_rounds=1)
        results: Any = self._benchmark.stats
        median_s = results.stats.median
        figures = {
            "name": name,
            "images": images,
            "images_per_s": images / median_s,
            "cpu_ms_per_image": 1000 * statistics.median(cpu_s[1:]) / images,
            "peak_rss_mb": peak_rss_mb(),
            "rss_growth_mb": max(rss_mb[1:]),
        }
        if num_bytes:
            figures["mb_per_s"] = num_bytes / 1e6 / median_s
        if device.startswith("cuda"):
            figures["gpu_memory_mb"] = _gpu_memory_mb(device)
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}
        self._benchmark.extra_info.update(rounded, **notes)
        return found


def peak_rss_mb() -> int:
    """Return the largest resident set of this process in MB, since `_forget_peak` where that is allowed."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 1024)


def _forget_peak() -> None:
    try:
        _RESET.write_text(_FORGET_PEAK)
    except OSError:
        # Containers may forbid it; the peak is then that of the whole process, and too high at worst.
        return


def _gpu_memory_mb(device: str) -> int:
    """In use on the whole device: DALI and nvJPEG allocate beside PyTorch."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return round((total - free) / 1e6)
