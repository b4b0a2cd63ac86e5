"""/proc and /sys -> what this process's control groups let it have: cores and memory."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_NO_LIMIT = 2**60
"""Version 1 has no word for "no limit": it writes the largest whole number of pages."""


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' time may be used, such as 1.5: the least that any group above allows; None for no limit.

    Version 2: `cpu.max`. Version 1: `cpu.cfs_quota_us`, `cpu.cfs_period_us`. Both as in the kernel's
    Documentation/admin-guide.
    """
    quotas = []
    for version, folder in _folders("cpu", root):
        if version == 2:
            words = read_text(folder / "cpu.max").split()
        else:
            words = [read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes that may be used: the least that any group above allows; None without a limit."""
    names = {1: "memory.limit_in_bytes", 2: "memory.max"}
    words = [read_text(folder / names[version]).strip() for version, folder in _folders("memory", root)]
    return min((int(word) for word in words if word.isdecimal() and int(word) < _NO_LIMIT), default=None)


def read_text(path: Path) -> str:
    """Return the file's text; "" where it can't be read, as other systems lack most of these files."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _folders(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of the process's group and of all above it.

    A container sees its own group as the topmost, whatever path the host knows it by; so what isn't there is passed
    over.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        mount = root / "sys/fs/cgroup"
        if version == 1:
            mount /= controller
        folder = mount.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        while folder != mount:
            yield version, folder
            folder = folder.parent
        yield version, mount
