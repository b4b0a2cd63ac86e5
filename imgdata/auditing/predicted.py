"""A run, samples -> the class that its network gives each sample that it was not trained on."""

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.auditing.outcome import Progress
from imgdata.auditing.samples import Samples
from imgdata.inference.class_matching import match_own
from imgdata.inference.samples import loaded
from imgdata.inference.trained import load_trained

_BATCH = 128


@torch.no_grad()
def predicted_classes(
    samples: Samples,
    run: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> NDArray[np.int64]:
    """Return the class index of each sample by the run's network, int64 `(M,)`; -1 for none.

    There is none for images that can't be decoded, for outputs that are no class of the samples, and for the split
    that the run was trained on: there a network is as right as it was fitted. Raises `OptionError` for a run of other
    classes.
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
    for view, start in zip(samples.views, samples.start_V.tolist(), strict=False):
        if trained.data == view.folder.path.resolve() and trained.split == view.split:
            continue
        with loaded(
            view, trained.recipe, device=trained.device, batch_size=_BATCH, backend="auto", threads=threads
        ) as loader:
            done = 0
            for batch in loader:
                good = batch.valid.numpy()
                output_B = trained.model(batch.images).argmax(1).cpu().numpy()
                rows = start + np.searchsorted(view.position_N, batch.positions.numpy()[good])
                predicted_M[rows] = class_O[output_B[good]]
                done += len(rows)
                progress(start + done, len(samples))
    progress(len(samples), len(samples))
    return predicted_M
