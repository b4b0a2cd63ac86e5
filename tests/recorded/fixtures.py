"""What was written once and must still open: a dataset with saved views, a training run that was cut off.

The files lie in `dataset/` and `run/`; here is how they were made, and what is recorded of using them.
"""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np

import imgdata
from benchmarks.raw_files import write_file
from imgdata import recipes
from recorded import raw
from recorded.arrays import digest
from recorded.places import TrainOptions, TrainWatcher, command, list_views, open_view, save_view, train

HERE = Path(__file__).parent
DATASET = HERE / "dataset"
RUN = HERE / "run"

COUNTS = {"train": {"ash": 12, "birch": 9, "cedar": 7}, "val": {"ash": 3, "birch": 3, "cedar": 3}}

VIEWS = (
    "",
    "fraction=0.5",
    "fraction=0.9,part=first,seed=3 | balance",
    "count=15,part=rest,seed=7",
    "fold=2/5,part=held,seed=1",
    "fold=2/5",
    "per_class=3,seed=2 | where class in ash,birch",
    "where width>=11 & format==png & class in ash,cedar & source not like *3*",
    "balance=ash:2,birch:0.5,length=40,seed=3",
    "balance,length=50",
    "half | where class!=ash",
    "clean",
    "weighed",
)
"""Of `train`; the last ones build on saved views."""
SAVED = {
    "half": "fraction=0.5,seed=1",
    "clean": "exclude,file=bad.txt | relabel=fixes.csv",
    "weighed": "balance,weights=weights.csv,length=30,seed=2",
}
"""Saved views, by name."""

LOADERS: dict[str, dict[str, Any]] = {
    "global": {"seed": 5},
    "global, all samples": {"seed": 5, "drop_last": False},
    "second of two ranks": {"seed": 5, "rank": 1, "world_size": 2},
    "window": {"shuffle": "window", "window_shards": 2, "seed": 6},
    "none": {"shuffle": "none"},
    "validation": {"split": "val", "shuffle": "none"},
    "view": {"view": "clean | balance", "seed": 7},
    "mixed": {"more": (recipes.MixUpOrCutMix(),), "seed": 8},
}
"""Options of loaders; `more` are operators behind those of `RECIPE`."""
RECIPE = (recipes.PadRandomCrop(size=8, padding=2), recipes.HorizontalFlip())
"""Moves pixels and rounds none of them, so that all are the same on every processor."""

SETTINGS: dict[str, Any] = {
    "model": "cnn",
    "size": 10,
    "epochs": 5,
    "batch_size": 7,
    "optimizer": "sgd",
    "lr": 0.1,
    "dropout": 0.2,
    "recipe": "classifier",
    "device": "cpu",
    "threads": 1,
    "checkpoint_steps": 2,
}
"""Of the run: the smallest network, four steps an epoch."""
CUT_OFF = (3, 2)
"""Epoch and step after which the run was stopped."""
OTHER_SETTINGS: dict[str, Any] = {
    **SETTINGS,
    "optimizer": "adamw",
    "lr": 0.003,
    "recipe": "cifar",
    "ema": 0.5,
    "mixup": 0.2,
    "erasing": 0.3,
    "label_smoothing": 0.1,
    "epochs": 2,
}
"""Of a run that is recorded by its losses alone. No policy: Pillow-SIMD rounds some of its colours otherwise."""


def tree(seed: int, label: int) -> bytes:
    """A PNG of 10 to 13 x 10 pixels, most of them in the colour of the class."""
    width = 10 + seed % 4
    pixels = raw.random_bytes(seed, 10 * width * 3).reshape(10, width, 3) // 2
    pixels[:, :, label] += 110
    return raw.png_of(pixels)


def make_dataset(folder: Path) -> None:
    """Write the dataset, with its saved views, to `folder`."""
    source = folder.parent / "trees"
    seed = 0
    for split, counts in COUNTS.items():
        for label, (name, count) in enumerate(counts.items()):
            for number in range(count):
                seed += 1
                write_file(source / split / name / f"{number:02d}.png", tree(seed, label))
    command("shard", source, folder, "--shard-samples", "6", "--json-members", "--quiet", "--workers", "1")
    save_views(folder)


def save_views(folder: Path) -> None:
    """Save `SAVED` in the dataset; the lists that they name are made beside it."""
    dataset = imgdata.open(folder)
    keys = [sample.key for sample in dataset["train"]]
    lists = folder.parent
    (lists / "bad.txt").write_text(f"{keys[3]}\n{keys[8]}\n")
    (lists / "fixes.csv").write_text(f"key,label\n{keys[5]},cedar\n{keys[9]},ash\n")
    weights = "".join(f"{key},{1 + number % 4}\n" for number, key in enumerate(keys))
    (lists / "weights.csv").write_text(f"key,weight\n{weights}")
    for name, text in SAVED.items():
        save_view(open_view(dataset, "train", text, folder=lists), name)


def views() -> dict[str, Any]:
    """By text: positions, labels and fingerprint of the view, and its epochs; and which saved ones there are."""
    found: dict[str, Any] = {"saved": list_views(imgdata.open(DATASET))}
    for text in VIEWS:
        with imgdata.Loader(DATASET, split="train", batch_size=1, recipe=recipes.Recipe(*RECIPE), view=text) as loader:
            view = loader.view
            found[text] = {
                "expression": view.expression,
                "fingerprint": view.fingerprint,
                "positions": view.position_N.tolist(),
                "labels": view.label_N.tolist(),
                "epochs": [view.epoch_positions(epoch).tolist() for epoch in (0, 1, 9)],
            }
    return found


def loaders() -> dict[str, Any]:
    """By name: batches of two epochs, a state in the middle, and what follows it with another batch size."""
    found: dict[str, Any] = {}
    for name, options in LOADERS.items():
        with _loader(options, batch_size=4) as loader:
            batches = [_batch(batch) for _ in range(2) for batch in loader]
            loader.set_epoch(4)
            first = next(iter(loader))
            state = loader.state_dict()
        with _loader(options, batch_size=2) as other:
            other.load_state_dict(state)
            rest = [batch.positions.tolist() for batch in other]
        found[name] = {"batches": batches, "epoch 4": first.positions.tolist(), "state": state, "after it": rest}
    return found


def _loader(options: dict[str, Any], batch_size: int) -> imgdata.Loader:
    settings = {"split": "train", "threads": 1, "backend": "cpu", **options}
    recipe = recipes.Recipe(*RECIPE, *settings.pop("more", ()))
    return imgdata.Loader(DATASET, batch_size=batch_size, recipe=recipe, **settings)


def _batch(batch: imgdata.Batch) -> dict[str, Any]:
    if batch.labels.is_floating_point():
        # Mixed: shares and pixels are floats, which differ between processors.
        labels = [[round(share, 5) for share in row] for row in batch.labels.tolist()]
        return {"positions": batch.positions.tolist(), "labels": labels}
    return {
        "positions": batch.positions.tolist(),
        "labels": batch.labels.tolist(),
        "valid": batch.valid.tolist(),
        "pixels": digest(np.asarray(batch.images)),
    }


def reports() -> dict[str, Any]:
    """What commands say of the dataset, as JSON, and all samples as Python reads them."""
    said = {
        "inspect": command("inspect", DATASET, "--json"),
        "verify": command("verify", DATASET, "--deep", "--json", "--quiet"),
        "plan": command("shard", DATASET, "nowhere", "--dry-run", "--json", "--shard-samples", "10"),
    }
    samples = [
        [sample.key, sample.format, sample.label, sample.fields, digest(np.frombuffer(sample.image, np.uint8))]
        for split in imgdata.open(DATASET).values()
        for sample in split
    ]
    return {**{name: without_paths(json.loads(text)) for name, text in said.items()}, "samples": samples}


def without_paths(value: Any) -> Any:
    """JSON values without the place of the dataset and without times."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items() if "second" not in key}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    return value.replace(str(DATASET), "DATASET") if isinstance(value, str) else value


class _Stops(TrainWatcher):
    """Asks the run to stop after `CUT_OFF`, as Ctrl-C does."""

    def stepped(self, report: Any) -> None:
        if (report.epoch, report.step) == CUT_OFF:
            signal.raise_signal(signal.SIGINT)


def make_run(run: Path) -> None:
    """Train until `CUT_OFF`, and keep what is needed to go on and to predict."""
    try:
        train(DATASET, run, TrainOptions(**SETTINGS), watcher=_Stops())
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("the run was not stopped")
    kept = ("config.json", "best.pt", "last.pt", "metrics.csv", "steps.csv")
    for path in run.iterdir():
        if path.name not in kept:
            path.unlink()
    config = json.loads((run / "config.json").read_text())
    config["data"] = DATASET.name
    (run / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def resumed(folder: Path) -> dict[str, Any]:
    """The course of the run in `run/`, gone on with in a copy; `whole` gives that of one that nothing disturbed."""
    run = shutil.copytree(RUN, folder / "run")
    command("train", DATASET, "--out", run, "--resume", "--quiet")
    return course(run)


def whole(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The course of a run from its start to its end."""
    words: list[str] = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    command("train", DATASET, "--out", folder / "run", "--quiet", *words)
    return course(folder / "run")


def course(run: Path) -> dict[str, Any]:
    """Losses and learning rates of all steps, and the losses of all epochs."""
    with open(run / "steps.csv", newline="") as file:
        steps = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    with open(run / "metrics.csv", newline="") as file:
        # No accuracies: one picture that is on the edge between two classes changes them a lot.
        names = ("epoch", "size", "lr", "train_loss", "val_loss")
        epochs = [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]
    return {"steps": steps, "epochs": epochs}


def answers(folder: Path) -> dict[str, Any]:
    """What the run in `run/` says: its scores, its predictions for two pictures, its features."""
    scores = json.loads(command("evaluate", RUN, DATASET, "--split", "train", "--json", "--quiet"))
    pictures = []
    for label in (0, 2):
        pictures.append(folder / f"{label}.png")
        pictures[-1].write_bytes(tree(500 + label, label))
    predicted = json.loads(command("predict", RUN, *pictures, "--json", "--quiet"))
    chances = [{one["name"]: one["probability"] for one in picture["predictions"]} for picture in predicted]
    wanted = ("model", "split", "view", "top1", "loss", "correct", "total", "confusion")
    command("features", RUN, DATASET, "--split", "val", "-o", folder / "features.npz", "--quiet")
    with np.load(folder / "features.npz") as vectors:
        features = {name: _summary(vectors[name]) for name in vectors.files}
    return {"evaluate": {name: scores[name] for name in wanted}, "predict": chances, "features": features}


def _summary(array: np.ndarray) -> Any:
    """Floats as shape and means over samples and over features, all else as it is."""
    if array.dtype.kind != "f":
        return array.tolist()
    return [list(array.shape), array.mean(0).tolist()[:16], array.mean(1).tolist()]
