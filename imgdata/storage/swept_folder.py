"""A purpose -> an empty temporary folder for large files, gone after its use, also where a process was killed."""

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from imgdata.storage.locks import LockHeldError, locked

_LOCK = ".lock"
_WAIT_S = 10.0


@contextlib.contextmanager
def swept_folder(purpose: str) -> Iterator[Path]:
    """Yield an empty folder in the system's temporary folder, which is removed with the block.

    Those that this user's killed processes have left for the same `purpose`, a word, are removed before. Raises
    `OSError`.
    """
    above = Path(tempfile.gettempdir()).resolve()
    for lock in above.glob(f"imgdata-{purpose}-*{_LOCK}"):
        _remove_abandoned(lock)
    folder = above / f"imgdata-{purpose}-{secrets.token_hex(8)}"
    # Beside the folder, and there first: a folder whose lock is free is nobody's.
    with locked(folder.with_suffix(_LOCK), wait_s=_WAIT_S, remove=True, mode=0o600):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(lock: Path) -> None:
    # Another process may remove both at the same time.
    with contextlib.suppress(OSError, LockHeldError):
        info = os.lstat(lock)
        if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid():
            with locked(lock, remove=True):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
