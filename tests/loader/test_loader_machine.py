"""Loaders that are saved, and loaded by another number of ranks, anywhere, again and again: a list is the model."""

import json
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import imgdata
from support.rawdata import class_folders

GLOBAL_BATCH, EPOCHS = 4, 3


class Ranks(RuleBasedStateMachine):
    """Ranks that read together, and the model: the samples of some epochs, read by one process without a pause."""

    folder = None

    @initialize()
    def start(self) -> None:
        self.loaders: list[imgdata.Loader] = []
        self.open(1, [None])
        self.model = [self.batch() for _ in range(EPOCHS * len(self.loaders[0]))]
        self.done = 0
        self.open(1, [None])

    def open(self, world_size: int, states: list[str | None]) -> None:
        self.close()
        self.loaders = [
            imgdata.Loader(
                self.folder,
                split="train",
                recipe="plain",
                batch_size=GLOBAL_BATCH // world_size,
                rank=rank,
                world_size=world_size,
                threads=1,
                backend="cpu",
            )
            for rank in range(world_size)
        ]
        self.running = [iter(()) for _ in self.loaders]
        for one in self.loaders:
            if states[0] is not None:
                one.load_state_dict(json.loads(states[0]))

    def batch(self) -> list[tuple[int, bytes]]:
        """The next global batch: positions and pixels, rank after rank."""
        found = []
        for rank, one in enumerate(self.loaders):
            batch = next(self.running[rank], None)
            if batch is None:
                self.running[rank] = iter(one)
                batch = next(self.running[rank])
            found += [
                (position, image.numpy().tobytes())
                for position, image in zip(batch.positions.tolist(), batch.images, strict=True)
            ]
        return found

    def close(self) -> None:
        for one in self.loaders:
            one.close()

    @precondition(lambda self: self.done < len(self.model))
    @rule()
    def read(self) -> None:
        assert self.batch() == self.model[self.done]
        self.done += 1

    @rule(world_size=st.sampled_from([1, 2, 4]))
    def save_and_load_with_other_ranks(self, world_size: int) -> None:
        states = {json.dumps(one.state_dict(), sort_keys=True) for one in self.loaders}
        assert len(states) == 1
        self.open(world_size, list(states))

    def teardown(self) -> None:
        if hasattr(self, "loaders"):
            self.close()


class TestSavingAndLoading(Ranks.TestCase):
    """Hypothesis runs it; each step asserts."""

    settings = settings(max_examples=12, stateful_step_count=12, deadline=None)

    @classmethod
    def setup_class(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        raw = class_folders(Path(cls.place.name) / "pets", {"train": 6})
        imgdata.shard(raw, Path(cls.place.name) / "out", workers=1)
        Ranks.folder = Path(cls.place.name) / "out"

    @classmethod
    def teardown_class(cls) -> None:
        cls.place.cleanup()
