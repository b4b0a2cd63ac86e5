"""A program, a folder of files -> the pairs that it calls copies: `audit_duplicates_run NAME FILES OUT`.

Ours shards the files first, which is not counted: a dataset is there already. Peers read the files.
"""

import json
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.stage import peak_rss_mb

_LARGEST_GROUP = 1000
"""Of a larger group only the pairs with its first picture count: all would be millions."""


def run_imgdata(files: Path) -> dict[str, Any]:
    """Return pairs of our findings, and the seconds of each part."""
    import imgdata
    from imgdata.auditing import duplicates
    from imgdata.auditing.facts import facts
    from imgdata.auditing.samples import samples_of
    from imgdata.views import open_view

    with tempfile.TemporaryDirectory(dir=files.parent) as folder:
        out = Path(folder, "out")
        with imgdata.Writer(out, classes=["any"], shuffle=False) as writer:
            for path in sorted(files.iterdir()):
                writer.write(path.read_bytes(), 0, key=path.stem)
        samples = samples_of([open_view(imgdata.open(out), "train")])
        begun, begun_cpu = time.perf_counter(), time.process_time()
        seen = facts(samples, Path(folder, "facts"))
        looked = time.perf_counter()
        outcome = duplicates.find(samples, seen)
        ended = time.perf_counter()
        return {
            "pairs": [(one.place.key, one.other.key) for one in outcome.findings if one.place and one.other],
            "seconds": round(ended - begun, 1),
            "cpu_seconds": round(time.process_time() - begun_cpu, 1),
            "decode_seconds": round(looked - begun, 1),
            "search_seconds": round(ended - looked, 1),
            "peak_mb": peak_rss_mb(),
        }


def run_imagededup(files: Path, method: str) -> dict[str, Any]:
    """Return pairs of imagededup with its own threshold, 10 of 64 bits."""
    from imagededup import methods

    found = getattr(methods, method)(verbose=False).find_duplicates(image_dir=files, num_enc_workers=2)
    return {"pairs": sorted({tuple(sorted((one, other))) for one, others in found.items() for other in others})}


def run_cleanvision(files: Path) -> dict[str, Any]:
    """Return pairs of CleanVision's sets of exact and near duplicates."""
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(files))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=2, verbose=False)
    pairs = set()
    for issue in ("exact_duplicates", "near_duplicates"):
        for group in lab.info[issue]["sets"]:
            names = sorted(Path(path).name for path in group)
            few = len(names) <= _LARGEST_GROUP
            pairs |= set(combinations(names, 2) if few else ((names[0], name) for name in names[1:]))
    return {"pairs": sorted(pairs)}


def main(name: str, files: Path, out: Path) -> None:
    """Run a program, and write what it found."""
    program, _, method = name.partition(" ")
    if program == "imgdata":
        found = run_imgdata(files)
    elif program == "imagededup":
        found = run_imagededup(files, method)
    else:
        found = run_cleanvision(files)
    out.write_text(json.dumps({"peak_mb": peak_rss_mb(), **found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
