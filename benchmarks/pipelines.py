"""Run the pipelines of `docs/pipelines/`, and record what comes out: `python -m benchmarks.pipelines p0 --save`.

Each makes its raw data from installed packages below the work folder and then runs `imgdata` as a user would. With
`--source PATH` the same commands run on a user's own raw dataset, such as the real CIFAR-10 or ImageNet. Figures go to
`benchmarks/results/pipelines.json`, pictures to `docs/images/pipelines/`, and from there into the pages.
"""

import argparse
import csv
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import imgdata
from benchmarks.pipeline_data import (
    UnavailableError,
    cat,
    lite0_weights,
    write_digits_as_cifar,
    write_emojis,
    write_imbalanced,
)
from benchmarks.report import RESULTS, ROOT, machine, save

PICTURES = ROOT / "docs" / "images" / "pipelines"
SEEDS = (0, 1, 2)
"""Seeds of the trainings that are compared in p2: on 200 pictures chance alone moves a result by some percent."""
_FROZEN, _TUNED = 5, 14
"""Epochs of p4 with a new classifier alone, and all."""
_SHOWN = ("--seed", "7")
"""Options of the trace: with this seed the first sample is mirrored, and rotated by 30 degrees."""
_NAME = "pipelines"
_CURVE = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1")


@dataclass(frozen=True, kw_only=True)
class Work:
    """The folder in which a pipeline runs, and what it did there."""

    folder: Path
    download: Path
    source: Path | None = None
    """A raw dataset of the user's, instead of one that is made."""
    epochs: int | None = None
    """Instead of the pipeline's own number, for a try."""
    steps: list[dict[str, Any]] = field(default_factory=list)

    def imgdata(self, *arguments: str, shown: bool = True) -> Any:
        """Run `imgdata ARGUMENTS --json` in the folder; returns what it prints. What is `shown` is in the page."""
        print(f"$ imgdata {' '.join(arguments)}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        printed = call([*arguments, "--json"], self.folder)
        if shown:
            self.steps.append({"text": f"imgdata {' '.join(arguments)}", "seconds": time.perf_counter() - start})
        return json.loads(printed.splitlines()[-1])

    def raw(self, name: str, make: Callable[[Path], object]) -> str:
        """Return the raw dataset: the user's, or what `make` writes to `name` in the folder."""
        if self.source is not None:
            return str(self.source.resolve())
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        return name

    def train(self, out: str, run: str, *options: str, epochs: int, shown: bool = True) -> dict[str, Any]:
        """Train, and return the summary of the run, with its curve and its classes."""
        number = str(self.epochs or epochs)
        summary = self.imgdata("train", out, "--out", run, "--epochs", number, *options, "--quiet", shown=shown)
        if shown:
            self.steps[-1]["text"] = self.steps[-1]["text"].removesuffix(" --quiet")
        return {**summary, "curve": self.table(run, "metrics", _CURVE), "classes": self.table(run, "classes")}

    def table(self, run: str, name: str, columns: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
        """Rows of a run's CSV file."""
        with open(self.folder / run / f"{name}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{key: _value(text) for key, text in row.items() if columns is None or key in columns} for row in rows]

    def trace(self, out: str, *options: str, picture: str = "trace.png") -> dict[str, Any]:
        """Run `imgdata trace`, and return what it prints; its picture is in the folder."""
        result: dict[str, Any] = self.imgdata("trace", out, *options, "--picture", picture)
        return result


def call(arguments: list[str], folder: Path) -> str:
    """Run `imgdata ARGUMENTS` in a process of its own that works in `folder`, and return what it prints."""
    command = [sys.executable, "-m", "imgdata_cli.main", *arguments]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


def cifar(work: Work) -> dict[str, Any]:
    """P0: an archive of CIFAR-10 -> a held-out tenth -> `cnn` -> "correct ... of ..." on the test set."""
    raw = work.raw("cifar-10-python.tar.gz", write_digits_as_cifar)
    work.imgdata("shard", raw, "out")
    splits = work.imgdata("inspect", "out", shown=False)["splits"]
    # Mirrored digits are other signs; pictures of things aren't.
    flip = () if work.source else ("--no-flip",)
    summary = work.train("out", "run", "--model", "cnn", "--hold-out", "0.1", *flip, epochs=8)
    test = next(name for name in ("test", "val") if name in splits)
    answers = work.imgdata("evaluate", "run", "out", "--split", test)
    return {"summary": summary, "test": answers, "trace": work.trace("out", "--run", "run", *_SHOWN)}


def classifier(work: Work) -> dict[str, Any]:
    """P1: 1,000 pictures of 64 x 64 in class folders -> 800 / 200 -> flip, turn -> `cnn` -> right of 200."""
    raw = work.raw("emoji", lambda path: write_emojis(path, work.download))
    work.imgdata("shard", raw, "out")
    summary = work.train("out", "run", "--model", "cnn", epochs=25)
    return {"summary": summary, "trace": work.trace("out", "--run", "run", *_SHOWN)}


def know_your_data(work: Work) -> dict[str, Any]:
    """P2: classes of very different sizes -> `inspect`, `audit` -> nothing done, drawn equally often, weighed."""

    def make(path: Path) -> None:
        write_imbalanced(path, write_emojis(path.parent / "emoji", work.download))

    work.imgdata("shard", work.raw("imbalanced", make), "out")
    facts = work.imgdata("inspect", "out")
    work.imgdata("audit", "out", "-o", "report", "--skip", "labels")
    ways = {"nothing": (), "balance": ("--balance",), "weights": ("--class-weights", "balanced")}
    results: dict[str, Any] = {}
    for name, options in ways.items():
        runs = [
            work.train(
                "out",
                f"{name}-{seed}",
                *("--model", "cnn", *options, "--seed", str(seed)),
                epochs=15,
                shown=seed == SEEDS[0],
            )
            for seed in SEEDS
        ]
        results[name] = {
            "top1": float(np.mean([run["top1"] for run in runs])),
            "top1_of_seeds": [run["top1"] for run in runs],
            "by_class": np.mean([_by_class(run) for run in runs], axis=0).tolist(),
        }
    return {"inspect": facts, "audit": found_by_kind(work.folder / "report"), "ways": results, "seeds": list(SEEDS)}


def found_by_kind(report: Path) -> list[dict[str, Any]]:
    """Return for each kind of finding of an audit how many there are, and what the surest says."""
    findings = imgdata.read_findings(report)
    kinds = dict.fromkeys(finding.kind for finding in findings)
    return [
        {
            "kind": kind,
            "found": sum(finding.kind == kind for finding in findings),
            "surest": next(finding.message for finding in findings if finding.kind == kind),
        }
        for kind in kinds
    ]


def layers(work: Work) -> dict[str, Any]:
    """P3: `cnn` on 64 x 64, layer by layer, before and after ten epochs."""
    raw = work.raw("cifar-10-python.tar.gz", write_digits_as_cifar)
    work.imgdata("shard", raw, "out")
    flip = () if work.source else ("--no-flip",)
    first = work.trace("out", "--model", "cnn", "--size", "64", *flip, picture="before.png")
    summary = work.train("out", "run", "--model", "cnn", "--size", "64", *flip, epochs=10)
    return {"summary": summary, "before": first, "trace": work.trace("out", "--run", "run", *_SHOWN)}


def pretrained(work: Work) -> dict[str, Any]:
    """P4: Lite0 with ImageNet's weights: a photograph's class, a new classifier, fine-tuning; beside `cnn`."""
    shutil.copy(lite0_weights(), work.folder / "lite0.pth")
    shutil.copy(cat(), work.folder / "chelsea.png")
    raw = work.raw("emoji", lambda path: write_emojis(path, work.download))
    model = ("tf_efficientnet_lite0", "--weights", "lite0.pth")
    predictions = work.imgdata("predict", model[0], "chelsea.png", *model[1:])
    work.imgdata("shard", raw, "out")
    vectors = work.imgdata("features", model[0], "out", *model[1:], "--split", "train", "-o", "features.npz")
    scratch = work.train("out", "scratch", "--model", "cnn", epochs=25)
    frozen = min(_FROZEN, (work.epochs or _TUNED) - 1)
    tuned = work.train(
        *("out", "run", "--model", *model, "--size", "128", "--recipe", "cifar", "--batch-size", "32", "--lr", "0.002"),
        *("--freeze", "--unfreeze-after", str(frozen), "--backbone-lr", "0.3"),
        epochs=_TUNED,
    )
    return {
        "summary": tuned,
        "scratch": scratch,
        "frozen_epochs": frozen,
        "predictions": predictions,
        "features": {"rows": vectors["rows"], "width": vectors["width"]},
        "widths": feature_widths(),
        "trace": work.trace("out", "--run", "run", *_SHOWN),
    }


PIPELINES: Mapping[str, Callable[[Work], dict[str, Any]]] = {
    "p0": cifar,
    "p1": classifier,
    "p2": know_your_data,
    "p3": layers,
    "p4": pretrained,
}


def feature_widths(names: tuple[str, ...] = ("resnet50", "vgg16", "tf_efficientnet_lite0")) -> dict[str, int]:
    """Return the width of each network's features of a picture of 224 x 224: shapes alone, nothing is computed."""
    import torch

    from imgdata.models import create_model

    widths = {}
    for name in names:
        with torch.no_grad(), torch.device("meta"):
            model = create_model(name, num_classes=1000, size=224).eval()
            features = model.forward_features(torch.zeros(1, 3, 224, 224))  # type: ignore[operator]
            widths[name] = int(model.forward_head(features, pre_logits=True).shape[1])  # type: ignore[operator]
    return widths


def run(name: str, work: Path, *, source: Path | None = None, epochs: int | None = None) -> dict[str, Any]:
    """Run a pipeline in a folder of its own below `work`, which is emptied; returns its figures."""
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    place = Work(folder=folder, download=work / "download", source=source, epochs=epochs)
    figures = PIPELINES[name](place)
    about = machine()
    about["versions"] |= {package: version(package) for package in ("torch", "timm")}
    command = f"python -m benchmarks.pipelines {name} --save"
    return {"command": command, **about, "seed": 0, "steps": place.steps, **figures}


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PIPELINES)}; all where none is named")
    parser.add_argument("--source", type=Path, help="raw dataset of one's own, such as cifar-10-python.tar.gz")
    parser.add_argument("--work", type=Path, default=Path("build/pipelines"), help="folder to work in")
    parser.add_argument("--epochs", type=int, help="instead of each pipeline's own number, for a try")
    parser.add_argument("--save", action="store_true", help="record figures and pictures for the documentation")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(PIPELINES))
    if unknown:
        parser.error(f"NAME must be one of {', '.join(PIPELINES)}, got {unknown[0]!r}")
    if options.save and (options.source or options.epochs):
        parser.error("--save records the pipelines as they are: leave out --source and --epochs")
    if options.source is not None and not options.source.exists():
        parser.error(f"--source must be a raw dataset, got {options.source}, which is not there")
    for name in options.names or PIPELINES:
        try:
            report = run(name, options.work.resolve(), source=options.source, epochs=options.epochs)
        except UnavailableError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        except subprocess.CalledProcessError as error:
            # The command has printed its error.
            raise SystemExit(f"{name} stopped at {' '.join(map(str, error.cmd[3:]))}") from error
        print(_in_short(name, report))
        if options.save:
            _record(name, report, options.work.resolve() / name)


def _in_short(name: str, report: dict[str, Any]) -> str:
    """Return what took how long, and how much was right, in short."""
    lines = [f"{name}:", *(f"{step['seconds']:6.1f} s  {step['text']}" for step in report["steps"])]
    right = {what: report[what] for what in ("scratch", "summary", "test") if what in report}
    lines += [f"{what}: {one['correct']:,} of {one['total']:,} right, {one['top1']:.1%}" for what, one in right.items()]
    lines += [f"{way}: {one['top1']:.1%}" for way, one in report.get("ways", {}).items()]
    return "\n".join(lines)


def _record(name: str, report: dict[str, Any], folder: Path) -> None:
    """Put the report among those of the other pipelines, and its pictures beside theirs."""
    path = RESULTS / f"{_NAME}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    save(_NAME, {**known, name: report})
    PICTURES.mkdir(parents=True, exist_ok=True)
    for file, end in (("trace.png", "trace"), ("before.png", "before"), ("run/curves.png", "curves")):
        if (folder / file).exists():
            shutil.copy(folder / file, PICTURES / f"{name}-{end}.png")


def _by_class(run: dict[str, Any]) -> list[float]:
    """Accuracy of each class; no number where it was not validated with."""
    return [row["accuracy"] if row["samples"] else math.nan for row in run["classes"]]


def _value(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
