"""A check, the hash of its input -> its outcome, kept in the cache folder; the settings of a dataset's last audit.

What is kept can be made again: where the cache can't be written, an audit works without it, and computes again.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgdata.auditing.findings_file import read_parquet, write_parquet
from imgdata.auditing.outcome import Outcome
from imgdata.errors import OutputError, ShardError
from imgdata.storage.atomic import whole_file, write_atomic
from imgdata.storage.cache_folder import CacheWarning, cache_folder
from imgdata.storage.reading import read_json

_FOLDER = "audit"


def kept_folder() -> Path:
    """Return the folder of all that audits keep; it may not exist yet."""
    return cache_folder() / _FOLDER


def input_key(*parts: object) -> str:
    """Return 32 hex digits of SHA-256 over the texts of all parts: of one input, and of no other."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:32]


def kept_outcome(check: str, key: str) -> Outcome | None:
    """Return the outcome of this check on this input; None where it was never kept, or is damaged."""
    try:
        findings, facts = read_parquet(_place(check, key))
        return Outcome(findings=findings, figures=facts["figures"], notes=tuple(facts["notes"]))
    except (OSError, ShardError, KeyError, TypeError):
        return None


def keep_outcome(check: str, key: str, outcome: Outcome) -> Outcome:
    """Keep the outcome; return it as it will be read. Warns with `CacheWarning` where it can't be kept."""
    facts = json.loads(json.dumps({"figures": outcome.figures, "notes": outcome.notes}))
    path = _place(check, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write_parquet(temporary, outcome.findings, facts)
    except (OutputError, OSError) as error:
        _warn(error)
    return Outcome(findings=outcome.findings, figures=facts["figures"], notes=tuple(facts["notes"]))


def last_settings(dataset_id: str) -> dict[str, Any]:
    """Return the settings of the last audit of this dataset; empty where there was none."""
    try:
        content = read_json(_last(dataset_id))
    except (OSError, ValueError):
        return {}
    return dict(content) if isinstance(content, dict) else {}


def keep_settings(dataset_id: str, settings: Mapping[str, Any]) -> None:
    """Keep the settings of an audit that is done. Warns with `CacheWarning` where they can't be kept."""
    try:
        _last(dataset_id).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_last(dataset_id), json.dumps(settings).encode())
    except (OutputError, OSError) as error:
        _warn(error)


def _place(check: str, key: str) -> Path:
    return kept_folder() / f"{check}-{key}.parquet"


def _last(dataset_id: str) -> Path:
    return kept_folder() / f"last-{dataset_id}.json"


def _warn(error: Exception) -> None:
    warnings.warn(f"what the audit found is not kept, and is computed again next time: {error}", CacheWarning, 3)
