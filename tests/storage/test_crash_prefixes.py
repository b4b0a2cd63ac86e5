"""After a crash or a power cut at any step of a writer, readers find the old state, the new one, or one clear error."""

import pytest

from support.crashes import WORKS, replay, trace_of
from support.traces import killed, powerless, traced

SLOW = {
    "export",
    "shard, closing gaps",
    "shard --overwrite",
    "shard --append",
    "shard --plan, --part, --finish",
    "a run",
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("name", "states"),
    [
        pytest.param(name, states, id=f"{name}-{states.__name__}", marks=[pytest.mark.slow] if slow else [])
        for name in WORKS
        for states, slow in ((killed, name in SLOW), (powerless, name in SLOW or name == "shard"))
    ],
)
def test_what_a_crash_leaves_is_the_old_state_or_the_new_one_and_the_next_run_ends_it(tmp_path, name, states):
    work = WORKS[name](tmp_path)
    trace, old, new, end = trace_of(work, tmp_path / "out")
    crashes = states(trace)
    counts, wrong = replay(work, crashes, old, new, end, tmp_path)
    assert wrong == []
    assert counts.total() == len(crashes) > 0


def test_a_trace_has_what_libraries_write_and_what_was_not_synced_may_be_lost(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    with traced(folder) as trace:
        (folder / "new").write_bytes(b"new!")
        (folder / "new").replace(folder / "old")
    assert [str(step) for step in trace.steps] == ["make new", "write new", "move new -> old"]
    assert [crash.files for crash in killed(trace)] == [
        {"old": b"old"},
        {"old": b"old", "new": b""},
        {"old": b"old", "new": b"new!"},
        {"old": b"new!"},
    ]
    # A rename that is not synced may come to disk before the data.
    assert {"old": b""} in [crash.files for crash in powerless(trace)]
    assert {"old": b"\0\0\0\0"} in [crash.files for crash in powerless(trace)]
