"""Every wait of the product that has no bound of its own is listed here, with what ends it: none is for ever."""

import ast

import pytest

from support.places import REPOSITORY

WAITING = {"accept", "acquire", "barrier", "communicate", "exception", "get", "join", "readline", "recv"} | {
    "recv_bytes",
    "result",
    "shutdown",
    "wait",
}
"""Methods that may wait without a bound when they are called without an argument."""

THREAD = "threads of this process hand every error to whoever waits; each piece of work ends by itself"
CHILD = "a child process: it was killed, or its pipe ends with it"
TASKS = "a thread without work: whoever owns it puts an end into the queue, also at the end of the program"
BATCH = "a batch: whoever makes it signals its end, its error or its cancellation"
FUTURE = "it is done by then"
VALUE = "waits for nothing: returns what is there, or raises"
RANKS = "other ranks: PyTorch's process group has a time-out"
PIPELINE = "the parts of a pipeline that is closed by an end in its queue"
DEVICE = "the GPU's work that was given to it"

WAITS: dict[str, dict[str, str]] = {
    "auditing": {
        "future.result()": THREAD,
        "piece.result()": THREAD,
        "pool.shutdown(cancel_futures=True)": THREAD,
    },
    "backends": {
        "batch.wait()": BATCH,
        "pending.wait()": BATCH,
        "self._completion.wait()": BATCH,
        "self._job.wait()": BATCH,
        "self._joint.wait()": BATCH,
        "self._parts.get(block=idle)": PIPELINE,
        "self._pictures.wait()": BATCH,
        "self._signals.get()": BATCH,
        "self.wait()": BATCH,
        "tasks.get()": TASKS,
    },
    "cluster": {
        "self._ray.shutdown()": "Ray ends it",
    },
    "loader": {
        "ahead.pending.wait()": BATCH,
    },
    "loose": {
        "_ASKED.get()": VALUE,
        "_WATCHER.get()": VALUE,
    },
    "measure": {
        "one.result()": "a child process, which a timer kills",
        "orders.readline()": CHILD,
        "pending.popleft().result()": THREAD,
        "pending.wait()": BATCH,
        "pool.shutdown(cancel_futures=True)": THREAD,
        "self._process.stdout.readline()": "a child process, which a timer kills",
        "self._process.wait()": CHILD,
        "ticks.wait()": DEVICE,
    },
    "native": {
        "self._job.wait()": BATCH,
    },
    "shards": {
        "future.exception()": THREAD,
        "future.result()": THREAD,
        "job.result()": THREAD,
        "pool.shutdown(cancel_futures=True)": THREAD,
        "process.wait()": CHILD,
        "self._ended.get()": "threads that upload: each request has an end, and says so",
        "self._events.get()": THREAD,
        "self._tasks.get()": TASKS,
        "self._threads.shutdown()": THREAD,
        "thread.join()": THREAD,
        "running.popleft().result()": THREAD,
    },
    "storage": {
        "coming.result()": "a request, which has an end",
    },
    "training": {
        "distributed.barrier()": RANKS,
        "ranks.wait()": RANKS,
        "self._ranks.wait()": RANKS,
    },
    "web": {
        "future.result()": FUTURE,
        "pool.shutdown(cancel_futures=True)": THREAD,
        "run.predicted.get()": VALUE,
        "self._ready.wait()": TASKS,
        "self.get()": VALUE,
        "self.json_columns.get()": VALUE,
        "self.run(name).predicted.get()": VALUE,
        "self.run(run_name).predicted.get()": VALUE,
        "thread.join()": THREAD,
        "viewer.json_columns.get()": VALUE,
        "viewer.vectors.get()": VALUE,
    },
}
"""Package -> call -> what ends it."""
LOCKS = {
    "auditing": "who holds it makes the same facts, and the system unlocks when it ends",
    "backends": "who holds it decodes the same pictures; who waits is asked whether it still wants to",
    "loose": "who holds it lists the same images, and the system unlocks when it ends",
}
"""Packages that wait for a lock for as long as another process holds it."""


def calls():
    """File, call and its text for every call of a method in the product."""
    for path in sorted((REPOSITORY / "imgdata").rglob("*.py")) + sorted((REPOSITORY / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                yield path.relative_to(REPOSITORY).as_posix(), node, ast.unparse(node)


def room_of(path):
    """The package, or module, below `imgdata`."""
    return path.split("/")[1].removesuffix(".py")


def waits_without_a_bound(node):
    """Whether a call may wait as long as it likes: it has no bound, and is none of texts or mappings."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in WAITING or node.args:
        return False
    said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    return "timeout" not in said and said.get("wait") != "False" and said.get("block") != "False"


def test_every_wait_without_a_bound_is_listed_with_what_ends_it():
    found = [(path, text) for path, node, text in calls() if waits_without_a_bound(node)]
    new = [(path, text) for path, text in found if text not in WAITS.get(room_of(path), {})]
    assert new == [], "give it a bound, or say in WAITS what ends it"
    assert len(found) > 50


def test_locks_are_asked_for_and_never_waited_for_in_the_system():
    locks = set()
    for path, node, text in calls():
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("flock", "lockf"):
            assert "LOCK_NB" in text or "LOCK_UN" in text, f"{path}: {text}"
        if "wait_s=math.inf" in text and text.startswith("locked("):
            locks.add(room_of(path))
    assert locks == set(LOCKS)


def test_programs_that_are_run_have_a_bound():
    run = [(path, text) for path, _, text in calls() if text.startswith(("subprocess.run(", "subprocess.check_"))]
    assert run
    assert [path for path, text in run if "timeout=" not in text] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thread.join()", True),
        ("thread.join(3)", False),
        ("thread.join(timeout=3)", False),
        ("', '.join(words)", False),
        ("pool.shutdown(cancel_futures=True)", True),
        ("pool.shutdown(wait=False)", False),
        ("tasks.get(block=False)", False),
        ("facts.get(name)", False),
    ],
)
def test_what_counts_as_a_wait(text, expected):
    assert waits_without_a_bound(ast.parse(text, mode="eval").body) is expected
