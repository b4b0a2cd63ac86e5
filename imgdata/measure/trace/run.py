"""A dataset, a network -> what goes into every stage and comes out of it: shapes, ranges, an example, times.

The same samples pass through all stages, and the loader itself makes them: its recipe is cut off after each operator,
which does not change what the operators before draw.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imgdata.errors import OptionError
from imgdata.inference.trained import load_trained
from imgdata.loose.opened import open as open_dataset
from imgdata.measure.trace.layers import layer_rows
from imgdata.measure.trace.pixels import follow, pixel_rows, raw_rows
from imgdata.measure.trace.rows import Panel, TraceRow
from imgdata.measure.trace.steps import answer_rows, train_row
from imgdata.models import model_input
from imgdata.recipes import Normalize
from imgdata.recipes.recipe import Recipe
from imgdata.sample import ClassName
from imgdata.storage.local_paths import any_path
from imgdata.training.distributed import Processes, processes
from imgdata.training.options import TrainOptions, saved_options
from imgdata.training.run_folder import RunFolder
from imgdata.training.setup import Prepared, chosen_data, prepare, read_classes, saved_version
from imgdata.views.view import View

TIMED = 64
"""Samples that times are taken of, where there are as many: a batch of a few shows the work before it alone."""
_ODD_RANGE = 10.0
"""Beyond it no usual normalisation leaves pixels."""
_USUAL_STD = (0.02, 2.0)
"""Range of the deviation of any pictures on the scale from 0 to 1; 1 is for pictures that stay on that scale."""
_OF_ANY_RUN = ("split", "seed", "device")
"""Options that may be given beside a run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The whole way of some samples."""

    split: str
    samples: int
    """Followed."""
    keys: tuple[str, ...]
    """Keys of the followed samples; the first is the example."""
    label: ClassName
    """The example's class."""
    model: str
    trained: bool
    """Whether the network is a run's, or has weights that were loaded; otherwise its first, random ones."""
    parameters: int
    rows: tuple[TraceRow, ...]
    """Rows in the order of the stages: load, decode, preprocess, split, augment, batch, train, evaluate, layer."""
    notes: tuple[str, ...]
    """Remarks on what looks wrong."""
    panels: tuple[Panel, ...]
    """The example after each stage, for `imgdata.save_picture`."""

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pictures as plain values, for JSON."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("rows", "panels")}
        return {**plain, "label": self.label._asdict(), "rows": [asdict(row) for row in self.rows]}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Network:
    """The network that is traced."""

    model: nn.Module
    recipe: Recipe
    eval_recipe: Recipe
    trained: bool
    wanted: Normalize | None = None
    """Normalisation with which the weights were trained, where they came from elsewhere."""


def trace(
    dataset: str | Path, options: TrainOptions | None = None, *, run: str | Path | None = None, samples: int = 8
) -> Trace:
    """Follow `samples` samples of the training split of `dataset`, evenly spread, through all of training.

    The network, its input and both recipes are those that `imgdata.train` would make of `options`, or those
    of the finished run in the folder `run`; then `options` may name a split, a seed and a device alone. The network
    takes one step on the samples, and answers with the weights that it had before. Times: of reading, decoding and
    operators in one thread, the best of three rounds of 64 samples after a first one; of the network on its device.

    Raises `OptionError`, `ShardError`, `ImageError` where one of the samples can't be decoded, `MissingExtraError`.
    """
    given = options or TrainOptions()
    if samples < 1:
        raise OptionError(f"samples must be 1 or more, got {samples}")
    chosen = given if run is None else _options_of(RunFolder(Path(run)), given)
    # All followed samples make one batch; whatever spreads or averages what is learned has no part in one step.
    chosen = replace(chosen, batch_size=samples, accumulate=1, balance=False, ema=0.0, compile=False)
    with processes(chosen.device) as ranks:
        if ranks.world_size > 1:
            raise OptionError("a trace needs one process alone, got several; start it without torchrun")
        place = any_path(dataset)
        version = None if run is None else _version_of(RunFolder(Path(run)).read_config(), place)
        opened = open_dataset(place, version=version)
        there = len(chosen_data(opened, chosen, saved=run is not None)[1].train.position_N)
        if samples > there:
            raise OptionError(f"samples must be at most the {there:,} there are to train on, got {samples:,}")
        with prepare(place, chosen, ranks, saved=run is not None, version=version) as prepared:
            network = _network(prepared, run, ranks)
            # Of a run it is that of augmentation alone: the other draws are made.
            return _follow(prepared, network, ranks, samples, seed=given.seed or chosen.seed)


def _version_of(config: Mapping[str, Any], dataset: Path) -> int | None:
    """Return the version of the dataset that a run reads; None, for the newest, where the run reads another dataset."""
    return saved_version(config) if config["data"] == str(dataset.resolve()) else None


def _options_of(folder: RunFolder, given: TrainOptions) -> TrainOptions:
    """Return a run's options, without what made its first weights, which have changed since. Raises `OptionError`."""
    default = TrainOptions()
    for field in fields(TrainOptions):
        if field.name not in _OF_ANY_RUN and getattr(given, field.name) != getattr(default, field.name):
            raise OptionError(f"{field.name} must be left out with a run, {folder.path}, which has its own")
    config = folder.read_config()
    saved = saved_options(config["options"])
    return replace(
        saved,
        size=config["size"],
        split=given.split if given.split != default.split else saved.split,
        device=given.device,
        # The file may have been deleted; the run has kept its contents.
        recipe="auto" if saved.recipe.endswith(".json") else saved.recipe,
        **{
            name: getattr(default, name)
            for name in ("weights", "pretrained", "freeze", "unfreeze_after", "freeze_batchnorm")
        },
    )


def _network(prepared: Prepared, run: str | Path | None, ranks: Processes) -> _Network:
    if run is None:
        options, takes = prepared.options, model_input(prepared.options.model)
        trained = options.weights is not None or options.pretrained
        return _Network(
            model=prepared.model,
            recipe=prepared.recipe,
            eval_recipe=prepared.eval_recipe,
            trained=trained,
            wanted=Normalize(mean=takes.mean, std=takes.std) if trained else None,
        )
    config = RunFolder(Path(run)).read_config()
    if (theirs := len(read_classes(config))) != (ours := len(prepared.classes)):
        raise OptionError(
            f"{run}: its network has {theirs} classes, {prepared.dataset} has {ours}; use the dataset it was trained on"
        )
    known = load_trained(run, device=str(ranks.device))
    recipe = Recipe.from_dict(config["recipe"])
    return _Network(model=known.model, recipe=recipe, eval_recipe=known.recipe, trained=True)


def _follow(prepared: Prepared, network: _Network, ranks: Processes, samples: int, *, seed: int) -> Trace:
    view = prepared.train.view
    timed = _spread(view, max(samples, TIMED))
    followed = follow(timed, samples, seed=seed, recipe=network.recipe, eval_recipe=network.eval_recipe)
    panels: list[Panel] = []
    rows = list(raw_rows(followed, panels))
    evaluated = pixel_rows("preprocess", followed, network.eval_recipe, panels)
    rows += evaluated.rows
    rows += _split_rows(prepared)
    augmented = pixel_rows("augment", followed, network.recipe, panels)
    rows += augmented.rows
    rows += _batch_rows(augmented.images, augmented.labels, prepared.classes)
    rows.append(train_row(prepared, network.model, ranks, augmented.images, augmented.labels, trained=network.trained))
    model, images = network.model.eval(), evaluated.images.to(ranks.device)
    answers, chance_C = answer_rows(model, images, evaluated.labels, prepared.classes)
    rows += answers
    rows += layer_rows(model, images, followed.place_in(network.eval_recipe), panels)
    rows.append(
        replace(
            rows[-1],
            step="softmax",
            low=float(chance_C.min()),
            high=float(chance_C.max()),
            parameters=0,
            example="",
            ms_per_image=None,
        )
    )
    panels.append(Panel.answer(chance_C, [one.name for one in prepared.classes]))
    label = prepared.classes[int(followed.view.label_N[followed.row_M[0]])]
    return Trace(
        split=view.split,
        samples=samples,
        keys=followed.keys(),
        label=label,
        model=prepared.options.model,
        trained=network.trained,
        parameters=sum(parameter.numel() for parameter in network.model.parameters()),
        rows=tuple(rows),
        notes=tuple(_notes(network, rows)),
        panels=tuple(panels),
    )


def _spread(view: View, most: int) -> View:
    """Return up to `most` rows of the view, evenly spread: neighbours often are of one class."""
    rows = np.unique(np.linspace(0, len(view.position_N) - 1, most).round().astype(np.int64))
    return replace(view, position_N=view.position_N[rows], label_N=view.label_N[rows], resampling=None, name="")


def _split_rows(prepared: Prepared) -> Iterator[TraceRow]:
    counts = {"train": len(prepared.train.view), "validate": len(prepared.val.view)}
    for name, count in counts.items():
        share = count / sum(counts.values())
        yield TraceRow(stage="split", step=name, count=count, shape=(), dtype="", example=f"{share:.1%}")


def _batch_rows(images: torch.Tensor, labels: torch.Tensor, classes: tuple[ClassName, ...]) -> Iterator[TraceRow]:
    for name, tensor in (("images", images), ("labels", labels)):
        example = ""
        if name == "labels":
            # Of mixed samples the class with the larger share.
            number = int(labels[0] if labels.ndim == 1 else labels[0].argmax())
            example = f"{number}: {classes[number].name}"
        yield TraceRow(
            stage="batch",
            step=name,
            count=1,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            low=float(tensor.min()),
            high=float(tensor.max()),
            example=example,
        )


def _notes(network: _Network, rows: list[TraceRow]) -> Iterator[str]:
    train, evaluation = (recipe.find(Normalize) for recipe in (network.recipe, network.eval_recipe))
    if train != evaluation:
        yield f"training normalises by {_values(train)}, evaluation by {_values(evaluation)}: they should be the same"
    if network.wanted not in (None, train):
        yield f"training normalises by {_values(train)}, the weights were made with {_values(network.wanted)}"
    if train is not None and _is_odd(train):
        yield f"training normalises by {_values(train)}: these are on the scale from 0 to 1, not from 0 to 255"
    last = [row for row in rows if row.stage == "augment"][-1]
    if max(abs(last.low or 0.0), abs(last.high or 0.0)) > _ODD_RANGE and last.dtype != "uint8":
        yield f"pixels are from {last.low:.3g} to {last.high:.3g}, where networks expect about -2 to 2"
    losses = next(row.example for row in rows if row.stage == "train")
    if not all(map(math.isfinite, map(float, losses.split(" -> ")))):
        yield f"the loss is no number ({losses}): the learning rate or the normalisation is wrong"


def _is_odd(normalize: Normalize) -> bool:
    low, high = _USUAL_STD
    return not all(0 <= mean <= 1 for mean in normalize.mean) or not all(low <= std <= high for std in normalize.std)


def _values(normalize: Normalize | None) -> str:
    return "nothing" if normalize is None else f"mean {normalize.mean}, std {normalize.std}"
