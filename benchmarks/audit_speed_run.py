"""A tool, a folder of images -> what looking at them takes, as JSON: `audit_speed_run NAME FOLDER`.

The folder has a dataset, `out`, and images, `files`. Imports are not counted; the processes that a tool starts are.
"""

import contextlib
import io
import json
import os
import resource
import sys
import time
from pathlib import Path

from benchmarks.stage import peak_rss_mb

CHECKS = ("duplicates", "quality")


def run_imgdata(folder: Path, checks: tuple[str, ...] = CHECKS) -> dict[str, float]:
    """Audit the dataset; return the seconds of each stage."""
    import imgdata

    spent: dict[str, float] = {}
    last = time.perf_counter()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        spent[stage] = spent.get(stage, 0.0) + now - last
        last = now

    imgdata.audit(folder / "out", only=checks, progress=tell)
    return spent


def run_cleanvision(folder: Path) -> dict[str, float]:
    """Look for all that CleanVision knows, exact and near duplicates among it."""
    from cleanvision import Imagelab

    Imagelab(data_path=str(folder / "files")).find_issues(n_jobs=len(os.sched_getaffinity(0)), verbose=False)
    return {}


def run_imagededup(folder: Path) -> dict[str, float]:
    """Hash all images, and search; return the seconds of both."""
    from imagededup.methods import PHash

    hasher = PHash(verbose=False)
    begun = time.perf_counter()
    encodings = hasher.encode_images(image_dir=folder / "files", num_enc_workers=len(os.sched_getaffinity(0)))
    hashed = time.perf_counter()
    hasher.find_duplicates(encoding_map=encodings)
    return {"hashing": hashed - begun, "searching": time.perf_counter() - hashed}


def main(name: str, folder: Path) -> None:
    """Run the tool once, and print its figures."""
    if name.startswith("imgdata"):
        import imgdata.auditing.run  # noqa: F401
    elif name == "CleanVision":
        import cleanvision  # noqa: F401
    else:
        import imagededup.methods  # noqa: F401
    before, begun = _cpu_s(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        if name.startswith("imgdata"):
            stages = run_imgdata(folder, ("quality",) if name.endswith("alone") else CHECKS)
        else:
            stages = run_cleanvision(folder) if name == "CleanVision" else run_imagededup(folder)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "cpu_s": _cpu_s() - before, "peak_mb": peak_rss_mb(), "stages": stages}))


def _cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
