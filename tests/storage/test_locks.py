"""A lock file is held by one process, and one thread of it, at a time, and free again however that ends."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from imgdata.storage.locks import LockHeldError, locked
from imgdata.storage.swept_folder import swept_folder

HOLD = "import sys, pathlib, time; from imgdata.storage.locks import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_second_holder_is_refused_and_the_next_one_is_not(tmp_path):
    path = tmp_path / "new" / "lock"
    with locked(path), pytest.raises(LockHeldError), locked(path):
        pass
    with locked(path, remove=True):
        assert path.exists()
    assert not path.exists()


def test_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeldError), locked(path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(path):
        pass


def test_threads_hold_it_one_after_the_other_though_each_removes_the_file(tmp_path):
    path, inside, most = tmp_path / "lock", [], []

    def work() -> None:
        for _ in range(20):
            with locked(path, wait_s=100, remove=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 60


def test_a_fork_that_lives_longer_does_not_hold_what_its_parent_released(tmp_path):
    # Asserts nothing: a lock that is held raises.
    path = tmp_path / "lock"
    reading, writing = os.pipe()
    with locked(path):
        child = os.fork()
        if not child:
            os.read(reading, 1)
            os._exit(0)
    try:
        with locked(path):
            pass
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_waiting_is_ended_by_what_is_called_meanwhile(tmp_path):
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with locked(tmp_path / "lock"), pytest.raises(StopError), locked(tmp_path / "lock", wait_s=60, while_waiting=stop):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_accepted(tmp_path, monkeypatch, code):
    # Asserts nothing: a refusal raises.
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock"):
        pass


def test_other_errors_of_the_system_are_raised(tmp_path, monkeypatch):
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock"):
        pass


def test_a_lock_whose_file_can_not_be_removed_is_free_again(tmp_path, monkeypatch):
    def fail(path: Path, **options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(KeyError), locked(tmp_path / "lock", remove=True):
        raise KeyError("of the block")
    with locked(tmp_path / "lock", remove=True):
        assert (tmp_path / "lock").exists()


def test_a_swept_folder_is_removed_with_its_block_or_by_the_next_process(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("imgdata-work-killed", "imgdata-other-killed"):
        (tmp_path / name / "folder").mkdir(parents=True)
        (tmp_path / f"{name}.lock").touch()
    with swept_folder("work") as first, swept_folder("work") as second:
        assert first != second
        assert all(map(Path.is_dir, (first, second)))
        assert not (tmp_path / "imgdata-work-killed").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imgdata-other-killed", "imgdata-other-killed.lock"]
