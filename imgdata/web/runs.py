"""The folder of a run -> its curves, its predictions for the samples that it was validated with, single predictions."""

import csv
import io
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset
from imgdata.errors import ImageError, OptionError, OutputError
from imgdata.storage.atomic import whole_file
from imgdata.web.later import Later, Progress
from imgdata.web.rows import only

if TYPE_CHECKING:
    from imgdata.inference.trained import Trained

PREDICTIONS = "view-predictions.parquet"
"""File in the run's folder that keeps what was computed."""
_MARK = b"imgdata view"
_SHOWN = 5
MOST_CELLS = 30
"""Classes of a confusion matrix that is shown whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """The predictions of a run for one split; classes are numbered as the run's outputs."""

    split: str
    position_N: NDArray[np.int64]
    label_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64]
    probability_N: NDArray[np.float32]
    loss_N: NDArray[np.float32]

    @property
    def right_N(self) -> NDArray[np.bool_]:  # noqa: N802
        """Whether each sample is right, bool `(N,)`."""
        right_N: NDArray[np.bool_] = self.label_N == self.predicted_N
        return right_N

    def confusion(self, classes: int) -> NDArray[np.int64]:
        """Return the samples by label (row) and prediction (column), `(C, C)`."""
        pair_N = self.label_N * classes + self.predicted_N
        return np.bincount(pair_N, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run that is shown beside the samples."""

    name: str
    path: Path
    dataset: Dataset
    config: Mapping[str, Any]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def classes(self) -> list[tuple[str, str]]:
        """Id and name of each output."""
        return [(str(one[0]), str(one[1])) for one in self.config["classes"]]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["options"]["seed"])

    def curves(self) -> list[dict[str, float]]:
        """Return the rows of `metrics.csv`; none before the first epoch is over. Raises `OptionError`."""
        path = self.path / "metrics.csv"
        try:
            rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))
            return [{name: float(value) for name, value in row.items() if value} for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise OptionError(f"{path}: no metrics of a run ({error})") from error

    @cached_property
    def predicted(self) -> Later[Predicted]:
        """The predictions: those that were kept, else computed now."""
        return Later(f"{self.name} predicts", self._predict)

    def _predict(self, progress: Progress) -> Predicted:
        kept = self._kept()
        if kept is not None:
            return kept
        from imgdata.inference.evaluate import evaluate

        with self._lock:
            found = evaluate(self._trained, self.dataset, progress=progress)
        rows = found.predictions
        made = Predicted(
            split=found.split,
            position_N=rows.position_N,
            label_N=rows.label_N,
            predicted_N=rows.predicted_N,
            probability_N=rows.probability_N,
            loss_N=rows.loss_N,
        )
        # Where nothing can be written they are computed again next time.
        with suppress(OSError, OutputError):
            self._keep(made)
        return made

    def _stamp(self) -> str:
        """Return what predictions depend on, in short: the weights and the samples."""
        weights = (self.path / "best.pt").stat()
        splits = {entry.name: entry.index_sha256 for entry in self.dataset.manifest.splits}
        return json.dumps([1, weights.st_mtime_ns, weights.st_size, self.dataset.name, splits], sort_keys=True)

    def _kept(self) -> Predicted | None:
        try:
            with pq.ParquetFile(self.path / PREDICTIONS) as file:
                facts = json.loads((file.schema_arrow.metadata or {})[_MARK])
                if facts["stamp"] != self._stamp():
                    return None
                columns = {name: column.to_numpy() for name, column in zip(*_columns(file.read()), strict=True)}
            return Predicted(split=facts["split"], **columns)
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
            return None

    def _keep(self, made: Predicted) -> None:
        names = ("position_N", "label_N", "predicted_N", "probability_N", "loss_N")
        table = pa.table({name: pa.array(getattr(made, name)) for name in names})
        facts = json.dumps({"stamp": self._stamp(), "split": made.split})
        with whole_file(self.path / PREDICTIONS) as temporary:
            pq.write_table(table.replace_schema_metadata({_MARK: facts.encode()}), temporary, compression="zstd")

    @cached_property
    def _trained(self) -> "Trained":
        from imgdata.inference.trained import load_trained

        return load_trained(self.path)

    def top(self, split: str, position: int) -> list[dict[str, Any]]:
        """Return the most probable classes of one sample. Raises `OptionError`, `ImageError`, `MissingExtraError`."""
        with self._lock:
            trained = self._trained
            image = self._image(split, position)
            with _no_grad():
                logits = trained.model(image)
                if trained.flip_test:
                    logits = (logits + trained.model(image.flip(-1))) / 2
            best = logits[0].float().softmax(dim=0).topk(min(_SHOWN, logits.shape[1]))
        return [
            {"output": output, "id": self.classes[output][0], "name": self.classes[output][1], "probability": share}
            for output, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def heat(self, split: str, position: int, output: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the picture as the network gets it, `(H, W, 3)`, and where it looks, `(H, W)`; both 0 to 1.

        Raises as `top` does, and `MissingExtraError` without captum.
        """
        from imgdata.inference.explain import heat_map, last_map, pixels_before

        if not 0 <= output < len(self.classes):
            raise OptionError(f"output must be from 0 to {len(self.classes) - 1}, got {output}")
        with self._lock:
            trained = self._trained
            image = self._image(split, position)
            heat_HW = heat_map(trained.model, last_map(trained.model, image), image, output)
            return pixels_before(image[0], trained), heat_HW

    def _image(self, split: str, position: int) -> Any:
        from imgdata.inference.samples import loaded

        trained = self._trained
        view = only(self.dataset, split, position)
        with loaded(view, trained.recipe, device=trained.device, batch_size=1, backend="cpu", threads=1) as loader:
            batch = next(iter(loader))
        if not bool(batch.valid[0]):
            raise ImageError("corrupt", "the picture can't be decoded")
        return batch.images


def open_run(path: Path, dataset: Dataset, name: str = "") -> Run:
    """Return the run in a folder. Raises `OptionError`, `ShardError`."""
    from imgdata.training.run_folder import RunFolder

    folder = RunFolder(path)
    if not folder.config.exists():
        raise OptionError(f"{path}: must be the folder of a run, got one without {folder.config.name}")
    config = folder.read_config()
    if not isinstance(config.get("classes"), list) or not isinstance(config.get("options"), dict):
        raise OptionError(f"{folder.config}: must hold the classes and the options of a run; it is damaged")
    return Run(name=name or path.resolve().name, path=path, dataset=dataset, config=config)


def open_runs(paths: "tuple[Path, ...] | list[Path]", dataset: Dataset) -> tuple[Run, ...]:
    """Return runs under names that differ: the folders' names, with a number where two are the same."""
    runs: list[Run] = []
    for path in paths:
        base = path.resolve().name
        taken = {one.name for one in runs}
        name = next(one for one in (base, *(f"{base}-{number}" for number in range(2, 999))) if one not in taken)
        runs.append(open_run(path, dataset, name))
    return tuple(runs)


def summary(run: Run) -> dict[str, Any]:
    """Return what a page shows of a run without its predictions."""
    options = run.config["options"]
    return {
        "name": run.name,
        "model": options.get("model"),
        "classes": [list(one) for one in run.classes],
        "size": run.config.get("size"),
        "samples": run.config.get("samples"),
        "curves": run.curves(),
        "trained": (run.path / "best.pt").exists(),
    }


def scores(run: Run, found: Predicted) -> dict[str, Any]:
    """Return accuracy, the confusion matrix of few classes or the pairs mistaken most often."""
    count = len(run.classes)
    answer: dict[str, Any] = {
        "split": found.split,
        "total": len(found.position_N),
        "right": int(found.right_N.sum()),
        "matrix": found.confusion(count).tolist() if count <= MOST_CELLS else None,
    }
    pair_N = (found.label_N * count + found.predicted_N)[~found.right_N]
    pairs, times = np.unique(pair_N, return_counts=True)
    order = np.argsort(-times, kind="stable")[:MOST_CELLS]
    answer["pairs"] = [[int(pairs[one]) // count, int(pairs[one]) % count, int(times[one])] for one in order]
    return answer


def _columns(table: pa.Table) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns


def _no_grad() -> Any:
    import torch

    return torch.no_grad()
