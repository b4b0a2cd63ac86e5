"""A column of keys, a key that is not among them -> keys that look like it, for messages."""

import difflib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_CANDIDATES = 2_000


def near_keys(keys: "pa.ChunkedArray[Any]", key: str, count: int) -> list[str]:
    """Return up to `count` of `keys` that look like `key`, the closest first."""
    base = key.rsplit("/", 1)[-1].split(".", 1)[0]
    # Comparing with a million keys one by one takes minutes: narrow down by ever shorter beginnings.
    candidates: list[str] = []
    for part in (base, *(base[:length] for length in range(len(base) - 1, 2, -2))):
        if not part:
            break
        found = keys.filter(pc.match_substring(keys, part, ignore_case=True))
        candidates = [str(found_key) for found_key in found.slice(0, _CANDIDATES).to_pylist()]
        if candidates:
            break
    if not candidates:
        candidates = [str(any_key) for any_key in keys.slice(0, _CANDIDATES).to_pylist()]
    return difflib.get_close_matches(key, candidates, count, cutoff=0.5)
