"""A program that has imported PyTorch and imgdata: scripts -> forks of it that run them, without the two seconds."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.patience import PATIENCE_S


class Forks:
    """Runs scripts as `python -c` does, one at a time."""

    def __init__(self, program: "subprocess.Popen[str]", folder: Path) -> None:
        self._program, self._folder = program, folder

    def run(self, script: str, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run `script` with the words as `sys.argv[1:]` and with the environment of now, to its end."""
        outputs = [self._folder / "stdout", self._folder / "stderr"]
        for path in outputs:
            path.write_text("")
        asked = {"script": script, "words": list(map(str, words)), "outputs": list(map(str, outputs))}
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps({**asked, "environment": dict(os.environ)}) + "\n")
        self._program.stdin.flush()
        ready, _, _ = select.select([self._program.stdout], [], [], PATIENCE_S)
        assert ready, "the script did not end"
        code = int(self._program.stdout.readline())
        return subprocess.CompletedProcess([script], code, *(path.read_text() for path in outputs))


@contextmanager
def forks() -> Iterator[Forks]:
    """Start the program; it ends with the block, and what it runs with it."""
    with tempfile.TemporaryDirectory() as folder:
        program = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield Forks(program, Path(folder))
        finally:
            os.killpg(program.pid, signal.SIGKILL)
            program.communicate()


def next_script() -> str | None:
    """Fork for each line that comes; return the script in the fork, and None at the end."""
    import torch  # noqa: F401

    import imgdata
    import imgdata.backends.cpu.backend
    import imgdata.backends.resident.backend

    assert imgdata.Loader
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["-c", *asked["words"]]
        for number, path in enumerate([os.devnull, *asked["outputs"]]):
            file = os.open(path, os.O_RDWR)
            os.dup2(file, number)
            os.close(file)
        return str(asked["script"])
    return None


if __name__ == "__main__":
    _script = next_script()
    if _script is not None:
        exec(compile(_script, "<string>", "exec"))
