"""A piece of work -> what it costs: instructions where the kernel counts them for us, else processor time.

Instructions are the same in each run to a thousandth, whatever else the machine does; seconds are not.
"""

import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

Unit = Literal["instructions", "cpu_time"]

_SYSCALL = {"x86_64": 298, "aarch64": 241}
"""Number of `perf_event_open`, which the C library has no function for."""
_HARDWARE, _INSTRUCTIONS = 0, 1
_INHERIT, _NOT_THE_KERNEL, _NOT_THE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_TIMES = 0b11
"""Reads give with the count how long the counter was wanted, and how long it ran: several may share the hardware."""
_ATTR = "=IIQQQQQIIQQ"
"""`struct perf_event_attr` in its first version: type, size, config, period, sample, read_format, flags, three more."""
_ABSENT = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOSYS, errno.ENODEV, errno.EOPNOTSUPP, errno.EINVAL}
"""Why a kernel does not count: not allowed, not built in, or no such counter on this processor or virtual machine."""


class Counter:
    """Counts what this thread costs, and all threads that it starts from now on."""

    def __init__(self, unit: Unit | None = None) -> None:
        """Open the counter of the kernel; where there is none, or `unit` says so, it is a clock."""
        self._file = None if unit == "cpu_time" else _open_instructions()
        self.unit: Unit = "cpu_time" if self._file is None else "instructions"
        if unit not in (None, self.unit):
            raise OSError(f"unit must be cpu_time here, got {unit}: the kernel counts no instructions for us")

    def __enter__(self) -> "Counter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def cost(self, work: Callable[[], object]) -> float:
        """Instructions in user mode, or seconds of processor time, of one call."""
        before = self._read()
        work()
        return self._read() - before

    def _read(self) -> float:
        if self._file is None:
            return time.process_time()
        count, wanted, ran = struct.unpack("=QQQ", os.read(self._file, 24))
        return float(count * wanted / ran) if ran else 0.0


def _open_instructions() -> int | None:
    number = _SYSCALL.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return None
    size = struct.calcsize(_ATTR)
    flags = _INHERIT | _NOT_THE_KERNEL | _NOT_THE_HYPERVISOR
    attr = ctypes.create_string_buffer(
        struct.pack(_ATTR, _HARDWARE, size, _INSTRUCTIONS, 0, 0, _TIMES, flags, 0, 0, 0, 0), size
    )
    library = ctypes.CDLL(None, use_errno=True)
    this_thread, any_core, no_group, no_flags = 0, -1, -1, 0
    file = library.syscall(ctypes.c_long(number), attr, this_thread, any_core, no_group, ctypes.c_ulong(no_flags))
    if file >= 0:
        return int(file)
    reason = ctypes.get_errno()
    if reason in _ABSENT:
        return None
    raise OSError(reason, f"perf_event_open: {os.strerror(reason)}")
