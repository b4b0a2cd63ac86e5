"""The checks of an audit, in the order in which they run: adding one is adding a line to `CHECKS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing import balance, bias, drift, duplicates, label_errors, neighbours, quality, slices
from imgdata.auditing.columns import Column, index_columns, json_columns, number_column
from imgdata.auditing.facts import Facts, facts
from imgdata.auditing.finding import Kind
from imgdata.auditing.options import AuditOptions
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.vectors import Vectors, vectors_of
from imgdata.auditing.workers import Workers
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.extras import require_torch

Need = Literal["labels", "model"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What checks are given; what several of them need is made once, when the first one asks."""

    dataset: Dataset
    samples: Samples
    options: AuditOptions
    tell: Callable[[str, int, int], None]
    """Gets the stage, how much is done, and of how much."""
    workers: Workers | None = None
    """Who looks at the pictures; threads of this machine when None."""

    @cached_property
    def has_labels(self) -> bool:
        """Whether any sample has a label."""
        return bool((self.samples.label_M >= 0).any())

    @cached_property
    def facts(self) -> Facts:
        """What the pixels say; each image is decoded once, and what was decoded before is read."""
        return facts(
            self.samples,
            threads=self.options.workers,
            progress=self._progress("decoding"),
            workers=self.workers,
        )

    @cached_property
    def columns(self) -> Sequence[Column]:
        """What is known of the samples without looking at the object in the picture."""
        measured = [number_column(name, getattr(self.facts, f"{name}_M")) for name in _MEASURED]
        return [
            *index_columns(self.samples),
            *json_columns(self.samples, self.dataset, self._progress("reading metadata")),
            *measured,
        ]

    @cached_property
    def vectors(self) -> Vectors:
        """Vectors of the run, or frozen features; what was computed before is read."""
        options = self.options
        return vectors_of(
            self.samples,
            model=options.model,
            device=options.device,
            seed=options.seed,
            threads=options.workers,
            progress=self._progress("computing features"),
            workers=self.workers,
        )

    @cached_property
    def predicted_M(self) -> NDArray[np.int64] | None:  # noqa: N802
        """Class index that the run gives each sample that it was not trained on, -1 for none; None without a run."""
        if self.options.model is None:
            return None
        require_torch("the network of a run", "audit")
        from imgdata.auditing.predicted import predicted_classes

        return predicted_classes(
            self.samples,
            self.options.model,
            device=self.options.device,
            threads=self.options.workers,
            progress=self._progress("predicting"),
            workers=self.workers,
        )

    def _progress(self, stage: str) -> Progress:
        return lambda done, total: self.tell(stage, done, total)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: what it finds, what it needs."""

    name: str
    """As `--only` and `--skip` take it."""
    what: str
    """What it looks for, for people."""
    kinds: tuple[Kind, ...]
    """Kinds of its findings."""
    find: Callable[[Inputs, Progress], Outcome]
    version: int = 1
    """Goes up where the same input gives other findings: what older versions kept is not used then."""
    needs: frozenset[Need] = frozenset()
    settings: tuple[str, ...] = ()
    """Options that change what it finds."""


_MEASURED = ("brightness", "contrast", "sharpness", "colourfulness", "red", "green", "blue", "border", "jpeg_quality")
"""Figures of the pixels that bias may lie in."""

CHECKS: tuple[Check, ...] = (
    Check(
        name="duplicates",
        what="leaks and duplicates",
        kinds=("leak", "conflict", "exact-duplicate", "near-duplicate"),
        find=lambda inputs, progress: duplicates.find(
            inputs.samples, inputs.facts, threads=inputs.options.workers, workers=inputs.workers, progress=progress
        ),
    ),
    Check(
        name="labels",
        what="wrong labels",
        kinds=("label",),
        needs=frozenset({"labels"}),
        settings=("model", "seed"),
        find=lambda inputs, progress: label_errors.find(
            inputs.samples, inputs.vectors, progress, seed=inputs.options.seed
        ),
    ),
    Check(
        name="neighbours",
        what="pictures that look alike to the network",
        kinds=("near-duplicate",),
        needs=frozenset({"model"}),
        settings=("model",),
        find=lambda inputs, progress: neighbours.find(inputs.samples, inputs.vectors, progress),
    ),
    Check(
        name="quality",
        what="poor pictures",
        kinds=("quality",),
        find=lambda inputs, progress: quality.find(inputs.samples, inputs.facts, progress),
    ),
    Check(
        name="balance",
        what="sizes of classes",
        kinds=("balance",),
        needs=frozenset({"labels"}),
        find=lambda inputs, progress: balance.find(inputs.samples, progress),
    ),
    Check(
        name="drift",
        what="drift between splits",
        kinds=("balance",),
        find=lambda inputs, progress: drift.find(inputs.samples, inputs.columns, progress),
    ),
    Check(
        name="bias",
        what="hidden bias",
        kinds=("bias",),
        needs=frozenset({"labels"}),
        find=lambda inputs, progress: bias.find(inputs.samples, inputs.columns, progress),
    ),
    Check(
        name="slices",
        what="slices of the samples",
        kinds=("bias",),
        settings=("model",),
        find=lambda inputs, progress: slices.find(inputs.samples, inputs.columns, inputs.predicted_M, progress),
    ),
)


def chosen_checks(options: AuditOptions, checks: tuple[Check, ...] = CHECKS) -> tuple[Check, ...]:
    """Return the checks that are asked for, in order. Raises `OptionError` for a name that none has."""
    names = [check.name for check in checks]
    for option in ("only", "skip"):
        unknown = [name for name in getattr(options, option) if name not in names]
        if unknown:
            raise OptionError(f"{option} must be checks out of {', '.join(names)}, got {unknown[0]!r}")
    chosen = [c for c in checks if (not options.only or c.name in options.only) and c.name not in options.skip]
    if not chosen:
        raise OptionError(f"skip leaves no check to run, got {', '.join(options.skip)}")
    return tuple(chosen)
