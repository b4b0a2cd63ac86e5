"""The phase `training`: each way to train, briefly -> whether it works, and how fast it was."""

import math
from pathlib import Path
from typing import Any

from benchmarks.gpu import pictures
from benchmarks.gpu.running import NotMeasuredError, Running, Settings, run_process

_LEAST_S = 5.0
_COMPILE_S = 12.0


def run(phase: Running) -> None:
    """Try each, what is used most first; compiling takes longest, and comes last."""
    settings = phase.settings
    if not pictures.ready(phase, "small"):
        return
    phase.attempt("run", work=lambda: _train(settings, "run"))
    phase.attempt("evaluate", work=lambda: _evaluate(settings))
    phase.attempt("resume", work=lambda: _resume(settings))
    phase.attempt("fp16", work=lambda: _fp16(settings))
    phase.attempt("EMA", work=lambda: _train(settings, "ema", ema=0.9))
    needs_s = _LEAST_S if phase.sizes.apart else 0.0
    phase.attempt("torchrun, 1 rank", work=lambda: _torchrun(phase), needs_s=needs_s)
    phase.attempt("compile", work=lambda: _compiled(settings), needs_s=_COMPILE_S if phase.sizes.apart else 0.0)


def train(settings: Settings, out: Path, **changes: Any) -> dict[str, Any]:
    """Train a small network for an epoch; return what it reached, and how fast."""
    import imgdata

    options = {
        "model": "resnet9" if settings.on_gpu else "cnn",
        "epochs": 1,
        "batch_size": 512 if settings.on_gpu else 32,
        "backend": "resident",
        "device": settings.device,
        **({} if "val_split" in changes else {"hold_out": 0.2}),
        **changes,
    }
    result = imgdata.train(pictures.folder(settings, "small"), out, **options)
    loss = result.rows[-1].train_loss
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss is {loss}")
    return {
        "epochs": len(result.rows),
        "images_per_s": round(result.images_per_s),
        "data_wait": round(result.data_wait, 4),
        "train_loss": round(loss, 4),
        "val_top1": round(result.scores.top1, 4),
    }


def _train(settings: Settings, name: str, **changes: Any) -> dict[str, Any]:
    return train(settings, _runs(settings) / name, overwrite=True, **changes)


def _resume(settings: Settings) -> dict[str, Any]:
    _train(settings, "resumed")
    found = train(settings, _runs(settings) / "resumed", epochs=2, resume=True)
    if found["epochs"] != 2:
        raise RuntimeError(f"the resumed run must have 2 epochs, got {found['epochs']}")
    return found


def _evaluate(settings: Settings) -> dict[str, Any]:
    import imgdata

    data = pictures.folder(settings, "small")
    found = imgdata.evaluate(_runs(settings) / "run", data, split="test", device=settings.device)
    return {"top1": round(found.scores.top1, 4), "total": found.scores.total}


def _fp16(settings: Settings) -> dict[str, Any]:
    if not settings.on_gpu:
        raise NotMeasuredError("16-bit floats need a GPU")
    return _train(settings, "fp16", amp="fp16")


def _compiled(settings: Settings) -> dict[str, Any]:
    if not settings.on_gpu:
        raise NotMeasuredError("compiling takes a minute on a processor, and says nothing about a GPU")
    return _train(settings, "compiled", compile=True)


def _torchrun(phase: Running) -> dict[str, Any]:
    words = ["--standalone", "--nproc-per-node", "1", "-m", "benchmarks.gpu.one_rank", phase.settings.to_json()]
    # torchrun says so itself where it is not set.
    return run_process("torch.distributed.run", *words, limit_s=phase.left_s, env={"OMP_NUM_THREADS": "1"})


def _runs(settings: Settings) -> Path:
    folder = settings.folder / "runs"
    folder.mkdir(exist_ok=True)
    return folder
