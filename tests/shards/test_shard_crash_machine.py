"""Runs of `shard` that are killed or lose power anywhere, again and again: a model says what readers may find."""

import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import imgdata
from imgdata.errors import ImgdataError
from support.crashes import samples_in
from support.rawdata import class_folders
from support.traces import crash_after, traced

KINDS = {"old": {"shard_samples": 3}, "new": {"shard_samples": 2, "seed": 3}}
HOW = ("killed", "nothing", "half", "zeros")


class Shards(RuleBasedStateMachine):
    """A folder, and the model: which whole dataset a reader may find, and whether an error may be said instead."""

    @initialize()
    def start(self) -> None:
        self.work = Path(tempfile.mkdtemp())
        self.raw = class_folders(self.work / "pets", {"train": 2, "val": 1})
        self.numbers = itertools.count()
        self.out = self.work / "out"
        self.out.mkdir()
        self.expected = {}
        for kind, options in KINDS.items():
            imgdata.shard(self.raw, self.work / kind, workers=1, **options)
            self.expected[kind] = samples_in(self.work / kind)
        self.whole: set[str] = set()
        """The datasets of which one is in the folder."""
        self.unfinished = True
        """Whether a reader may be refused: nothing was finished yet, or files are being exchanged."""

    @rule(kind=st.sampled_from(sorted(KINDS)))
    def run_to_the_end(self, kind: str) -> None:
        self.run(kind)
        self.whole, self.unfinished = {kind}, False

    @rule(kind=st.sampled_from(sorted(KINDS)), part=st.floats(0, 1), how=st.sampled_from(HOW))
    def run_and_crash(self, kind: str, part: float, how: str) -> None:
        with traced(self.out) as trace:
            self.run(kind)
        crash = crash_after(trace, round(part * len(trace.steps)), how)
        self.out = crash.put(self.work / f"out{next(self.numbers)}")
        # In a swap readers are refused for a moment, and the next run of either kind ends the swap.
        self.unfinished = True
        self.whole = self.whole | {kind}

    def run(self, kind: str) -> None:
        finished = self.found() == kind
        imgdata.shard(self.raw, self.out, workers=1, overwrite=not finished, **KINDS[kind])

    def found(self) -> str | None:
        try:
            found = samples_in(self.out)
        except ImgdataError:
            return None
        return next(kind for kind, samples in self.expected.items() if samples == found)

    @invariant()
    def a_reader_finds_a_whole_dataset_or_a_clear_error(self) -> None:
        if hasattr(self, "out"):
            found = self.found()
            assert found in self.whole or (found is None and self.unfinished)

    def teardown(self) -> None:
        if hasattr(self, "work"):
            self.run("new")
            assert self.found() == "new"
            assert not (self.out / ".imgdata").exists()
            shutil.rmtree(self.work)


class TestShardingAndCrashing(Shards.TestCase):
    """Hypothesis runs it; each step asserts."""

    settings = settings(max_examples=8, stateful_step_count=5, deadline=None)
