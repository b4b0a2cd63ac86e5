"""Name or text of a view, dataset -> the view; a view -> `OUT/views/NAME.json`, which needs no other files.

The file holds the text, not the positions: they are made again from it, and compared with the fingerprint.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.index import index_id
from imgdata.dataset.manifest import json_bytes
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.storage.atomic import write_atomic
from imgdata.storage.folder import LooseFolder
from imgdata.storage.reading import read_json
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.views.balance import balance_step
from imgdata.views.filters import exclude_step, where
from imgdata.views.key_table import is_table, whole_number
from imgdata.views.relabel import relabel_step
from imgdata.views.subsets import fold, per_class, subset_count, subset_fraction
from imgdata.views.text import STEP_NAMES, Step, parse_view, read_files
from imgdata.views.view import View, whole

VIEWS_FOLDER = "views"
VIEW_VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def open_view(dataset: Dataset, split: str, view: str = "", *, folder: Path | None = None) -> View:
    """Return the view of `split` that `view` names: a saved view, the text of steps, or a name followed by steps.

        open_view(dataset, "train", "fraction=0.1 | balance")
        open_view(dataset, "train", "train45k | exclude,file=bad.txt")

    Files in the text are relative to `folder`, the working directory by default. Raises `OptionError`, `ShardError`,
    and `KeyError` when there is no such split.
    """
    head, _, tail = view.partition("|")
    name = head.strip()
    if not _NAME.fullmatch(name) or name in STEP_NAMES:
        return apply_steps(whole(dataset, split), read_files(parse_view(view), folder or Path()))
    saved = load_view(dataset, name)
    if saved.split != split:
        raise OptionError(f"view {name!r}: split must be {saved.split!r}, which it was made of, got {split!r}")
    steps = read_files(parse_view(tail), folder or Path())
    return apply_steps(saved, steps) if steps else saved


def apply_steps(view: View, steps: tuple[Step, ...]) -> View:
    """Apply the steps, one after another, each with the contents of its file. Raises `OptionError`."""
    for step in steps:
        # As it was written: a function writes its defaults out.
        view = replace(_APPLY[step.name](view, step), steps=(*view.steps, step), name="")
    return view


def save_view(view: View, name: str, *, overwrite: bool = False) -> Path:
    """Write `views/NAME.json` into the dataset's folder, with copies of the lists and tables that the steps name.

    Names are of `a-z`, `0-9`, `_` and `-`, and not those of steps. Raises `OptionError` for another name, `OutputError`
    when the view is there already, unless with `overwrite`, or can't be written.
    """
    if not _NAME.fullmatch(name) or name in STEP_NAMES:
        raise OptionError(f"view: a name must be of a-z, 0-9, _ and -, and no step's name, got {name!r}")
    folder = view.folder.local(VIEWS_FOLDER)
    path = folder / f"{name}.json"
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: there already; choose another name, or overwrite it")
    try:
        folder.mkdir(parents=isinstance(view.folder, LooseFolder | RemoteFolder), exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be made: {error.strerror or error}") from error
    steps: list[Step] = []
    files: dict[str, str] = {}
    for number, step in enumerate(view.steps):
        if step.file is not None and step.data is not None:
            # By contents: a view of the same name that is being replaced keeps its own files until the end.
            digest = hashlib.sha256(step.data).hexdigest()
            copy = f"{name}.{number}-{digest[:8]}{_suffix(step)}"
            write_atomic(folder / copy, step.data)
            files[copy] = digest
            step = step.with_file(copy)
        steps.append(step)
    saved = replace(view, steps=tuple(steps))
    content = {
        "version": VIEW_VERSION,
        "name": name,
        "split": view.split,
        "expression": saved.expression,
        "index": index_id(view.index),
        "fingerprint": view.fingerprint,
        "samples": len(view),
        "class_counts": {one.id: round(float(count), 6) for one, count in zip(view.classes, view.drawn_C, strict=True)},
        "files": files,
    }
    write_atomic(path, json_bytes(content))
    _remove_old_files(folder, name, files)
    return path


def _suffix(step: Step) -> str:
    return ".txt" if step.name == "exclude" and not is_table(step) else ".csv"


def load_view(dataset: Dataset, name: str) -> View:
    """Load the saved view `name`. Raises `ShardError` when its file, a file it names, or the dataset has changed."""
    folder = dataset.folder.local(VIEWS_FOLDER)
    path = folder / f"{name}.json"
    content = _read(path, dataset)
    if content["split"] not in dataset:
        raise ShardError(f"{path}: split must be one of {', '.join(dataset)}, got {content['split']!r}; save it again")
    starts = _starts(dataset, content["split"], content["index"])
    if not starts:
        place = dataset[content["split"]].index.path
        raise ShardError(f"{path}: made of other images or labels than {place} has; save the view again")
    steps = read_files(parse_view(content["expression"]), folder)
    for step in steps:
        if step.data is not None and hashlib.sha256(step.data).hexdigest() != content["files"].get(step.file):
            raise ShardError(f"{folder / str(step.file)}: changed since the view was saved; save the view again")
    # Of versions with the same images, the classes decide, which an append may have added to.
    for start in starts[:-1]:
        with contextlib.suppress(OptionError):
            view = replace(apply_steps(start, steps), name=name)
            if view.fingerprint == content["fingerprint"]:
                return view
    view = replace(apply_steps(starts[-1], steps), name=name)
    if view.fingerprint != content["fingerprint"]:
        raise ShardError(f"{path}: fingerprint must be {view.fingerprint}, got {content['fingerprint']}; save it again")
    return view


def _starts(dataset: Dataset, split: str, wanted: str) -> list[View]:
    """Return the split in each version of the dataset whose `index_id` is `wanted`, the newest first."""
    manifest, starts = dataset.manifest, []
    for number in range(dataset.version, 0, -1):
        # A version's fingerprint is written down: the others' indices are not read.
        known = manifest.versions[number - 1].splits if manifest.versions else None
        if known is None or (split in known and known[split].fingerprint == wanted):
            start = whole(dataset.at(number), split)
            starts += [start] if index_id(start.index) == wanted else []
    return starts


def list_views(dataset: Dataset) -> list[str]:
    """Return the names of the saved views, sorted."""
    return sorted(Path(name).stem for name in dataset.folder.list(f"{VIEWS_FOLDER}/*.json"))


class SavedView(NamedTuple):
    """A saved view as described by its file."""

    name: str
    split: str
    expression: str
    samples: int


def saved_views(dataset: Dataset) -> list[SavedView]:
    """Return the saved views, sorted by name, without computing any view. Raises `ShardError` for a damaged file."""
    found = []
    for name in list_views(dataset):
        content = _read(dataset.folder.local(f"{VIEWS_FOLDER}/{name}.json"), dataset)
        found.append(SavedView(name, content["split"], content["expression"], int(content["samples"])))
    return found


def _read(path: Path, dataset: Dataset) -> dict[str, Any]:
    try:
        content = read_json(path)
        version = content["version"]
        texts = [content[key] for key in ("split", "expression", "index", "fingerprint")]
        damaged = not all(isinstance(text, str) for text in texts) or not isinstance(content["files"], dict)
    except FileNotFoundError:
        names = list_views(dataset)
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise OptionError(
            f"no view {path.stem!r} in {dataset.path}; {known}. A step must be one of {', '.join(STEP_NAMES)}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path}: damaged ({type(error).__name__}: {error}); save the view again") from error
    if version != VIEW_VERSION:
        raise ShardError(f"{path}: version must be {VIEW_VERSION}, got {version!r}; upgrade imgdata")
    if damaged:
        raise ShardError(f"{path}: damaged; save the view again")
    return dict(content)


def _remove_old_files(folder: Path, name: str, files: Mapping[str, str]) -> None:
    old = re.compile(re.escape(name) + r"\.\d+-[0-9a-f]{8}\..+")
    # The view is saved by now: what stays is removed when it is saved again.
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if old.fullmatch(path.name) and path.name not in files:
                path.unlink(missing_ok=True)


def _fraction(view: View, step: Step) -> View:
    try:
        fraction = float(step.values[0])
    except ValueError:
        fraction = np.nan
    return subset_fraction(view, fraction, part=_part(step, "first"), seed=whole_number(step, "seed", 0))


def _count(view: View, step: Step) -> View:
    return subset_count(view, _value(step), part=_part(step, "first"), seed=whole_number(step, "seed", 0))


def _fold(view: View, step: Step) -> View:
    found = re.fullmatch(r"(\d+)/(\d+)", step.values[0])
    if found is None:
        raise OptionError(f"fold: must be like 1/5, got {step.values[0]!r}")
    seed = whole_number(step, "seed", 0)
    return fold(view, int(found[1]), int(found[2]), part=_part(step, "train"), seed=seed)


def _part(step: Step, default: str) -> Any:
    # The functions check it.
    return step.options.get("part", default)


def _value(step: Step) -> int:
    try:
        return int(step.values[0])
    except ValueError:
        raise OptionError(f"{step.name}: must be a whole number, got {step.values[0]!r}") from None


_APPLY: Mapping[str, Callable[[View, Step], View]] = {
    "fraction": _fraction,
    "count": _count,
    "fold": _fold,
    "per_class": lambda view, step: per_class(view, _value(step), seed=whole_number(step, "seed", 0)),
    "exclude": exclude_step,
    "relabel": relabel_step,
    "where": lambda view, step: where(view, step.values[0]),
    "balance": balance_step,
}
