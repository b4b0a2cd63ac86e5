"""A dataset, settings, a folder -> a trained network in that folder, or a run that is resumed there."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.loose.asked import asked_for, reading_as
from imgdata.recipes.functions import name_of
from imgdata.sample import ClassName
from imgdata.storage.folder import LooseFolder
from imgdata.storage.local_paths import any_path
from imgdata.training.course import Course
from imgdata.training.distributed import Processes, processes
from imgdata.training.history import TrainResult, TrainWatcher, Watchers
from imgdata.training.interrupts import memory_advice, stopping
from imgdata.training.options import TrainOptions, changed_options, resumed_options, saved_options, settings_of
from imgdata.training.own import Loss, Metric, OwnParts, is_own
from imgdata.training.plots import load_figure, load_writer
from imgdata.training.run_folder import RunFolder, read_config
from imgdata.training.setup import Prepared, prepare, read_classes, saved_version
from imgdata.training.threads import fitting_threads


def train(
    dataset: str | Path | Dataset,
    out: str | Path,
    options: TrainOptions | Mapping[str, Any] | None = None,
    *,
    model: str | nn.Module | None = None,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    best_by: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: TrainWatcher | Sequence[TrainWatcher] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a network on a dataset, and keep everything of the run in the folder `out`.

    Settings are given as keywords, `train("out/", "runs/a", model="resnet50", epochs=18)`, or as `options`; their names
    are those of `TrainOptions`. What isn't given is decided by the dataset.

    Under torchrun every process calls it, and they share each batch. With `resume` a run continues with the very next
    batch after its last checkpoint, also with another number of ranks; settings that would change
    the losses must not differ then; others, such as `epochs`, `threads` and `device`, may. Ctrl-C saves before it
    raises `KeyboardInterrupt`.

    Args:
        dataset: The folder of a dataset, or an open one.
        out: The run's folder, a new one.
        options: Settings. In a mapping, a setting that is a default counts as given.
        model: A network's name, such as `resnet50`; `package.module:function`, which is called with `num_classes`; or
            a module of your own that gives logits `(N, classes)`.
        loss: `loss(logits, labels)`, the mean over the batch; None for cross-entropy. Where samples are mixed, labels
            are shares `(N, classes)`.
        metrics: `metric(logits, labels)` by name, on the CPU, of all validation samples after each epoch; they are
            written to `metrics.csv`.
        best_by: The metric that chooses the best epoch, the highest value; None for top-1.
        config: Begin with the settings of another run, its folder or its `config.json`; the others are changes.
        resume: Continue the run in `out`.
        overwrite: Replace the run in `out`.
        watcher: Gets the course of the run: one, or several.
        **settings: Settings by the names of `TrainOptions`.

    Raises:
        OptionError: A setting that is out of range, or doesn't fit the dataset or the saved run.
        OutputError: `out` has something else, is locked, or can't be written.
        ShardError: The dataset can't be read.
        TrainingError: Memory is out, or the loss is no number.
        MissingExtraError: A package of the extra `train` is missing.
    """
    if resume and overwrite:
        raise OptionError("resume and overwrite can't be given together: a run is continued, or is replaced")
    if resume and config is not None:
        raise OptionError("resume and config can't be given together: a resumed run has its own settings")
    folder, path = RunFolder(Path(out)), dataset.path if isinstance(dataset, Dataset) else any_path(dataset)
    given = {**settings_of(options), **settings}
    if model is not None:
        given["model"] = model if isinstance(model, str) else name_of(model)
    own = OwnParts(
        model=model if isinstance(model, nn.Module) else None, loss=loss, metrics=metrics or {}, best_by=best_by
    )
    before = folder.read_config() if resume else None
    version = dataset.version if isinstance(dataset, Dataset) else None
    if before is not None:
        version = saved_version(before)
    chosen = _chosen(given, before, config)
    if before is not None:
        _check_own(own, before, folder)
    # Now, and not after an epoch.
    load_figure()
    if chosen.tensorboard:
        load_writer()
    with ExitStack() as stack:
        stack.enter_context(reading_as(path, _read_as(dataset, before)))
        ranks = stack.enter_context(processes(chosen.device))
        if before is None and ranks.first:
            folder.check(overwrite=overwrite)
        watchers = Watchers(_sequence(watcher) if ranks.first else ())
        stack.enter_context(memory_advice(lambda: _memory_advice(chosen, ranks)))
        prepared = stack.enter_context(prepare(path, chosen, ranks, own=own, saved=before is not None, version=version))
        _check_classes(prepared, folder, None if before is None else read_classes(before))
        if ranks.first:
            stack.enter_context(folder.held(new=before is None, overwrite=overwrite))
        ranks.wait()
        stop = stack.enter_context(stopping())
        stack.enter_context(fitting_threads(ranks.device, watchers.noted))
        return Course(prepared, folder, ranks, stop, watchers).go(resume)


def _read_as(dataset: str | Path | Dataset, before: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return how raw images are read: as the dataset was opened, else as the command or the run before says."""
    if isinstance(dataset, Dataset):
        return dataset.folder.read_as if isinstance(dataset.folder, LooseFolder) else {}
    return asked_for(dataset) or (before or {}).get("read", {})


def _sequence(watcher: TrainWatcher | Sequence[TrainWatcher] | None) -> Sequence[TrainWatcher]:
    return (watcher,) if isinstance(watcher, TrainWatcher) else watcher or ()


def _chosen(given: Mapping[str, Any], before: Mapping[str, Any] | None, config: str | Path | None) -> TrainOptions:
    """Return the settings to train with: given now, those of the run `before`, or those in a file with changes."""
    content = before
    if config is not None:
        content = read_config(Path(config))
    if content is None:
        return TrainOptions.from_dict(given)
    saved = saved_options(content["options"])
    if is_own(saved.model) and "model" not in given:
        # A file from elsewhere may name any function.
        raise OptionError(
            f"model must be given again, {saved.model}: the run has a network of your own, whose code is run only "
            "where you name it"
        )
    return resumed_options(saved, given) if config is None else changed_options(saved, given)


def _check_own(own: OwnParts, before: Mapping[str, Any], folder: RunFolder) -> None:
    saved = before.get("own") or OwnParts().names()
    for name, value in own.names().items():
        if value != saved[name]:
            raise OptionError(
                f"{folder.path}: {name} must be {saved[name]!r} again, with which the run was started, got {value!r}"
            )


def _memory_advice(options: TrainOptions, ranks: Processes) -> str:
    """Return what to do where memory is out, outside of a step, which has its own advice."""
    below = "" if options.batch_size is None else f" than {options.batch_size:,}"
    return f"out of memory on {ranks.device}; try a smaller batch_size{below} or size, or end what else uses its memory"


def _check_classes(prepared: Prepared, folder: RunFolder, before: tuple[ClassName, ...] | None) -> None:
    now = prepared.classes
    if prepared.task.is_classes and len(now) < 2:
        raise OptionError(f"{prepared.dataset}: must have at least 2 classes to tell apart, got {len(now)}")
    if before is not None and before != now:
        raise OptionError(
            f"{folder.path}: its network has {len(before)} classes ({before[0].name}, ...), {prepared.dataset} has "
            f"{len(now)} ({now[0].name}, ...); resume with the dataset that it was trained on"
        )
