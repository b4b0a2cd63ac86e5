"""Work that writes files, the states in which a crash may leave them, and what is found there afterwards."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import imgdata
from imgdata.errors import ImgdataError
from imgdata.storage.shard_shelves import DiskShelf
from imgdata.training.checkpoint import load_checkpoint, save_checkpoint
from imgdata.training.loop import train
from imgdata.training.run_folder import RunFolder
from imgdata.web.decisions import Decision, Decisions
from support.digit_runs import digit_folders, losses, metrics, quick
from support.loose import aged, samples
from support.rawdata import class_folders, encoded, pictures_of
from support.traces import Crash, Trace, traced

Found = Any
"""What a reader finds in a folder: compared with `==`."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that writes files, and how its files are read."""

    before: Callable[[Path], object]
    """Makes the old state in a folder; the folder does not exist before."""
    act: Callable[[Path], object]
    """Does the work; called again after a crash, it ends as if none had been."""
    read: Callable[[Path], Found]
    """Returns what a reader finds; raises an error of imgdata, for people, where there is nothing."""
    ends: Callable[[Path], Found]
    """Returns all that must be the same at the end, whatever happened before."""


def trace_of(work: Work, folder: Path) -> tuple[Trace, Found, Found, Found]:
    """The steps of the work, what is found before and after it, and all that is there at the end."""
    work.before(folder)
    # A copy is read: a reader may write an index into a cache.
    old = outcome(work, Path(shutil.copytree(folder, folder.with_name("old"))))
    with traced(folder) as trace:
        work.act(folder)
    return trace, old, work.read(folder), work.ends(folder)


def outcome(work: Work, folder: Path) -> Found:
    """What is found in the folder, or the error."""
    try:
        return work.read(folder)
    except ImgdataError as error:
        said = str(error)
        assert said, "no message"
        assert "\n" not in said, said
        return error


def replay(
    work: Work, crashes: Sequence[Crash], old: Found, new: Found, end: Found, place: Path
) -> tuple[Counter[str], list[str]]:
    """Count how the states read (old, new, or one clear error), and name those in which something is lost."""
    counts: Counter[str] = Counter()
    wrong = []
    for crash in crashes:
        folder = crash.put(place / "crashed")
        try:
            found = outcome(work, folder)
            if isinstance(found, ImgdataError):
                counts["error"] += 1
            elif found == new:
                counts["new"] += 1
            else:
                assert found == old, "neither the old state nor the new one"
                counts["old"] += 1
            # What it writes now is crashed no more, and need not reach the disk.
            with mock.patch("os.fsync"):
                work.act(folder)
            ends = work.ends(folder)
            # The same files, byte by byte, are read as they were before.
            if work.ends is not digests or ends != end:
                assert work.read(folder) == new, "the next run does not end with the new state"
            assert ends == end, "the next run leaves other files"
        except Exception as error:
            wrong.append(f"{crash.after}, {crash.how}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder)
    return counts, wrong


def samples_in(folder: Path) -> Found:
    """Every sample of a dataset, read; all hashes that the dataset has are compared.

    Sidecars for other readers follow `dataset.json` in an append: until then they say what the version before holds.
    """
    dataset = imgdata.open(folder)
    wrong = [fault for fault in imgdata.verify(folder) if fault.serious and not fault.shard.endswith((".json", ".md"))]
    assert wrong == [], wrong
    return {split: [(one.key, one.label, one.image) for one in dataset[split]] for split in dataset}


def digests(folder: Path) -> Found:
    """Hash of each file, with the names of all that is there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sharding(place: Path) -> Work:
    """`shard` into a new folder."""
    raw = class_folders(place / "pets", {"train": 2, "val": 1})
    return Work(
        before=lambda out: out.mkdir(),
        act=lambda out: imgdata.shard(raw, out, shard_samples=3, workers=1),
        read=samples_in,
        ends=digests,
    )


def closing_gaps(place: Path) -> Work:
    """`shard` of a source whose first shards hold damaged images alone, so that shards are renumbered."""
    raw = class_folders(place / "pets", {"": 2})
    for path in sorted(raw.rglob("*.jpg"))[:3]:
        path.write_bytes(encoded(2)[:-300])
    return Work(
        before=lambda out: out.mkdir(),
        act=lambda out: imgdata.shard(raw, out, shard_samples=1, workers=1),
        read=samples_in,
        ends=digests,
    )


def overwriting(place: Path) -> Work:
    """`shard --overwrite` over a finished dataset with files of the same names."""
    raw = class_folders(place / "pets", {"train": 2, "val": 1}, ("cat", "dog"))
    return Work(
        before=lambda out: imgdata.shard(raw, out, shard_samples=4, workers=1),
        # Complete already where the crash came behind the end: then nothing is written.
        act=lambda out: imgdata.shard(raw, out, shard_samples=2, seed=3, workers=1, overwrite=not _has_seed(out, 3)),
        read=samples_in,
        ends=digests,
    )


def _has_seed(out: Path, seed: int) -> bool:
    try:
        return bool(imgdata.open(out).manifest.source.get("seed") == seed)
    except ImgdataError:
        return False


def appending(place: Path) -> Work:
    """`shard --append` behind a finished dataset."""
    raw = pictures_of(place / "pets", {"train/cat": 1, "val/cat": 1})
    more = pictures_of(place / "more", {"train/ant": 1, "train/cat": 1}, first=100)
    return Work(
        before=lambda out: imgdata.shard(raw, out, shard_samples=1, workers=1),
        act=lambda out: imgdata.shard(more, out, shard_samples=1, workers=1, append=True),
        read=samples_in,
        ends=digests,
    )


def indexing(place: Path) -> Work:
    """`index` over tars that other tools wrote."""
    made = place / "made"
    imgdata.shard(class_folders(place / "pets", {"train": 2}), made, shard_samples=3, workers=1)

    def bare(out: Path) -> None:
        out.mkdir()
        for path in made.glob("*.tar"):
            shutil.copy(path, out)

    return Work(before=bare, act=lambda out: imgdata.index(out), read=samples_in, ends=digests)


def saving_a_view(place: Path) -> Work:
    """`save_view` over a view of the same name, with a list of its own."""
    made = place / "made"
    imgdata.shard(class_folders(place / "pets", {"train": 3}), made, workers=1)
    keys = [sample.key for sample in imgdata.open(made)["train"]]
    for number in range(2):
        (place / f"bad{number}.txt").write_text("\n".join(keys[number : number + 2]) + "\n")

    def save(out: Path, number: int) -> None:
        view = imgdata.open_view(imgdata.open(out), "train", f"exclude,file=bad{number}.txt", folder=place)
        imgdata.save_view(view, "clean", overwrite=True)

    def read(out: Path) -> Found:
        return imgdata.open_view(imgdata.open(out), "train", "clean").fingerprint

    def before(out: Path) -> None:
        shutil.copytree(made, out)
        save(out, 0)

    return Work(before=before, act=lambda out: save(out, 1), read=read, ends=digests)


def exporting(place: Path) -> Work:
    """`export` of a dataset into a new folder."""
    made = place / "made"
    imgdata.shard(pictures_of(place / "pets", {"train/cat": 2, "val/dog": 1}), made, workers=1)

    def act(out: Path) -> None:
        # Complete already where the crash came behind the end.
        if not (out / "photos").exists():
            imgdata.export(made, out / "photos")

    def read(out: Path) -> Found:
        if not (out / "photos").exists():
            raise ImgdataError(f"{out}: no photos")
        return digests(out / "photos")

    # A power cut may bring back the file of the lock, which is in nobody's way.
    return Work(
        before=lambda out: out.mkdir(),
        act=act,
        read=read,
        ends=lambda out: [name for name in digests(out) if not name.endswith(".lock")],
    )


def writing_parts(place: Path) -> Work:
    """`shard` in two parts, after a plan that was frozen."""
    raw = class_folders(place / "pets", {"train": 1, "val": 1}, ("cat", "dog"))

    def act(out: Path) -> None:
        imgdata.begin_parts(raw, out, shard_samples=2, workers=1)
        for part in range(2):
            imgdata.write_part(out, part, 2, workers=1)
        imgdata.finish_parts(out)

    return Work(before=lambda out: out.mkdir(), act=act, read=samples_in, ends=digests)


def opening_raw_images(place: Path) -> Work:
    """`imgdata.open` of raw images, whose index is kept in the cache folder."""
    raw = aged(class_folders(place / "pets", {"train": 2, "val": 1}))

    def read(cache: Path) -> Found:
        with mock.patch.dict(os.environ, IMGDATA_CACHE=str(cache)):
            return samples(imgdata.open(raw)["train"])

    return Work(before=lambda cache: cache.mkdir(), act=read, read=read, ends=lambda cache: len(digests(cache)) > 0)


SHARD_BYTES = 5000


def fill(cache: Path, key: str, limit: int = 2 * SHARD_BYTES) -> None:
    """Fetch a shard into the cache, unless it has it."""
    with mock.patch.dict(os.environ, IMGDATA_CACHE=str(cache)):
        shelf = DiskShelf(limit)
    place = shelf.begin(key, SHARD_BYTES)
    if place is not None:
        # In two parts, as they come from a store.
        data = key.encode() * SHARD_BYTES
        os.pwrite(place.file, data[: SHARD_BYTES // 2], 0)
        os.pwrite(place.file, data[SHARD_BYTES // 2 : SHARD_BYTES], SHARD_BYTES // 2)
        shelf.finish(place)
        shelf.close(place)


def shards_in(cache: Path, keys: str) -> list[str]:
    """Those of the shards that the cache has; their bytes are compared."""
    with mock.patch.dict(os.environ, IMGDATA_CACHE=str(cache)):
        shelf = DiskShelf(2 * SHARD_BYTES)
    found = []
    for key in keys:
        place = shelf.open(key, SHARD_BYTES)
        if place is not None:
            assert os.pread(place.file, SHARD_BYTES + 1, 0) == key.encode() * SHARD_BYTES, f"other bytes in {key}"
            shelf.close(place)
            found.append(key)
    return found


def caching(place: Path) -> Work:
    """A shard that is fetched into a full cache, in which another one makes room."""

    def before(cache: Path) -> None:
        cache.mkdir()
        for key in "ab":
            fill(cache, key)

    def read(cache: Path) -> Found:
        # A removal that is lost is made again by the next shard that needs room.
        return shards_in(cache, "abc") is not None

    return Work(before=before, act=lambda cache: fill(cache, "c"), read=read, ends=lambda cache: shards_in(cache, "c"))


def saving_a_checkpoint(place: Path) -> Work:
    """A run's `last.pt`, written over the one before."""
    states = [{"step": step, "model": {"weight": torch.full((3, 5), float(step))}} for step in (1, 2)]

    def read(run: Path) -> Found:
        state = load_checkpoint(run / "last.pt")
        return state["step"], state["model"]["weight"].tolist()

    def before(run: Path) -> None:
        run.mkdir()
        save_checkpoint(run / "last.pt", states[0])

    def act(run: Path) -> None:
        # As a run does when it begins and when it resumes.
        with RunFolder(run).held(new=False):
            save_checkpoint(run / "last.pt", states[1])

    return Work(before=before, act=act, read=read, ends=lambda run: sorted(digests(run)))


def training(place: Path) -> Work:
    """A run of one epoch with checkpoints in between, that is resumed where it has begun."""
    raw = digit_folders(place / "raw", {"train": 40, "val": 20}, classes=2)
    imgdata.shard(raw, place / "digits", workers=1)
    settings = quick(epochs=1, batch_size=10, checkpoint_steps=2)

    def act(run: Path) -> None:
        resume = (run / "config.json").exists()
        if not (run / "summary.json").exists():
            train(place / "digits", run, settings, resume=resume)

    def read(run: Path) -> Found:
        config = RunFolder(run).read_config()
        if (run / "last.pt").exists():
            load_checkpoint(run / "last.pt")
        return len(config["classes"])

    def ends(run: Path) -> Found:
        state = load_checkpoint(run / "last.pt")
        weights = {name: weight.tolist() for name, weight in state["model"].items()}
        return losses(run), metrics(run), weights, [name for name in digests(run) if name != ".lock"]

    return Work(before=lambda run: run.mkdir(), act=act, read=read, ends=ends)


def deciding(place: Path) -> Work:
    """Decisions in the viewer, a line each, behind those that are there."""

    def add(out: Path, *keys: str) -> None:
        decisions = Decisions(out / "decisions.jsonl")
        known = {one.key for one in decisions.all()}
        for key in keys:
            if key not in known:
                decisions.add([Decision(id=key, author="Ada", time=1.0, split="train", key=key, action="flag")])

    def before(out: Path) -> None:
        out.mkdir()
        add(out, "a", "b")

    def read(out: Path) -> Found:
        return [one.key for one in Decisions(out / "decisions.jsonl").all()]

    return Work(before=before, act=lambda out: add(out, "a", "b", "c"), read=read, ends=digests)


WORKS: dict[str, Callable[[Path], Work]] = {
    "shard": sharding,
    "shard, closing gaps": closing_gaps,
    "shard --overwrite": overwriting,
    "shard --append": appending,
    "index": indexing,
    "shard --plan, --part, --finish": writing_parts,
    "export": exporting,
    "an index of raw images": opening_raw_images,
    "a shard in the cache": caching,
    "a saved view": saving_a_view,
    "a decision": deciding,
    "a checkpoint": saving_a_checkpoint,
    "a run": training,
}
