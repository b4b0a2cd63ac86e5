"""The job folder of a dataset -> what parts of its conversion keep there, so that machines need no other connection.

`store_parts` is the same for a folder of an object store.

    plan.arrow      the plan and the listing, as `--plan` found them: see `frozen`
    cut.json        the number of parts, and how the scheduler numbers them
    parts-ID/       one folder for each process that writes shards of the plan ID: see `attempt`

A shard is written in an attempt's own folder, and gets its name by a rename when it is complete. So two machines that
write the same shard do no harm: either file has the same bytes. No step depends on a lock, which network file systems
may not have between machines. Where locks work, parts share one, so that nobody replaces the job under them.

`close_parts` ends the writing: a process that is late, on whatever machine, finds its folder gone, and the server
refuses its renames. Only then may shards be renumbered, or the folder be used for another plan.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import xxhash

from imgdata.errors import OutputError
from imgdata.shards.part_numbers import Cut
from imgdata.shards.record import ShardReport, job_folder, record_path
from imgdata.shards.sidecars import dali_index_path
from imgdata.storage.atomic import output_error, sync_folder

_FROZEN, _CUT, _PARTS = "plan.arrow", "cut.json", "parts-"
_TRIES, _PAUSE_S = 100, 0.05
_LEAVING_S = 2.0
"""Seconds that an error in a process's own folder waits for what explains it: that the folder is being removed."""


class ClosedError(Exception):
    """The job was finished, or begun anew, while this process was writing a shard of it."""


def frozen_path(folder: Path) -> Path:
    """Return the path of the frozen plan of the dataset that is written in `folder`."""
    return job_folder(folder) / _FROZEN


def open_parts(folder: Path, plan_id: str) -> None:
    """Allow processes to write shards of the plan `plan_id`; those of other plans are ended."""
    root = _root(folder, plan_id)
    for other in _roots(folder):
        if other != root:
            _remove(other)
    root.mkdir(exist_ok=True)
    sync_folder(root.parent)


def are_open(folder: Path, plan_id: str) -> bool:
    """Return whether processes may write shards of the plan `plan_id`."""
    return _root(folder, plan_id).is_dir()


def close_parts(folder: Path) -> None:
    """End the writing of all processes: afterwards no shard gets its name any more."""
    for root in _roots(folder):
        _remove(root)


@contextlib.contextmanager
def attempt(folder: Path, plan_id: str) -> Iterator[Path]:
    """Make a folder to write shards of the plan `plan_id` in; it is removed afterwards.

    Raises `ClosedError`, also for an error of the block that closing the parts explains.
    """
    root = _root(folder, plan_id)
    _remove_dead(root)
    place = root / _new_name()
    try:
        # Without parents: what was closed stays closed.
        place.mkdir()
        job_folder(place).mkdir()
        yield place
    except (FileNotFoundError, OutputError) as error:
        if _is_leaving(place):
            raise ClosedError from error
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def own_place(root: Path) -> Iterator[Path]:
    """Make a folder of this process in the folder `root`; it is removed afterwards, as those of killed processes are.

    Raises `OutputError`.
    """
    _remove_dead(root)
    place = root / _new_name()
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise output_error(error, place) from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        # Another process of this machine may have a folder of its own there.
        with contextlib.suppress(OSError):
            root.rmdir()


def _new_name() -> str:
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_leaving(place: Path) -> bool:
    """Return whether somebody removes the folder, which may take a moment when its first files are gone."""
    until = time.monotonic() + _LEAVING_S
    while place.is_dir():
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE_S)
    return True


def publish(place: Path, folder: Path, report: ShardReport) -> None:
    """Move the shard of `report` from the attempt's folder `place` to the dataset's. Raises `FileNotFoundError`.

    The record comes before the tar: a tar in the dataset always has one, and a record without its tar does not count.
    """
    tar = folder / report.file
    if report.samples:
        os.replace(dali_index_path(place / report.file), dali_index_path(tar))
    os.replace(record_path(place, report.file), record_path(folder, report.file))
    sync_folder(job_folder(folder))
    if report.samples:
        sync_folder(folder)
        os.replace(place / report.file, tar)
        sync_folder(folder)


def attempts(folder: Path) -> list[Path]:
    """Return the folders of the processes that write shards, or were killed while they did."""
    return [place for root in _roots(folder) for place in root.iterdir()]


def note_cut(folder: Path, cut: Cut) -> None:
    """Note into which parts the shards are cut, for whoever runs some of them again."""
    if read_cut(folder) == cut:
        return
    # A name of its own: several parts note the same at once.
    temporary = job_folder(folder) / f"{_CUT}.{secrets.token_hex(4)}.tmp"
    temporary.write_text(json.dumps(asdict(cut)))
    # Not found: another run swept it away; the note is a convenience.
    with contextlib.suppress(FileNotFoundError):
        os.replace(temporary, job_folder(folder) / _CUT)


def read_cut(folder: Path) -> Cut | None:
    """Return the parts that shards were cut into last; None when no part has run."""
    try:
        return Cut(**json.loads((job_folder(folder) / _CUT).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _root(folder: Path, plan_id: str) -> Path:
    return job_folder(folder) / f"{_PARTS}{plan_id}"


def _roots(folder: Path) -> list[Path]:
    return list(job_folder(folder).glob(f"{_PARTS}*"))


def _remove(root: Path) -> None:
    """Remove `root` with all that is in it; files that appear meanwhile as well. Raises `OutputError`."""
    for _ in range(_TRIES):
        try:
            shutil.rmtree(root)
        except FileNotFoundError:
            # Of a file that a process moved or removed itself, or of the folder.
            if not root.exists():
                return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise output_error(error, root) from error
            time.sleep(_PAUSE_S)
        else:
            return
    raise OutputError(f"{root}: a process keeps writing here; end the parts that still run, then run this again")


def _machine() -> str:
    """Return a name of this machine, since it was started, and of the space that its process numbers are in."""
    facts = [socket.gethostname(), str(uuid.getnode())]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return xxhash.xxh3_64_hexdigest("\n".join(facts).encode())


def _remove_dead(root: Path) -> None:
    """Remove the folders of processes of this machine that were killed; those of other machines stay to the end."""
    for place in root.glob(f"{_machine()}-*"):
        number = place.name.split("-")[1]
        if number.isdigit() and not _runs(int(number)):
            shutil.rmtree(place, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
