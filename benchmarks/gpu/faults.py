"""The phase `faults`: what goes wrong on a GPU -> what it costs, what is said, what is remembered of it."""

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu import pictures
from benchmarks.gpu.running import NotMeasuredError, Running, Settings, message

_LEFT_FREE = 300 * 2**20
"""Bytes of the GPU that are left to a loader which needs more."""
_REBUILDS = 3
_LEAST_S = 6.0
"""Seconds that a process of its own needs."""


def run(phase: Running) -> None:
    """Look at each; what may end a process is in one of its own."""
    settings, needs_s = phase.settings, _LEAST_S if phase.sizes.apart else 0.0
    if not pictures.ready(phase, "few", "bad", "small"):
        return
    phase.attempt("memory", work=lambda: memory(settings))
    phase.attempt("rebuild", work=lambda: rebuild(settings))
    phase.attempt("bad pictures", work=lambda: bad_pictures(settings))
    phase.apart("out of memory", "loader", function="faults:full_loader", arguments={}, needs_s=needs_s)
    phase.apart("out of memory", "training", function="faults:full_training", arguments={}, needs_s=needs_s)


def memory(settings: Settings) -> dict[str, Any]:
    """Return the memory in use after the first epoch and after the last: of the GPU, or of this process."""
    used = []
    with _loader(settings, "few") as loader:
        for _ in range(settings.sizes.few_epochs):
            for _ in loader:
                pass
            used.append(_used_mb(settings))
    return {
        "epochs": len(used),
        "first_mb": used[0],
        "last_mb": used[-1],
        "last_to_first": round(used[-1] / used[0], 4),
    }


def rebuild(settings: Settings) -> dict[str, Any]:
    """Return the seconds from a new loader to its first batch, in a process that has had one before: the least."""
    times = []
    for _ in range(_REBUILDS):
        begun = time.perf_counter()
        with _loader(settings, "few") as loader:
            next(iter(loader))
            times.append(time.perf_counter() - begun)
    return {"first_batch_s": round(min(times), 3)}


def bad_pictures(settings: Settings) -> dict[str, Any]:
    """Return what pictures cost that no decoder reads: when they are found, and when they are known."""
    with _own_cache(settings) as cache:
        clean_s, _ = _epochs_s(settings, "few")
        (first_s, later_s), found = _epochs_s(settings, "bad")
        known = remembered(cache)
    planted = len(range(pictures.BAD_EVERY // 8, settings.sizes.few, pictures.BAD_EVERY))
    return {
        "planted": planted,
        "found": found,
        "remembered": known,
        "s_per_bad_picture": round((first_s - clean_s[1]) / planted, 3),
        "first_epoch_s": round(first_s, 3),
        "later_epoch_s": round(later_s, 3),
        "clean_epoch_s": round(clean_s[1], 3),
    }


def full_loader(settings: Settings) -> dict[str, Any]:
    """Return what a loader says on a GPU that is full, what it keeps of that, and whether it works afterwards."""
    with _own_cache(settings) as cache:
        with _filled(settings):
            said = _said(lambda: _epochs_s(settings, "few"))
        kept = remembered(cache)
        _, bad = _epochs_s(settings, "few")
    if kept or bad:
        raise RuntimeError(f"{kept} good pictures are remembered as bad, and {bad} were left out: {said['message']}")
    return _told(settings, {**said, "remembered": kept, "works_afterwards": True})


def full_training(settings: Settings) -> dict[str, Any]:
    """Return what training says on a GPU that is full."""
    import imgdata

    data = pictures.folder(settings, "small")
    batch = max(settings.sizes.small_batches)
    with _own_cache(settings), _filled(settings), tempfile.TemporaryDirectory() as out:
        # On a processor it would only take time.
        model = "resnet9" if settings.on_gpu else "cnn"
        said = _said(
            lambda: imgdata.train(
                data, Path(out) / "run", model=model, epochs=1, batch_size=batch, hold_out=0.2, device=settings.device
            )
        )
    return _told(settings, said)


def remembered(cache: Path) -> int:
    """Return how many pictures the cache folder names that DALI can't decode."""
    return sum(len(path.read_bytes().splitlines()) for path in cache.glob("dali-*.jsonl"))


def _told(settings: Settings, said: dict[str, Any]) -> dict[str, Any]:
    if not settings.on_gpu:
        raise NotMeasuredError("only a GPU can be filled; without one the same code ran with memory enough")
    return said


def _said(work: Any) -> dict[str, Any]:
    try:
        work()
    except Exception as error:  # Whatever is raised, what it says is the result.
        text = message(error)
        return {"raised": type(error).__name__, "names_memory": "memory" in text.lower(), "message": text}
    return {"raised": "nothing", "names_memory": False, "message": ""}


def _epochs_s(settings: Settings, name: str) -> tuple[list[float], int]:
    """Return the seconds of two epochs of a new loader, and how many bad pictures it found."""
    times = []
    with warnings.catch_warnings(), _loader(settings, name) as loader:
        warnings.simplefilter("ignore")
        for _ in range(2):
            begun = time.perf_counter()
            for _ in loader:
                pass
            _wait(settings)
            times.append(time.perf_counter() - begun)
        return times, len(loader.bad)


def _loader(settings: Settings, name: str) -> Any:
    import imgdata
    from imgdata.backends.dali.available import refusal

    device = "cuda:0" if settings.on_gpu else "cpu"
    if (reason := refusal(device)) is not None:
        raise NotMeasuredError(reason)
    return imgdata.Loader(
        pictures.folder(settings, name),
        split="train",
        batch_size=min(settings.sizes.batch, settings.sizes.few // 4),
        recipe=imgdata.recipes.imagenet_train(settings.sizes.side),
        dtype="float16",
        device=device,
        backend="dali",
    )


@contextmanager
def _own_cache(settings: Settings) -> Iterator[Path]:
    """Yield an empty cache folder for the block, but for the verdict on crops, which takes long to find."""
    before = os.environ.get("IMGDATA_CACHE")
    with tempfile.TemporaryDirectory(dir=settings.work) as folder:
        verdict = Path(before or "") / "dali-crop.json"
        if before and verdict.exists():
            shutil.copy(verdict, folder)
        os.environ["IMGDATA_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("IMGDATA_CACHE")
            os.environ.update({} if before is None else {"IMGDATA_CACHE": before})


@contextmanager
def _filled(settings: Settings) -> Iterator[None]:
    """Take nearly all free memory of the GPU for the block, by plain allocations."""
    held = []
    if settings.on_gpu:
        import torch

        free, _ = torch.cuda.mem_get_info(0)
        held.append(torch.empty(max(0, free - _LEFT_FREE), dtype=torch.uint8, device="cuda:0"))
    try:
        yield
    finally:
        held.clear()
        if settings.on_gpu:
            torch.cuda.empty_cache()


def _used_mb(settings: Settings) -> float:
    if settings.on_gpu:
        import torch

        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info(0)
        return round((total - free) / 1e6, 1)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _wait(settings: Settings) -> None:
    from imgdata.measure.timing import synchronize

    synchronize("cuda:0" if settings.on_gpu else "cpu")
