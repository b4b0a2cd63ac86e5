"""A program: `python -m support.ranks COUNT SCRIPT ...` runs ranks of a script, or of `-m MODULE`, as torchrun does.

PyTorch is imported once, and each rank is a fork: torchrun imports it in each rank and once more. It must not have been
used before the fork, as its threads would be missing. Where a rank fails the others are ended. Figures are blank.
"""

import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Sequence

_LOOK_S, _GRACE_S = 0.05, 30.0


def main() -> None:
    """Start the ranks; in each of them, run what the words say."""
    count, words = int(sys.argv[1]), sys.argv[2:]
    # What most ranks need. The first step of an optimizer would import the compiler.
    import matplotlib.figure  # noqa: F401
    import torch._dynamo
    import torch.distributed  # noqa: F401

    import imgdata.training.loop  # noqa: F401
    from support import shortcuts

    shortcuts.skip_waits_for_the_disk()
    shortcuts.draw_figures(drawn=False)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ranks: list[int] = []
    for rank in range(count):
        process = os.fork()
        if process == 0:
            _place(rank, count, port)
            _run(words)
            return
        ranks.append(process)
    sys.exit(_watch(ranks))


def _place(rank: int, count: int, port: int) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}.items():
        os.environ[name] = str(value)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="tests")


def _run(words: Sequence[str]) -> None:
    if words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


def _watch(ranks: list[int]) -> int:
    """Return 0 once all ranks have ended well, 1 where one failed."""
    failed, until = False, float("inf")
    while ranks:
        for process in list(ranks):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            ranks.remove(process)
            if status and not failed:
                failed, until = True, time.monotonic() + _GRACE_S
                for other in ranks:
                    os.kill(other, signal.SIGTERM)
        if time.monotonic() > until:
            for process in ranks:
                os.kill(process, signal.SIGKILL)
        time.sleep(_LOOK_S)
    return int(failed)


if __name__ == "__main__":
    main()
