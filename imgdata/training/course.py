"""A dataset, settings, a folder -> a trained network in it: epochs of steps, each validated and saved."""

import math
import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

import torch

from imgdata.errors import TrainingError
from imgdata.storage.atomic import write_atomic
from imgdata.training.checkpoint import load_checkpoint, save_checkpoint
from imgdata.training.distributed import Processes
from imgdata.training.history import (
    EpochRow,
    Report,
    TrainResult,
    TrainWatcher,
    cache_row,
    epochs_csv,
    quality,
    steps_csv,
)
from imgdata.training.interrupts import Stop
from imgdata.training.learner import Learner, Outcome
from imgdata.training.network import half_type
from imgdata.training.optimizer import lr_share, phase_at
from imgdata.training.plots import Board, plot_confusion, plot_curves
from imgdata.training.run_folder import RunFolder
from imgdata.training.scores import Scores, classes_csv, evaluate_network
from imgdata.training.setup import Prepared
from imgdata.training.timing import Clock

_REPORT_S = 0.5
"""Seconds between reports of one process. A report waits for the GPU, whose queue is then empty for a step's launches:
with 3 ms a step, 20 steps are too few."""
_REPORT_STEPS = 20
"""Steps between reports of several ranks, all of which must add up at the same ones."""


class Course:
    """The course of a run: its step, its losses and its epochs so far."""

    def __init__(
        self, prepared: Prepared, folder: RunFolder, ranks: Processes, stop: Stop, watcher: TrainWatcher
    ) -> None:
        self._prepared = prepared
        self._options = options = prepared.options
        self._folder = folder
        self._ranks = ranks
        self._stop = stop
        self._stops = False
        """Whether all ranks know that one of them was asked to stop."""
        self._watcher = watcher
        self._own = prepared.own
        self._task = prepared.task
        self._best_by = prepared.own.best_by or prepared.task.best_by
        self._learner = Learner(
            prepared.model, options, ranks, prepared.weight_C, prepared.own.loss, task=prepared.task
        )
        self._clock = Clock(ranks.device)
        self._epochs = options.epochs
        self._steps = len(prepared.train)
        self._phase_ends = [self._epochs * self._steps]
        if options.unfreeze_after is not None and options.unfreeze_after < self._epochs:
            self._phase_ends.insert(0, options.unfreeze_after * self._steps)
        # What a checkpoint keeps beside the learner.
        self._step = 0
        self._losses: list[float] = []
        self._lrs: list[float] = []
        self._rows: list[EpochRow] = []
        self._epoch_correct = 0
        self._epoch_seconds = self._epoch_waited = 0.0
        self._cache_before = prepared.train.cache_facts
        # Steps whose losses nobody has waited for yet.
        self._pending: list[Outcome] = []
        self._reported = time.monotonic()
        self._plotted = 0.0

    def go(self, resume: bool) -> TrainResult:
        """Train all epochs that are left."""
        if resume and self._folder.last.exists():
            self._load()
        config = {**self._prepared.config(), "world_size": self._ranks.world_size, "device": str(self._ranks.device)}
        if self._ranks.first:
            self._folder.write_config(config)
        self._watcher.started(config, self._step)
        with ExitStack() as stack:
            board = None
            if self._options.tensorboard and self._ranks.first:
                board = stack.enter_context(closing(Board(self._folder.tensorboard)))
            self._train(board)
        return self._finish(config)

    def _train(self, board: Board | None) -> None:
        while len(self._rows) < self._epochs and not self._out_of_patience():
            if self._step < (len(self._rows) + 1) * self._steps:
                self._train_epoch(len(self._rows))
                # Validation takes long, too.
                if self._ranks.first:
                    self._save()
                if self._stops:
                    self._ranks.wait()
                    self._end_here()
            row, scores = self._validate()
            best = all(self._quality(row) > self._quality(old) for old in self._rows)
            self._rows.append(row)
            self._epoch_correct, self._epoch_seconds, self._epoch_waited = 0, 0.0, 0.0
            if self._ranks.first:
                self._save_epoch(scores if best else None)
                if board is not None:
                    board.add(row)
            self._watcher.epoch_done(row, best=best)
        if len(self._rows) < self._epochs:
            self._watcher.noted(
                f"stopped after epoch {len(self._rows)} of {self._epochs}: the last {self._options.patience} were not "
                "better (--patience)"
            )

    def _quality(self, row: EpochRow) -> tuple[float, ...]:
        return quality(row, self._best_by)

    def _out_of_patience(self) -> bool:
        """Return whether the best epoch is too long ago."""
        patience = self._options.patience
        if patience is None or not self._rows:
            return False
        best = max(self._rows, key=self._quality)
        return len(self._rows) - best.epoch >= patience

    def _train_epoch(self, epoch: int) -> None:
        prepared, options = self._prepared, self._options
        if self._learner.frozen and options.unfreeze_after is not None and epoch >= options.unfreeze_after:
            self._learner.thaw()
        self._learner.begin_epoch()
        prepared.train.set_epoch(epoch)
        self._cache_before = prepared.train.cache_facts
        self._clock.restart()
        self._clock.waits()
        for batch in prepared.train:
            self._clock.has_batch()
            lr = self._lr(self._step)
            weight_N = None
            if options.weight_column is not None:
                weight_N = batch.columns[options.weight_column].float() * prepared.weight_scale  # type: ignore[union-attr]
            outcome = self._learner.step(batch.images, batch.labels, number=self._step, lr=lr, weight_N=weight_N)
            self._pending.append(outcome)
            self._lrs.append(lr)
            self._step += 1
            if self._step < (epoch + 1) * self._steps:
                self._between_steps()
            self._clock.waits()
        self._collect()

    def _between_steps(self) -> None:
        """Report, save, or stop, when it is time."""
        every = self._options.checkpoint_steps
        if every and self._step % every == 0:
            self._collect()
            if self._ranks.first:
                self._save()
            self._clock.restart()
        elif self._is_time():
            self._collect()
        if self._stops:
            if self._ranks.first:
                self._save()
            # Whoever started the ranks may end all of them as soon as one has ended.
            self._ranks.wait()
            self._end_here()

    def _is_time(self) -> bool:
        """Return whether the steps are added up and reported now."""
        if self._ranks.world_size > 1:
            return len(self._pending) >= _REPORT_STEPS
        return self._stop.asked or time.monotonic() - self._reported > _REPORT_S

    def _end_here(self) -> None:
        """Stop: the run is saved."""
        self._watcher.noted(f"saved after step {self._step:,}; --resume continues with the next batch")
        raise KeyboardInterrupt

    def _collect(self) -> None:
        """Wait for the steps since the last call, add them up over the ranks, and report. Raises `TrainingError`.

        Ranks are asked to stop at different steps, and agree on it here.
        """
        loss_T = torch.stack([outcome.loss.double() for outcome in self._pending])
        correct = torch.stack([outcome.correct for outcome in self._pending]).sum()
        asked = torch.tensor(int(self._stop.asked), device=loss_T.device)
        self._pending.clear()
        self._ranks.sum(loss_T, correct, asked)
        self._stops = bool(asked)
        losses = (loss_T / self._ranks.world_size).tolist()
        seconds, waited = self._clock.take()
        for number, loss in enumerate(losses, self._step - len(losses) + 1):
            if not math.isfinite(loss):
                self._refuse(number, loss)
        self._losses += losses
        self._epoch_correct += int(correct)
        self._epoch_seconds += seconds
        self._epoch_waited += waited
        self._reported = time.monotonic()
        # At an epoch's end its last step, not the next one's first.
        epoch, step = divmod(self._step - 1, self._steps)
        done = self._losses[epoch * self._steps :]
        self._watcher.stepped(
            Report(
                epoch=epoch + 1,
                step=step + 1,
                steps=self._steps,
                loss=sum(done) / len(done),
                top1=self._epoch_correct / (len(done) * self._options.batch_size),
                images_per_s=len(losses) * self._options.batch_size / seconds,
                data_wait=waited / seconds,
            )
        )

    def _refuse(self, step: int, loss: float) -> None:
        options = self._options
        ways = [f"a lower learning rate than {options.lr:g}"]
        ways += ["clip_grad=1"] if options.clip_grad is None else []
        ways += ["amp='none'"] if half_type(options.amp, self._ranks.device) else []
        kept = f"; the run is kept as it was last saved, in {self._folder.last}" if self._folder.last.exists() else ""
        epoch = (step - 1) // self._steps + 1
        raise TrainingError(f"the loss is {loss} at step {step:,} (epoch {epoch}): try {', '.join(ways)}{kept}")

    def _lr(self, step: int) -> float:
        options = self._options
        _, in_phase, steps = phase_at(step, self._phase_ends)
        return options.lr * lr_share(
            in_phase, steps=steps, warmup=round(options.warmup * self._steps), curve=options.curve
        )

    def _validate(self) -> tuple[EpochRow, Scores]:
        prepared, options, epoch = self._prepared, self._options, len(self._rows)
        # Each rank has seen other samples: batch statistics differ until they are made those of the first.
        self._ranks.copy_from_first(self._learner.judged.buffers())
        scores = evaluate_network(
            self._learner.judged,
            prepared.val,
            self._ranks,
            half=half_type(options.amp, self._ranks.device),
            flip_test=options.flip_test,
            metrics=self._own.metrics,
            task=self._task,
            progress=self._evaluating,
        )
        if not scores.total:
            raise TrainingError(f"none of the {len(prepared.val.view)} validation pictures could be decoded")
        samples = self._steps * options.batch_size
        losses = self._losses[epoch * self._steps :]
        row = EpochRow(
            epoch=epoch + 1,
            size=prepared.recipe.output_size(epoch)[0],
            lr=self._lrs[-1],
            train_loss=sum(losses) / len(losses),
            train_top1=self._epoch_correct / samples,
            val_loss=scores.loss,
            val_top1=scores.top1,
            val_top5=scores.top5,
            images_per_s=samples / self._epoch_seconds,
            data_wait=self._epoch_waited / self._epoch_seconds,
            seconds=self._epoch_seconds,
            metrics=scores.metrics,
            cache=cache_row(prepared.train.cache_facts, self._cache_before),
        )
        return row, scores

    def _evaluating(self, done: int, batches: int) -> None:
        self._watcher.evaluating(done, batches)
        if self._stop.asked:
            # All was saved before; the other ranks are asked too, or ended by what started them.
            self._end_here()

    def _save_epoch(self, best: Scores | None) -> None:
        """Write the checkpoint and the tables after an epoch; `best` are its scores when it is the best so far."""
        if best is not None:
            state = {"model": self._learner.judged.state_dict(), "epoch": len(self._rows), "scores": best.to_state()}
            save_checkpoint(self._folder.best, state)
        self._save()
        self._write_tables()
        if time.monotonic() - self._plotted > 60:
            plot_curves(self._rows, self._folder.curves, self._task.best_by)
            self._plotted = time.monotonic()

    def _write_tables(self) -> None:
        write_atomic(self._folder.metrics, epochs_csv(self._rows))
        write_atomic(self._folder.steps, steps_csv(self._losses, self._lrs))

    def _save(self) -> None:
        state = {
            **self._learner.state(),
            "step": self._step,
            "loader": self._prepared.train.state_dict(),
            "losses": torch.tensor(self._losses, dtype=torch.float64),
            "lrs": torch.tensor(self._lrs, dtype=torch.float64),
            "rows": [asdict(row) for row in self._rows],
            "epoch_so_far": [self._epoch_correct, self._epoch_seconds, self._epoch_waited],
        }
        save_checkpoint(self._folder.last, state)

    def _load(self) -> None:
        state = load_checkpoint(self._folder.last)
        epochs_done = len(state["rows"])
        unfreeze_after = self._options.unfreeze_after
        if self._learner.frozen and unfreeze_after is not None and epochs_done >= unfreeze_after:
            self._learner.thaw()
        self._learner.load_state(state)
        self._prepared.train.load_state_dict(state["loader"])
        self._step = state["step"]
        self._losses, self._lrs = state["losses"].tolist(), state["lrs"].tolist()
        self._rows = [EpochRow(**row) for row in state["rows"]]
        self._epoch_correct, self._epoch_seconds, self._epoch_waited = state["epoch_so_far"]

    def _finish(self, config: dict[str, Any]) -> TrainResult:
        # The first rank may be writing it yet.
        self._ranks.wait()
        kept = load_checkpoint(self._folder.best)
        scores = Scores.from_state(kept["scores"])
        best = self._rows[kept["epoch"] - 1]
        result = TrainResult(
            run=self._folder.path,
            rows=tuple(self._rows),
            best=best,
            scores=scores,
            bad=self._prepared.train.bad,
            config=config,
        )
        if self._ranks.first:
            # A run that was killed may have saved its last epoch alone.
            self._write_tables()
            plot_curves(self._rows, self._folder.curves, self._task.best_by)
            names = [one.name for one in self._prepared.classes]
            if scores.confusion_CC is not None:
                plot_confusion(scores.confusion_CC, names, self._folder.confusion)
            write_atomic(self._folder.classes, classes_csv(scores, names))
            self._folder.write_summary(result.summary())
        self._ranks.wait()
        return result
