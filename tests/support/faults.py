"""A seed -> faults of the system and of a store at named calls of a program, the same ones whenever it is replayed.

A call has a site: what is called, and on which file or object. A first run, in which nothing fails, shows the sites and
how often each is met; a seed draws some of these calls, and what happens there. So a schedule does not depend on the
order of threads. Files fail below libc, by `faults.c`, so that the extension, PyArrow and PyTorch meet faults as Python
does; the process has to be started with the library (`preloaded`). Stores fail in the proxy of `remote_servers`.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from support.places import TESTS
from support.remote_servers import Fault, faulty

ONCE, STAYS, DISK = "once", "from then on", "a full disk from then on"
_SCOPES = {ONCE: 0, STAYS: 1, DISK: 2}
SHORT = "half of the bytes"
_FILES: Mapping[str, Sequence[tuple[str, str]]] = {
    "open": [("EIO", ONCE), ("EIO", STAYS), ("EMFILE", ONCE), ("ESTALE", ONCE)],
    "create": [("ENOSPC", DISK), ("EIO", ONCE), ("EACCES", STAYS), ("EMFILE", ONCE)],
    "read": [(SHORT, ONCE), (SHORT, STAYS), ("EIO", ONCE), ("EIO", STAYS)],
    "write": [(SHORT, ONCE), (SHORT, STAYS), ("ENOSPC", DISK), ("EIO", ONCE), ("EIO", STAYS)],
    "sync": [("EIO", ONCE), ("ENOSPC", ONCE)],
    "resize": [("ENOSPC", DISK), ("EIO", ONCE)],
    "rename": [("EIO", ONCE), ("EIO", STAYS), ("ENOSPC", DISK)],
    "remove": [("EIO", ONCE), ("EIO", STAYS)],
    "mkdir": [("ENOSPC", DISK), ("EACCES", STAYS)],
    "close": [("EIO", ONCE), ("ENOSPC", ONCE)],
}
"""Call -> what may happen there, and for how long."""
_REQUESTS: Mapping[str, Sequence[str]] = {
    "GET": ["500", "503", "reset", "cut", "stall", "etag"],
    "HEAD": ["500", "503", "reset"],
    "PUT": ["500", "503", "reset", "lost"],
    "POST": ["500", "503", "reset"],
    "DELETE": ["500", "503", "reset", "lost"],
}
_TIMES = {"once": 1, "twice": 2, "from then on": 10**6}
_CLOCKS = ("time", "monotonic")
_JUMPS_S = (-86_400.0, -5.0, 5.0, 86_400.0)


@dataclass(frozen=True, order=True)
class Site:
    """What is called, and on what: the path in a folder, the path of a request, or a clock."""

    call: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A fault: the call at which it begins, counted from 1 among those of its site."""

    site: Site
    number: int
    what: str
    how_long: str = ONCE

    def __str__(self) -> str:
        return f"{self.what} at {self.site.call} {self.site.path} #{self.number}, {self.how_long}"


@dataclass
class Met:
    """What a run met: how often each site, and the faults that were made."""

    sites: Counter[Site] = field(default_factory=Counter)
    made: list[Planned] = field(default_factory=list)


def draw(seed: int, sites: Mapping[Site, int]) -> list[Planned]:
    """Return one to three faults at some of the sites.

    Files and stores are as likely as each other, clocks less so; of each all kinds of calls are as likely.
    """
    chance = random.Random(seed)
    met = {site.call for site in sites}
    groups = [sorted(met & set(calls)) for calls in (_FILES, _REQUESTS, _CLOCKS)]
    planned = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = chance.choice(*chance.choices(groups, [8 * bool(groups[0]), 8 * bool(groups[1]), bool(groups[2])]))
        site = chance.choice(sorted(site for site in sites if site.call == kind))
        # Most sites are met a few times; where one is met often, the first times are as likely as all others.
        number = chance.randint(1, chance.choice((min(sites[site], 3), sites[site])))
        if kind in _FILES:
            what, how_long = chance.choice(_FILES[kind])
        elif kind in _REQUESTS:
            what, how_long = chance.choice(_REQUESTS[kind]), chance.choice(sorted(_TIMES))
        else:
            # What is monotonic never goes back.
            jump = chance.choice(_JUMPS_S if kind == "time" else _JUMPS_S[2:])
            what, how_long = f"{jump:+.0f} s", STAYS
        planned.append(Planned(site=site, number=number, what=what, how_long=how_long))
    return planned


@contextlib.contextmanager
def failing(folder: Path, planned: Sequence[Planned], met: Met) -> Iterator[None]:
    """Let the planned calls of this process on files below `folder`, and of its clocks, fail in the block."""
    library = ctypes.CDLL(None)
    library.faults_disarm.restype = ctypes.c_char_p
    library.faults_met.restype = ctypes.c_void_p
    files = [one for one in planned if one.site.call in _FILES]
    lines = [
        f"{_SCOPES[one.how_long]} {-1 if one.what == SHORT else getattr(errno, one.what)} {one.number} "
        f"{one.site.call} {one.site.path}"
        for one in files
    ]
    with contextlib.ExitStack() as stack:
        for name in _CLOCKS:
            stack.enter_context(mock.patch.object(time, name, _clock(name, planned, met)))
        library.faults_arm(os.fsencode(folder), "\n".join(lines).encode())
        try:
            yield
        finally:
            done = library.faults_disarm().decode()
            met.made += [files[int(line.split(" ", 1)[0])] for line in done.splitlines()]
            text = library.faults_met()
            for line in ctypes.string_at(text).decode(errors="replace").splitlines():
                count, call, path = line.split(" ", 2)
                met.sites[Site(call, path)] += int(count)
            ctypes.CDLL(None).free(ctypes.c_void_p(text))


def _clock(name: str, planned: Sequence[Planned], met: Met) -> Callable[[], float]:
    real, site, lock = getattr(time, name), Site(name, "clock"), threading.Lock()

    def read() -> float:
        with lock:
            met.sites[site] += 1
            due = [one for one in planned if one.site == site and met.sites[site] >= one.number]
            met.made += [one for one in due if one not in met.made]
            return float(real() + sum(float(one.what.removesuffix(" s")) for one in due))

    return read


@contextlib.contextmanager
def failing_store(upstream: str, planned: Sequence[Planned], met: Met) -> Iterator[str]:
    """Yield the address of a proxy before the server at `upstream`, in which the planned requests fail."""

    def choose(request: str) -> Fault | None:
        call, path = request.split(" ", 1)
        site = Site(call, path)
        with lock:
            met.sites[site] += 1
            for one in planned:
                if one.site == site and one.number <= met.sites[site] < one.number + _TIMES[one.how_long]:
                    met.made += [one] if one not in met.made else []
                    status = int(one.what) if one.what.isdigit() else 0
                    return Fault("status" if status else one.what, status=status)
        return None

    lock = threading.Lock()
    with faulty(upstream, choose=choose) as proxy:
        yield proxy.endpoint


def preloaded() -> dict[str, str]:
    """Return the variables with which a program has `faults.c` in it, built where it is not yet.

    Raises `OSError` and `subprocess.CalledProcessError` where there is no compiler, or another system than Linux.
    """
    source = TESTS / "support" / "faults.c"
    name = f"imgdata-faults-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}-{os.getuid()}.so"
    library = Path(tempfile.gettempdir(), name)
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl", "-lpthread"]
        subprocess.run(command, check=True, capture_output=True)
        made.replace(library)
    return {"LD_PRELOAD": str(library)}
