"""The phase `machine`: a GPU -> its driver, versions, JPEG engines, NVML, the doctor's report, the trial of crops."""

import subprocess
import threading
import time
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.gpu.nvml import set_affinity
from benchmarks.gpu.running import NotMeasuredError, Running, Settings, message
from benchmarks.gpu.versions import DALI_PACKAGES, codec_packages

_QUERY = "name,driver_version,memory.total,compute_cap,clocks.max.sm,clocks.max.memory,power.limit,mig.mode.current"
_PATIENCE_S = 10.0


def run(phase: Running) -> None:
    """Look at everything."""
    phase.attempt("nvidia-smi", work=nvidia_smi)
    phase.attempt("versions", work=versions)
    phase.attempt("jpeg engines", work=lambda: jpeg_engines(phase.settings))
    phase.attempt("nvml affinity", work=affinity)
    phase.attempt("crop trial", work=lambda: crop_trial(phase.settings))
    phase.attempt("doctor", work=doctor)


def nvidia_smi() -> dict[str, str]:
    """Return what the driver says of the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except FileNotFoundError:
        raise NotMeasuredError("there is no nvidia-smi") from None
    if done.returncode:
        raise RuntimeError(f"nvidia-smi ended with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    values = [word.strip() for word in done.stdout.splitlines()[0].split(",")]
    return dict(zip(_QUERY.split(","), values, strict=False))


def versions() -> dict[str, str | None]:
    """Return the versions of what decodes and trains."""
    import torch

    found: dict[str, str | None] = {
        "torch": torch.__version__,
        "CUDA of torch": torch.version.cuda,
        "cuDNN": str(torch.backends.cudnn.version()),
    }
    for name in ("torchvision", "torchcodec", "timm", "simplejpeg", *DALI_PACKAGES, *codec_packages()):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def jpeg_engines(settings: Settings) -> dict[str, Any]:
    """Return the JPEG engines of the GPU, and the cores of each, as nvJPEG counts them."""
    from imgdata.measure.machine import gpu

    answer = gpu.jpeg_engines()
    if not settings.on_gpu:
        raise NotMeasuredError("only a GPU has JPEG engines")
    if answer.engines is None:
        raise NotMeasuredError(f"nvJPEG: {answer.fault}")
    return {"engines": answer.engines, "cores": answer.cores}


def affinity() -> dict[str, Any]:
    """Return the answer to the call that each thread of DALI's decoder makes where `affine` is left as it is.

    In a thread of its own, which then ends: it may change on which cores the thread runs.
    """
    found: list[dict[str, Any] | str] = []
    thread = threading.Thread(target=lambda: found.append(set_affinity()))
    thread.start()
    thread.join()
    answer = found[0]
    if isinstance(answer, str):
        raise NotMeasuredError(answer)
    return answer


def crop_trial(settings: Settings) -> dict[str, Any]:
    """Return the verdict on decoding crops alone, and how long the first run of an installation waits for it."""
    from imgdata.backends.dali.available import refusal

    reason = refusal(settings.device)
    if reason is not None:
        raise NotMeasuredError(reason)
    probe = import_module("imgdata.backends.dali.crop_probe")
    if not settings.on_gpu:
        raise NotMeasuredError("crops are tried on a GPU alone")
    begun = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        verdict = probe.crop_verdict(0)
    seconds = round(time.monotonic() - begun, 1)
    warned = [message(one.message) for one in said]
    return {"safe": verdict == probe.CROPS, "verdict": verdict, "seconds": seconds, "warnings": warned}


def doctor() -> dict[str, Any]:
    """Return what `imgdata doctor --json` prints."""
    import imgdata

    return imgdata.doctor().to_dict()
