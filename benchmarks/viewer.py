"""Numbers of samples -> what `imgdata view` costs on them: `python -m benchmarks.viewer [--save]`.

Start-up, the first screen of pictures, pictures/s, filters and orders, memory; asked for over HTTP by six connections,
as a browser does. The index has rows of `benchmarks.synthetic_index`, 600 tars that share 64 pictures of 500 x 375.
"""

import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from benchmarks.growth_index import IMAGENET_TRAIN
from benchmarks.report import ROOT, machine, save
from benchmarks.synthetic_index import plant
from imgdata.measure.timing import cpu_s as cpu_s_of

SIZES = (10_000, 1_000_000, IMAGENET_TRAIN, 10_000_000)
CONNECTIONS = 6
"""What browsers open to one host."""
SCREEN, SIDE = 60, 160
ROUNDS = 5
ASKED = {
    "class": "class=3",
    "text": "text=4999",
    "sort_by_width": "sort=-width",
    "sort_by_key": "sort=key",
    "class_by_bytes": "class=5&sort=size",
}
"""Filters and orders, by what their figures are called."""


class Browser:
    """Six connections to a viewer."""

    def __init__(self, folder: Path) -> None:
        self.begun = time.perf_counter()
        words = [sys.executable, "-m", "imgdata_cli.main", "view", str(folder), "--no-browser"]
        words += ["--reviews", str(folder.parent / "decisions.jsonl")]
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        self.start_s = self.since()
        address = urlsplit(line)
        host, port = address.hostname or "", address.port or 0
        self._cookie = f"imgdata-{port}={address.query.removeprefix('token=')}"
        self._idle = [http.client.HTTPConnection(host, port, timeout=300) for _ in range(CONNECTIONS)]
        self._pool = ThreadPoolExecutor(CONNECTIONS)

    def since(self) -> float:
        """Seconds since the command was given."""
        return time.perf_counter() - self.begun

    def get(self, path: str) -> bytes:
        connection = self._idle.pop()
        connection.request("GET", path, headers={"cookie": self._cookie})
        response = connection.getresponse()
        data = response.read()
        self._idle.append(connection)
        if response.status != 200:
            raise click.ClickException(f"{path}: {response.status} {data[:200]!r}")
        return data

    def thumbnails(self, numbers: Sequence[int]) -> None:
        list(self._pool.map(lambda number: self.get(f"/thumb/{number}/{SIDE}"), numbers))

    def memory_mb(self) -> int:
        """Peak of the server's resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)

    def cpu_s(self) -> float:
        """CPU time of the server, which a busy machine does not change."""
        return cpu_s_of([self.process.pid]) - cpu_s_of([])

    def close(self) -> float:
        """End the server as Ctrl-C does; seconds until it has ended."""
        begun = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        ended = time.perf_counter() - begun
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._pool.shutdown()
        for connection in self._idle:
            connection.close()
        return ended


def measure(folder: Path, samples: int) -> dict[str, Any]:
    """Figures of one viewer on an index of so many rows."""
    browser = Browser(folder)
    try:
        browser.get("/")
        page_s = browser.since()
        browser.get("/api/dataset")
        browser.get(f"/api/rows?start=0&count={SCREEN}")
        browser.thumbnails(range(SCREEN))
        screen_s, screen_cpu_s, browsed_mb = browser.since(), browser.cpu_s(), browser.memory_mb()
        screens_s = [
            _timed(lambda at=at: browser.thumbnails(range(at, at + SCREEN)))  # type: ignore[misc]
            for at in (samples * part // (ROUNDS + 1) for part in range(1, ROUNDS + 1))
        ]
        many = range(samples // 2 - 600, samples // 2)
        cpu_s = browser.cpu_s()
        many_s = _timed(lambda: browser.thumbnails(many))
        cpu_s = browser.cpu_s() - cpu_s
        asked = {
            f"{name}_ms": _ms(lambda query=query: browser.get(f"/api/rows?{query}"))  # type: ignore[misc]
            for name, query in ASKED.items()
        }
        overview_ms = _ms(lambda: browser.get("/api/overview"))
        peak_mb = browser.memory_mb()
    finally:
        end_s = browser.close()
    return {
        "samples": samples,
        "start_s": round(browser.start_s, 2),
        "page_s": round(page_s, 2),
        "first_screen_s": round(screen_s, 2),
        "first_screen_cpu_s": round(screen_cpu_s, 2),
        "screen_ms": round(1000 * statistics.median(screens_s)),
        "thumbnails_per_s": round(len(many) / many_s),
        "cpu_ms_per_thumbnail": round(1000 * cpu_s / len(many), 2),
        **asked,
        "overview_ms": overview_ms,
        "browsed_mb": browsed_mb,
        "peak_mb": peak_mb,
        "end_s": round(end_s, 2),
    }


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _ms(work: Callable[[], Any]) -> int:
    """Milliseconds of the first time: an answer is kept."""
    return round(1000 * _timed(work))


@click.command()
@click.option("--samples", "sizes", type=int, multiple=True, help="May be repeated.  [default: all sizes]")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(sizes: tuple[int, ...], keep: bool) -> None:
    """Measure, print, save."""
    rows = []
    for samples in sizes or SIZES:
        with tempfile.TemporaryDirectory(prefix="imgdata-viewer-") as work:
            folder = plant(Path(work), samples, 600 if samples > 600 else 1)
            # The first one also reads modules from the disk.
            found = [measure(folder, samples) for _ in range(3)]
        rows.append(
            {
                name: statistics.median(one[name] for one in found)
                if name != "peak_mb"
                else max(one[name] for one in found)
                for name in found[0]
            }
        )
        for name, value in rows[-1].items():
            click.echo(f"{name:>18}  {value:,}")
    if keep:
        words = "".join(f" --samples {samples}" for samples in sizes)
        save(
            "viewer",
            {
                "command": f"python -m benchmarks.viewer{words} --save",
                **machine(),
                "load": round(os.getloadavg()[0], 1),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
