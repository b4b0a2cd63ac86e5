"""A run, samples -> the class that its network gives each sample that it was not trained on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.auditing.outcome import Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.vector_sources import Source, network_id
from imgdata.auditing.vectors import some_of, vectors_by
from imgdata.auditing.workers import Workers
from imgdata.inference.class_matching import match_own
from imgdata.inference.samples import loaded
from imgdata.inference.trained import Trained, load_trained
from imgdata.views.view import View

_BATCH = 128


@torch.no_grad()
def predicted_classes(
    samples: Samples,
    run: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
    workers: Workers | None = None,
) -> NDArray[np.int64]:
    """Return the class index of each sample by the run's network, int64 `(M,)`; -1 for none.

    There is none for images that can't be decoded, for outputs that are no class of the samples, and for the split
    that the run was trained on: there a network is as right as it was fitted. `workers` compute on processors, instead
    of threads of this machine. Raises `OptionError` for a run of other classes.
    """
    trained = load_trained(run, device=device)
    trained.require_classes()
    trained.require_one_class("an audit with a run")
    place = str(samples.views[0].folder)
    used = set(np.unique(samples.label_M[samples.label_M >= 0]).tolist())
    match_own(samples.classes, trained.classes, place, used)
    number_of = {one.id: number for number, one in enumerate(samples.classes)}
    class_O = np.array([number_of.get(one.id, -1) for one in trained.classes], np.int64)
    predicted_M = np.full(len(samples), -1, np.int64)
    if workers is None or trained.device.type != "cpu":
        found = _outputs(samples, trained, threads)
    else:
        found = _outputs_by(samples, _source(trained, Path(run).absolute()), workers, trained)
    done = 0
    for number_B, output_B in found:
        predicted_M[number_B] = class_O[output_B]
        done += len(number_B)
        progress(done, len(samples))
    progress(len(samples), len(samples))
    return predicted_M


def _is_seen(view: View, trained: Trained) -> bool:
    """Return whether the network was trained on the split of a view."""
    return trained.data == view.folder.path.resolve() and trained.split == view.split


def _outputs(
    samples: Samples, trained: Trained, threads: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield numbers of samples that the network was not trained on, and its likeliest output for each."""
    for view, start in zip(samples.views, samples.start_V.tolist(), strict=False):
        if _is_seen(view, trained):
            continue
        with loaded(
            view, trained.recipe, device=trained.device, batch_size=_BATCH, backend="auto", threads=threads
        ) as loader:
            for batch in loader:
                good = batch.valid.numpy()
                output_B = trained.model(batch.images).argmax(1).cpu().numpy()
                yield start + np.searchsorted(view.position_N, batch.positions.numpy()[good]), output_B[good]


def _outputs_by(
    samples: Samples, source: Source, workers: Workers, trained: Trained
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield what `_outputs` does, in any order, computed by other machines."""
    number_K = np.flatnonzero(~np.array([_is_seen(view, trained) for view in samples.views])[samples.view_M])
    if len(number_K):
        for row_B, output_B1 in vectors_by(some_of(samples, number_K), source, workers):
            yield number_K[row_B], output_B1[:, 0].astype(np.int64)


def _source(trained: Trained, run: Path) -> Source:
    """Return what makes one number of a picture: the likeliest output."""

    @torch.no_grad()
    def likeliest(images_NCHW: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(trained.model(images_NCHW).argmax(1, keepdim=True).cpu().numpy(), np.float32)

    return Source(
        what=trained.name,
        recipe=trained.recipe,
        device=trained.device,
        identity=network_id(trained),
        vectorize=likeliest,
        remake=partial(_remade, run),
    )


def _remade(run: Path) -> Source:
    return _source(load_trained(run, device="cpu"), run)
