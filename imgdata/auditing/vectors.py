"""Samples, a network or none -> one vector for each sample, kept in the cache folder.

Of a run: the input of its classifier. Without one, frozen features that know no label: those of EfficientNet-Lite0,
trained on ImageNet, or of patches of the pictures themselves, whichever carries a probe further on some samples.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.outcome import Progress
from imgdata.auditing.probabilities import fold_of_samples, out_of_sample
from imgdata.auditing.probe import principal
from imgdata.auditing.samples import Samples
from imgdata.auditing.vector_sources import Source, of_lite, of_patches, of_run
from imgdata.auditing.workers import Piece, Workers
from imgdata.dataset.index import content_id
from imgdata.errors import MissingExtraError, OptionError, OutputError, ShardError
from imgdata.extras import require_torch
from imgdata.storage.atomic import whole_file
from imgdata.storage.cache_folder import cache_folder, make_room

if TYPE_CHECKING:
    pass

VERSION = 1
"""Goes up where the same pictures give other vectors."""
_TRIED = 1500
"""Samples by which frozen features are chosen, and patches are learnt from, at most."""
_SMALL = 100
"""Longer side in pixels up to which pictures are small: the network then gets 128 pixels instead of 224."""
_PIECE = 1024
"""Samples of which another machine makes vectors at a time: whole batches, as here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Vectors of the samples whose image can be decoded."""

    vector_KD: NDArray[np.float32]
    """float32 `(K, D)`; of a kept file, memory-mapped."""
    number_K: NDArray[np.int64]
    """Numbers of these samples, ascending, int64 `(K,)`."""
    what: str
    """Where the vectors come from, for people."""
    seen_splits: tuple[str, ...] = ()
    """Splits of this dataset that the network was trained on, labels included."""
    tried: tuple[tuple[str, float], ...] = ()
    """Frozen features that were tried, with the accuracy of a probe on each."""


def vectors_of(
    samples: Samples,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
    workers: Workers | None = None,
) -> Vectors:
    """Return the vectors of the samples; those that were computed before are read from the cache folder.

    The file takes 4 D bytes a sample: 5.1 GB a million with 1,280 numbers each. Where the cache folder's limit does not
    allow for that, or the folder can't be written, the vectors are in memory.

    Args:
        samples: The samples.
        model: Folder of a run, whose classes must be those of the samples; None: frozen features.
        device: Device of the network: `auto`, `cpu`, `cuda` or `cuda:1`.
        seed: Seed of what is drawn: samples to choose by, patches.
        threads: Threads of the loader.
        progress: Gets how many samples are done, and of how many.
        workers: Who computes on processors, instead of threads of this machine. A GPU is used here.

    Raises:
        OptionError: No run, another network's classes, a network without features.
        MissingExtraError: A package that the network needs is missing.
        ShardError: The dataset can't be read, or none of its pictures.
    """
    require_torch("a network that looks at the pictures", "audit")
    tried: tuple[tuple[str, float], ...] = ()
    if model is not None:
        source = of_run(samples, Path(model), device)
    else:
        source, tried = _frozen(samples, device, seed, threads)
    kept_MD = _all(samples, source, threads, progress, workers)
    progress(len(samples), len(samples))
    good_M = ~np.isnan(kept_MD[:, 0])
    if not good_M.any():
        raise ShardError(f"{samples.views[0].folder}: none of the {len(samples):,} pictures can be decoded")
    return Vectors(
        vector_KD=kept_MD if good_M.all() else kept_MD[good_M],
        number_K=np.flatnonzero(good_M),
        what=source.what,
        seen_splits=source.seen_splits,
        tried=tried,
    )


def _frozen(
    samples: Samples, device: str, seed: int, threads: int | None
) -> tuple[Source, tuple[tuple[str, float], ...]]:
    """Return the frozen features that carry a probe further on some samples, and how far each does."""
    labelled = np.flatnonzero(samples.label_M >= 0)
    if not len(labelled):
        labelled = np.arange(len(samples))
    generator = np.random.Generator(np.random.Philox(key=[seed, 5]))
    drawn = np.sort(generator.choice(labelled, min(_TRIED, len(labelled)), replace=False))
    sources = [_patches(samples, drawn, device, seed, threads)]
    lite = _lite(samples, device)
    if lite is not None:
        sources.append(lite)
    if len(sources) == 1:
        return sources[0], ()
    accuracies = [_accuracy(some_of(samples, drawn), source, seed, threads) for source in sources]
    best = sources[int(np.argmax(accuracies))]
    return best, tuple((source.what, one) for source, one in zip(sources, accuracies, strict=True))


def _patches(samples: Samples, drawn: NDArray[np.int64], device: str, seed: int, threads: int | None) -> Source:
    from imgdata.auditing.patches import SIDE, learn_patches

    pixels = of_patches("", device, lambda images: images.cpu().numpy().reshape(len(images), -1))
    parts = [part for _, part in _batches(some_of(samples, drawn), pixels, threads)]
    pixel_ND = np.concatenate(parts) if parts else np.zeros((0, 3 * SIDE * SIDE), np.float32)
    if not len(pixel_ND):
        raise ShardError(f"{samples.views[0].folder}: none of {len(drawn):,} pictures can be decoded")
    learnt = learn_patches(pixel_ND.reshape(-1, 3, SIDE, SIDE), seed)
    return of_patches(f"patches {seed} {len(drawn)}", device, learnt.vectors)


def _lite(samples: Samples, device: str) -> Source | None:
    """Return the network on ImageNet's weights; None where a package is missing."""
    longer_M = np.maximum(samples.array("width"), samples.array("height"))
    try:
        return of_lite(device, is_small=bool(np.median(longer_M) <= _SMALL))
    except (ModuleNotFoundError, MissingExtraError):
        return None


def _accuracy(samples: Samples, source: Source, seed: int, threads: int | None) -> float:
    """Return the accuracy of a probe out of sample; 0 where it can't be measured."""
    vector_MD = _all(samples, source, threads)
    good_M = ~np.isnan(vector_MD[:, 0])
    label_N = samples.label_M[good_M]
    if not len(label_N) or label_N.min() < 0:
        return 0.0
    fold_N = fold_of_samples(label_N, folds=3, seed=seed)
    point_ND = principal(vector_MD[good_M])
    return out_of_sample(point_ND, label_N, fold_N, len(samples.classes), penalty=1e-3, seed=seed).accuracy


def some_of(samples: Samples, numbers: NDArray[np.int64]) -> Samples:
    """Return some of the samples."""
    views = []
    for which, view in enumerate(samples.views):
        start, end = samples.start_V[which : which + 2].tolist()
        row_R = numbers[(numbers >= start) & (numbers < end)] - start
        if len(row_R):
            views.append(replace(view, position_N=view.position_N[row_R], label_N=view.label_N[row_R], name=""))
    return Samples(views=tuple(views), classes=samples.classes)


def _batches(
    samples: Samples, source: Source, threads: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the numbers and the vectors of the samples, without those that can't be decoded."""
    from imgdata.inference.samples import loaded

    for start, view in zip(samples.start_V.tolist(), samples.views, strict=False):
        with loaded(view, source.recipe, device=source.device, batch_size=64, backend="cpu", threads=threads) as loader:
            for batch in loader:
                good_B = batch.valid
                vector_BD = source.vectorize(batch.images)[good_B.cpu().numpy()]
                yield np.searchsorted(view.position_N, batch.positions[good_B].numpy()) + start, vector_BD


def vectors_by(
    samples: Samples, source: Source, workers: Workers
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield numbers and vectors of the samples whose image can be decoded, in any order, computed by other machines."""
    pieces = (
        range(first, min(first + _PIECE, end))
        for start, end in pairwise(samples.start_V.tolist())
        for first in range(start, end, _PIECE)
    )
    finder = partial(_finder, source.remake, source.identity, workers.threads)
    for piece, vector_KD in workers.run(samples, finder, pieces):
        good_K = ~np.isnan(vector_KD[:, :1]).any(1)
        if vector_KD.shape[1]:
            yield np.asarray(piece)[good_K], vector_KD[good_K]


def _finder(
    remake: Callable[[], Source], identity: str, threads: int, samples: Samples
) -> Callable[[Piece], NDArray[np.float32]]:
    """Return the function that makes vectors of some of the samples, NaN where an image can't be decoded.

    They have no columns where none can. Raises `OptionError` where this machine makes others.
    """
    source = _remade(remake)
    if source.identity != identity:
        raise OptionError(f"{source.what}: this machine has other weights; they must be the same on all machines")

    def find(numbers: Piece) -> NDArray[np.float32]:
        number_K = np.asarray(numbers)
        vector_KD = np.full((len(number_K), 0), np.nan, np.float32)
        for row_B, vector_BD in _batches(some_of(samples, number_K), source, threads):
            if not vector_KD.shape[1]:
                vector_KD = np.full((len(number_K), vector_BD.shape[1]), np.nan, np.float32)
            vector_KD[row_B] = vector_BD
        return vector_KD

    return find


@lru_cache(maxsize=2)
def _remade(remake: Callable[[], Source]) -> Source:
    """Return the source; a process that has several tasks makes it once."""
    return remake()


def _all(
    samples: Samples,
    source: Source,
    threads: int | None,
    progress: Progress = lambda done, total: None,
    workers: Workers | None = None,
) -> NDArray[np.float32]:
    """Return the vectors of all samples, NaN where an image can't be decoded: kept ones, or computed and kept."""
    path = cache_folder() / "audit" / f"features-{_key(samples, source)}.npy"
    kept_MD = _kept(path, len(samples))
    if kept_MD is not None:
        return kept_MD
    if workers is None or source.device.type != "cpu":
        return _computed(samples, _batches(samples, source, threads), path, progress)
    return _computed(samples, vectors_by(samples, source, workers), path, progress)


def _key(samples: Samples, source: Source) -> str:
    digest = hashlib.sha256(f"{VERSION} {source.identity} {source.recipe!r} {source.device.type}".encode())
    for view in samples.views:
        digest.update(content_id(view.index).encode())
        digest.update(view.position_N.astype("<i8").tobytes())
    return digest.hexdigest()[:32]


def _kept(path: Path, rows: int) -> NDArray[np.float32] | None:
    try:
        kept_MD = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return kept_MD if kept_MD.dtype == np.float32 and kept_MD.ndim == 2 and len(kept_MD) == rows else None


def _computed(
    samples: Samples,
    found: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]],
    path: Path,
    progress: Progress,
) -> NDArray[np.float32]:
    """Return the vectors that are found, and keep them where there is room."""
    first = next(found, None)
    if first is None:
        return np.full((len(samples), 1), np.nan, np.float32)
    shape = (len(samples), first[1].shape[1])
    try:
        room = make_room(4 * shape[0] * shape[1])
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, OutputError):
        room = False
    if not room:
        return _filled(np.full(shape, np.nan, np.float32), first, found, progress)
    with whole_file(path) as temporary:
        file_MD = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        file_MD[:] = np.nan
        _filled(file_MD, first, found, progress)
        file_MD.flush()
        del file_MD
    kept_MD = _kept(path, len(samples))
    if kept_MD is None:
        raise OptionError(f"{path}: changed while it was read; run the audit again")
    return kept_MD


def _filled(
    vector_MD: NDArray[np.float32],
    first: tuple[NDArray[np.int64], NDArray[np.float32]],
    others: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]],
    progress: Progress,
) -> NDArray[np.float32]:
    done = 0
    for number_B, vector_BD in chain([first], others):
        vector_MD[number_B] = vector_BD
        done += len(number_B)
        progress(done, len(vector_MD))
    return vector_MD
