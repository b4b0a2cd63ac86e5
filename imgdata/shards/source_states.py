"""`dataset.json` <-> states of the source's files when they were listed, by the version that was made of them.

They are extended attributes of the file, and no part of the dataset's bytes, which are the same on every machine. Where
the file system has no such attributes, or must not be written to, the next run compares all images.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

_ATTRIBUTE = "user.imgdata.source-state"
_LATER = _ATTRIBUTE + ".v"


def read_states(path: Path) -> dict[int, str]:
    """Return the state of each version, of those that are known."""
    found = {}
    with contextlib.suppress(OSError, AttributeError, ValueError):
        for name in os.listxattr(path):
            if name == _ATTRIBUTE or name.startswith(_LATER):
                number = 1 if name == _ATTRIBUTE else int(name.removeprefix(_LATER))
                found[number] = os.getxattr(path, name).decode("ascii", "replace")
    return found


def write_states(path: Path, states: Mapping[int, str]) -> None:
    """Note the states of versions beside those that are there."""
    with contextlib.suppress(OSError, AttributeError):
        for number, state in states.items():
            os.setxattr(path, _ATTRIBUTE if number == 1 else f"{_LATER}{number}", state.encode())
