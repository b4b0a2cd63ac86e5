"""A dataset that grows, is viewed, loaded, relabelled and compacted, in any order: what readers find, by a model."""

import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import imgdata
from imgdata.errors import ImgdataError
from imgdata.recipes import CenterCrop, Recipe
from support.loaders import sums
from support.rawdata import pictures_of
from support.traces import crash_after, traced

RECIPE = Recipe(CenterCrop(size=8))
CLASSES = ("ant", "cat", "dog")
NAMES = ("clean", "mended")
HOW = ("killed", "nothing", "half", "zeros")

Content = dict[str, tuple[str, bytes]]
"""Key -> class and image."""


def loader(source: object, **options: object) -> imgdata.Loader:
    return imgdata.Loader(source, split="train", batch_size=2, recipe=RECIPE, threads=1, **options)


class Growth(RuleBasedStateMachine):
    """A folder, and the model: what each version, each saved view and each saved loader holds."""

    @initialize()
    def start(self) -> None:
        self.work = Path(tempfile.mkdtemp())
        self.numbers = itertools.count(100)
        self.out = self.work / "out"
        raw = pictures_of(self.work / "pets", {"train/cat": 3, "train/dog": 2})
        imgdata.shard(raw, self.out, shard_samples=2, workers=1)
        self.versions: list[Content] = [self.content_of(raw)]
        self.views: dict[str, Content] = {}
        self.states: list[tuple[dict[str, object], object, str]] = []
        """State of a loader, the batches that are left of its epoch, its view."""

    def content_of(self, raw: Path) -> Content:
        return {f"{path.parent.name}/{path.stem}": (path.parent.name, path.read_bytes()) for path in raw.rglob("*.jpg")}

    def new_images(self, name: str, count: int) -> Path:
        number = next(self.numbers)
        return pictures_of(self.work / f"more{number}", {f"train/{name}": count}, first=10 * number)

    def append(self, raw: Path) -> None:
        imgdata.shard(raw, self.out, shard_samples=2, workers=1, append=True)

    @rule(name=st.sampled_from(CLASSES), count=st.integers(1, 3))
    def append_images(self, name: str, count: int) -> None:
        raw = self.new_images(name, count)
        self.append(raw)
        self.versions.append(self.versions[-1] | self.content_of(raw))

    @rule(name=st.sampled_from(CLASSES), part=st.floats(0, 1), how=st.sampled_from(HOW))
    def append_images_and_crash(self, name: str, part: float, how: str) -> None:
        raw = self.new_images(name, 1)
        with traced(self.out) as trace:
            self.append(raw)
        old, new = self.versions[-1], self.versions[-1] | self.content_of(raw)
        self.out = crash_after(trace, round(part * len(trace.steps)), how).put(self.work / f"out{next(self.numbers)}")
        assert self.found() in (old, new)
        self.append(raw)
        self.versions.append(new)

    @rule(name=st.sampled_from(NAMES), places=st.sets(st.integers(0, 50), min_size=1, max_size=2))
    def save_a_view_without_some(self, name: str, places: set[int]) -> None:
        keys = sorted(self.versions[-1])
        left_out = {keys[place % len(keys)] for place in places}
        (self.work / "bad.txt").write_text("".join(f"{key}\n" for key in sorted(left_out)))
        self.save(name, "exclude,file=bad.txt")
        self.views[name] = {key: value for key, value in self.versions[-1].items() if key not in left_out}

    @rule(name=st.sampled_from(NAMES), place=st.integers(0, 50), label=st.sampled_from(CLASSES[1:]))
    def save_a_view_with_another_label(self, name: str, place: int, label: str) -> None:
        now = self.versions[-1]
        key = sorted(now)[place % len(now)]
        (self.work / "fixes.csv").write_text(f"key,label\n{key},{label}\n")
        if label not in {one for one, _ in now.values()}:
            # A class that a compaction has left without samples.
            return
        self.save(name, "relabel=fixes.csv,classes=keep")
        self.views[name] = now | {key: (label, now[key][1])}

    def save(self, name: str, steps: str) -> None:
        view = imgdata.open_view(imgdata.open(self.out), "train", steps, folder=self.work)
        imgdata.save_view(view, name, overwrite=True)

    @rule(name=st.sampled_from(("", *NAMES)))
    def begin_an_epoch(self, name: str) -> None:
        if name and name not in self.views:
            return
        with loader(self.out, view=name or None) as uninterrupted:
            epoch = sums(uninterrupted)
        with loader(self.out, view=name or None) as batches:
            assert sums(batches, 1) == epoch[:1]
            self.states.append((batches.state_dict(), epoch[1:], name))

    @precondition(lambda self: self.states)
    @rule(place=st.integers(0, 20))
    def resume_an_epoch(self, place: int) -> None:
        state, expected, name = self.states[place % len(self.states)]
        try:
            with loader(self.out, view=name or None) as batches:
                batches.load_state_dict(state)
                assert sums(batches) == expected
        except ImgdataError:
            # The view of that name is another one by now: a state is never resumed with other samples.
            assert name

    @rule(name=st.sampled_from(("", *NAMES)))
    def compact(self, name: str) -> None:
        if (name not in self.views) if name else (len(self.versions) == 1):
            return
        content = self.views[name] if name else self.versions[-1]
        imgdata.compact(self.out, [name] if name else [], workers=1)
        self.versions = [content]
        for state, _, view in self.states:
            # Positions are others now.
            try:
                with loader(self.out, view=view or None) as batches:
                    batches.load_state_dict(state)
            except ImgdataError:
                continue
            raise AssertionError("a state of what was replaced was loaded")
        for view in self.views:
            try:
                imgdata.open_view(imgdata.open(self.out), "train", view)
            except ImgdataError:
                continue
            raise AssertionError("a view of what was replaced was opened")
        self.states, self.views = [], {}

    def found(self, version: int | None = None) -> Content:
        dataset = imgdata.open(self.out, version=version)
        return {one.key: (dataset.classes[one.label].id, one.image) for one in dataset["train"]}

    def shown(self, view: imgdata.View) -> Content:
        samples = [imgdata.open(self.out)["train"][position] for position in view.epoch_positions(0).tolist()]
        labels = view.epoch_labels(0).tolist()
        return {one.key: (view.classes[label].id, one.image) for one, label in zip(samples, labels, strict=True)}

    @invariant()
    def versions_and_views_are_what_they_were(self) -> None:
        if not hasattr(self, "versions"):
            return
        dataset = imgdata.open(self.out)
        assert dataset.version == len(self.versions)
        for number, content in enumerate(self.versions, 1):
            assert self.found(number) == content
        for name, content in self.views.items():
            assert self.shown(imgdata.open_view(dataset, "train", name)) == content

    def teardown(self) -> None:
        if hasattr(self, "work"):
            assert [fault for fault in imgdata.verify(self.out) if fault.serious] == []
            shutil.rmtree(self.work)


class TestGrowing(Growth.TestCase):
    """Hypothesis runs it; each step asserts."""

    settings = settings(max_examples=8, stateful_step_count=6, deadline=None)
