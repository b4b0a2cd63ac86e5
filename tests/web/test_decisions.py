"""Decisions: none is lost, each holds until its author takes it back, two people keep both, CSV goes out and in."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import imgdata
from imgdata.errors import OptionError, OutputError
from imgdata.storage.locks import locked
from imgdata.web import decisions as module
from imgdata.web.decisions import ACTIONS, Decision, Decisions, Sample, made
from imgdata.web.review import from_csv, in_conflict, save_views, to_csv
from support.patience import PATIENCE_S

KEYS = ("cat/000", "cat/001", "dog/000")
AUTHORS = ("Ada", "Béla, Jr.", "=cmd|x", 'say "x"\nnew line')
APPENDER = """
import sys
import tempfile
from pathlib import Path
from imgdata.web.decisions import Decisions, made
decisions = Decisions(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    decisions.add([made(sys.argv[2], split="train", key=f"{sys.argv[2]}-{number}", action="flag")])
    print(number, flush=True)
"""


def decide(decisions: Decisions, author: str, key: str, action: str = "flag", **more: str) -> Decision:
    one = made(author, split="train", key=key, action=action, **more)
    decisions.add([one])
    return one


def test_two_processes_append_at_once_and_none_is_lost(tmp_path: Path) -> None:
    path, count = tmp_path / "d.jsonl", 40
    names = ("one", "two")
    running = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), name, str(count)], stdout=subprocess.DEVNULL)
        for name in names
    ]
    assert [process.wait(PATIENCE_S) for process in running] == [0, 0]
    found = Decisions(path).all()
    for name in names:
        assert [one.key for one in found if one.author == name] == [f"{name}-{number}" for number in range(count)]
    assert len({one.id for one in found}) == len(found) == 2 * count


def test_what_was_answered_is_on_disk_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    command = [sys.executable, "-c", APPENDER, str(path), "one", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        answered = int(rest[-1]) if rest else answered
    keys = [one.key for one in Decisions(path).all()]
    assert keys[: answered + 1] == [f"one-{number}" for number in range(answered + 1)]
    assert len(keys) <= answered + 2


@pytest.mark.parametrize("left", [b"{", b'{"id": "x", "auth', b"\x00\x00\x00", '{"id": "ä'.encode()[:-1]])
def test_half_a_line_of_a_killed_program_is_cut_off_by_the_next(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "d.jsonl"
    first = decide(Decisions(path), "Ada", "a")
    with path.open("ab") as file:
        file.write(left)
    decisions = Decisions(path)
    assert decisions.all() == (first,)
    second = decide(decisions, "Ada", "b")
    assert Decisions(path).all() == (first, second)
    for line in path.read_bytes().splitlines():
        json.loads(line)


def test_a_line_that_another_program_has_not_finished_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path, source = tmp_path / "d.jsonl", tmp_path / "source.jsonl"
    decide(Decisions(source), "Ada", "a")
    data = source.read_bytes()
    decisions = Decisions(path)
    for end in range(0, len(data) + 1, 7):
        path.write_bytes(data[:end])
        decisions.read()
        assert len(decisions) == 0
    path.write_bytes(data)
    decisions.read()
    assert [one.key for one in decisions.all()] == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"no json",
        b'{"id": 3, "action": "flag"}',
        b'{"id": "a", "action": "burn"}',
        b'{"id": "a", "action": "relabel"}',
        b'{"id": "a", "action": "flag", "time": "now"}',
        b'{"id": "a", "action": "flag", "time": true}',
        b'{"id": "a", "action": "flag", "time": 1e999}',
        b'{"id": "a", "action": "flag", "time": NaN}',
        b'{"id": "a", "action": "flag", "time": -1}',
        b'{"id": "a", "action": "flag", "key": "' + b"x" * 501 + b'"}',
    ],
)
def test_a_line_that_is_no_decision_is_one_message_and_stays(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(OptionError, match="a line must be a decision"):
        Decisions(path)
    assert path.read_bytes() == line + b"\n"


def test_who_waits_too_long_for_another_program_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.1)
    decisions = Decisions(tmp_path / "d.jsonl")
    with locked(tmp_path / "d.lock"), pytest.raises(OutputError, match=r"another program has been writing for 0\.1 s"):
        decide(decisions, "Ada", "a")
    decide(decisions, "Ada", "a")
    assert len(decisions) == 1


def test_a_folder_of_decisions_is_made_by_the_first(tmp_path: Path) -> None:
    decisions = Decisions(tmp_path / "new" / "folder" / "d.jsonl")
    assert list(tmp_path.iterdir()) == []
    decide(decisions, "Ada", "a")
    assert len(Decisions(tmp_path / "new" / "folder" / "d.jsonl")) == 1


class Reviews(RuleBasedStateMachine):
    """Two programs on one file, and a plain model: what each author decided and did not take back, in order."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "d.jsonl"
        self.programs = [Decisions(self.path), Decisions(self.path)]
        self.model: list[Decision] = []

    @rule(
        program=st.integers(0, 1),
        author=st.sampled_from(AUTHORS),
        key=st.sampled_from(KEYS),
        action=st.sampled_from([one for one in ACTIONS if one != "undo"]),
    )
    def decide(self, program: int, author: str, key: str, action: str) -> None:
        new = "dog" if action == "relabel" else ""
        self.model.append(decide(self.programs[program], author, key, action, new=new))

    @rule(program=st.integers(0, 1), author=st.sampled_from(AUTHORS))
    def undo(self, program: int, author: str) -> None:
        decisions = self.programs[program]
        decisions.read()
        mine = [one for one in self.model if one.author == author]
        last = decisions.last(author)
        assert last == (mine[-1] if mine else None)
        if last is not None:
            decide(decisions, author, last.key, "undo", of=last.id)
            self.model.remove(last)

    @rule(program=st.integers(0, 1), left=st.sampled_from([b"{", b'{"id"', b"\xff"]))
    def kill_in_between(self, program: int, left: bytes) -> None:
        if self.path.exists():
            with self.path.open("ab") as file:
                if file.tell() == 0 or self.path.read_bytes().endswith(b"\n"):
                    file.write(left)
        self.programs[program] = Decisions(self.path)

    @invariant()
    def both_programs_see_what_holds(self) -> None:
        expected: dict[Sample, dict[str, Decision]] = {}
        for one in self.model:
            expected.setdefault(Sample(one.split, one.key), {}).pop(one.author, None)
            expected[Sample(one.split, one.key)][one.author] = one
        for program in self.programs:
            program.read()
            assert {sample: dict(by) for sample, by in program.holding().items() if by} == expected
            for sample, by_author in expected.items():
                assert program.of(sample) == list(by_author.values())
            differing = [
                sample
                for sample, by_author in expected.items()
                if len({(one.action, one.new) for one in by_author.values() if one.action != "skip"}) > 1
            ]
            assert sorted(in_conflict(program)) == sorted(differing)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


class TestTwoPrograms(Reviews.TestCase):  # type: ignore[name-defined, misc]
    """Hypothesis runs it; each step asserts."""


@pytest.fixture
def decided(tmp_path: Path) -> Decisions:
    decisions = Decisions(tmp_path / "d.jsonl")
    for number, author in enumerate(AUTHORS):
        decide(decisions, author, "cat/000", reason=f"reason {number}, with a comma\nand a line")
    decide(decisions, "Ada", "cat/001", "relabel", old="cat", new="dog")
    last = decide(decisions, "Ada", "dog/000", "exclude", reason="@SUM(A1)")
    decide(decisions, "Ada", "dog/000", "undo", of=last.id)
    return decisions


def test_csv_out_and_in_is_the_same_and_twice_is_once(zoo: Path, tmp_path: Path, decided: Decisions) -> None:
    text, dataset = to_csv(decided), imgdata.open(zoo)
    other = Decisions(tmp_path / "other.jsonl")
    assert from_csv(text, other, dataset) == len(decided)
    assert other.all() == decided.all()
    assert to_csv(other) == text
    assert from_csv(text, other, dataset) == 0
    assert from_csv(text, decided, dataset) == 0
    assert other.all() == decided.all()


def test_no_cell_of_the_csv_is_a_formula(decided: Decisions) -> None:
    cells = [cell for row in csv.reader(io.StringIO(to_csv(decided), newline="")) for cell in row]
    assert [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("split,", "part,"), "must have the columns"),
        (lambda text: "", "must have the columns"),
        (lambda text: text.replace("cat/001", "cat/999"), "no sample 'cat/999' in split 'train'"),
        (lambda text: text.replace(",train,", ",test,"), "in split 'test'"),
        (lambda text: text.replace(",relabel,", ",paint,"), "action must be one of"),
        (lambda text: text.replace(",dog,,", ",,,"), "a relabel must have a new class"),
        (lambda text: text.replace("+00:00", "yesterday"), "time must be like"),
    ],
)
def test_a_csv_with_a_fault_adds_nothing(
    zoo: Path, tmp_path: Path, decided: Decisions, change: object, message: str
) -> None:
    other = Decisions(tmp_path / "other.jsonl")
    with pytest.raises(OptionError, match=message):
        from_csv(change(to_csv(decided)), other, imgdata.open(zoo))  # type: ignore[operator]
    assert len(other) == 0
    assert not os.path.exists(other.path)


def test_what_holds_becomes_a_view_and_conflicts_stay_as_they_are(zoo: Path, tmp_path: Path) -> None:
    dataset = imgdata.open(shutil.copytree(zoo, tmp_path / "out"))
    decisions = Decisions(tmp_path / "d.jsonl")
    decide(decisions, "Ada", "cat/000", "relabel", old="cat", new="dog")
    decide(decisions, "Ada", "cat/001", "exclude")
    decide(decisions, "Ada", "cat/002", "relabel", old="cat", new="dog")
    decide(decisions, "Béla", "cat/002", "accept")
    said = save_views(dataset, decisions, "reviewed")
    assert said == ["view reviewed of train: 1 relabelled, 1 excluded", "1 in conflict, left as they are"]
    view = imgdata.load_view(dataset, "reviewed")
    column = dataset["train"].index.column("key")
    names = {
        column[position].as_py(): view.classes[label].id
        for position, label in zip(view.position_N.tolist(), view.label_N.tolist(), strict=True)
    }
    assert len(names) == 19
    assert (names["cat/000"], names["cat/002"]) == ("dog", "cat")
    assert "cat/001" not in names
