"""A conversion as an array of Slurm's: the script of the page, on a Slurm that the test starts."""

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import imgdata
from support.patience import PATIENCE_S
from support.rawdata import class_folders
from support.slurm import slurm, why_not

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "slurm.md"


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def submit(environment, *arguments):
    done = subprocess.run(
        ["sbatch", "--parsable", *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def states(environment, job):
    """States of the tasks of a job, by number; empty once Slurm has forgotten it."""
    asked = ["squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%K %T"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    return dict(line.split() for line in done.stdout.splitlines())


def ended(environment, job):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = states(environment, job)
        if found and set(found.values()) <= {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_the_script_of_the_page_makes_the_dataset_of_one_run(tmp_path):
    raw = class_folders(tmp_path / "photos", {"train": 6})
    out = tmp_path / "out"
    imgdata.shard(raw, tmp_path / "alone", shard_samples=2, workers=1)
    # The script of the page, but for its names.
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH --array.*?)```", PAGE.read_text(), re.S)[1]
    script = script.replace("photos/", str(raw)).replace("out/", str(out)).replace("0-63", "0-3")
    script = script.replace("imgdata shard", f"{sys.executable} -m imgdata_cli.main shard")
    job_file = tmp_path / "convert.sh"
    job_file.write_text(re.sub(r"#SBATCH --(mem|time|cpus).*\n", "", script))
    imgdata.begin_parts(raw, out, shard_samples=2, workers=1)
    with slurm(tmp_path / "cluster") as environment:
        options = ["--output", tmp_path / "%a.log", "--mem", 50]
        array = submit(environment, *options, job_file)
        assert ended(environment, array) == {str(number): "COMPLETED" for number in range(4)}
        # Shards 1 and 3 of 9 parts are lost, and their parts run again, numbered as the message says.
        (out / "photos-train-000001.tar").unlink()
        (out / "photos-train-000003.tar").unlink()
        with pytest.raises(imgdata.OutputError, match=r"--array=(\S+);") as missing:
            imgdata.finish_parts(out)
        again = re.search(r"(--array=\S+);", str(missing.value))[1]
        assert again == "--array=1,3"
        repeated = submit(environment, *options, again, job_file)
        assert ended(environment, repeated) == {"1": "COMPLETED", "3": "COMPLETED"}
    imgdata.finish_parts(out)
    assert digests(out) == digests(tmp_path / "alone")
