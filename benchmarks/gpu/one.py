"""A phase's module and settings -> its notes, in this process; or a single item of it -> its outcome, printed as JSON.

`python -m benchmarks.gpu.one MODULE SETTINGS NOTES`, and `python -m benchmarks.gpu.one --item MODULE:FUNCTION SETTINGS
ARGUMENTS`. Ends with 1 where the phase itself could not run, with its last words on standard error.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.running import Running, Settings, call, not_installed, outcome


def main(words: list[str]) -> int:
    """Run it."""
    if words[0] == "--item":
        function, settings, arguments = words[1:]
        # Libraries print; the outcome goes where standard output was.
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        found = outcome(lambda: call(function, Settings.from_json(settings), json.loads(arguments)))
        print(json.dumps(found), file=answers, flush=True)
        # Threads of decoders may never end.
        os._exit(0)
    module, settings, notes = words
    try:
        phase = Running(module.rpartition(".")[2], Settings.from_json(settings), Path(notes))
        import_module(module).run(phase)
    except ImportError as error:
        print(not_installed(error), file=sys.stderr, flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
