"""A run whose dataset has grown since: resumed and evaluated with the version that it was trained on."""

import json
import shutil

import pytest

import imgdata
from support.digit_runs import digit_folders, quick

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory):
    """The digits, and the same with more of them and a class appended; each run is begun before that."""
    work = tmp_path_factory.mktemp("versions")
    raw = digit_folders(work / "raw", {"train": 40, "val": 20})
    for number, path in enumerate(sorted(raw.rglob("*.png"))):
        path.rename(path.with_name(f"more{number}.png"))
    (raw / "train" / "ten").mkdir()
    shutil.copy(next(raw.rglob("*.png")), raw / "train" / "ten" / "ten.png")
    for name in ("one", "two"):
        shutil.copytree(digits, work / name)
        imgdata.train(work / name, work / f"run-{name}", quick(epochs=1))
    imgdata.shard(raw, work / "two", imgdata.ShardOptions(shard_samples=100), workers=1, append=True)
    return work


def test_a_run_resumes_with_the_version_that_it_began_with(folders):
    figures = []
    for name in ("one", "two"):
        out = shutil.copytree(folders / f"run-{name}", folders / f"resumed-{name}")
        figures.append(imgdata.train(folders / name, out, epochs=2, resume=True).rows[-1])
        config = json.loads((out / "config.json").read_text())
        assert config["samples"] == {"train": 320, "val": 80}
    assert (figures[0].train_loss, figures[0].val_top1) == (figures[1].train_loss, figures[1].val_top1)


def test_a_new_run_reads_the_newest_version_and_remembers_it(folders):
    out = folders / "run-new"
    imgdata.train(folders / "two", out, quick(epochs=1))
    config = json.loads((out / "config.json").read_text())
    assert config["data_version"] == 2
    assert config["samples"] == {"train": 361, "val": 100}
    assert len(config["classes"]) == 11


def test_a_run_is_evaluated_with_what_its_version_held_out(folders):
    old = imgdata.evaluate(folders / "run-two", folders / "two")
    assert old.scores.total == 80
