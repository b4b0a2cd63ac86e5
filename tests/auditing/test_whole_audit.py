"""An audit with its own checks, from shards to a view without what was planted: a leak, copies, a blank picture."""

import json

import pytest
from PIL import Image, ImageOps

import imgdata
from benchmarks.photos import photographs
from imgdata.auditing.checks import CHECKS
from imgdata.auditing.finding import KINDS
from support.animals import keys
from support.inline_ray import inline_ray

__all__ = ["inline_ray"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of two classes, and what is planted among them."""
    raw = tmp_path_factory.mktemp("planted") / "raw"
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (raw / name).mkdir(parents=True)
    crops = list(crops_of_photographs())
    for number, crop in enumerate(crops):
        split, name = ("val" if number % 4 == 3 else "train"), ("cat", "dog")[number % 2]
        crop.save(raw / split / name / f"{number:03d}.jpg", quality=90)
    (raw / "train/cat/copy.jpg").write_bytes((raw / "train/cat/000.jpg").read_bytes())
    crops[3].resize((90, 90)).save(raw / "train/dog/leak.jpg", quality=70)
    ImageOps.mirror(crops[4]).save(raw / "train/cat/mirrored.jpg", quality=80)
    crops[1].save(raw / "train/cat/two.jpg", quality=60)
    Image.new("RGB", (120, 120), (90, 30, 30)).save(raw / "train/dog/blank.jpg")
    imgdata.shard(raw, raw.parent / "out", name="pets", workers=1)
    return raw.parent / "out"


def crops_of_photographs():
    """Yield 32 squares of 120 pixels, four of each photograph, no two of which show the same."""
    for photograph in photographs()[:8]:
        for corner in range(4):
            x, y = corner % 2 * 150, corner // 2 * 150
            yield photograph.crop((x, y, x + 120, y + 120))


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGDATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return imgdata.audit(folder, folder.parent / "report", workers=1)


def test_a_cluster_finds_the_same_copies(folder, result, inline_ray, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    there = imgdata.audit(folder, engine="ray", only="duplicates")
    kinds = {finding.kind for finding in there.findings}
    assert kinds == {"leak", "conflict", "exact-duplicate", "near-duplicate"}
    assert list(there.findings) == [finding for finding in result.findings if finding.kind in kinds]
    # Thumbnails, and the pixels of pictures that may be equal.
    assert inline_ray.ended >= 2


def found(result, kind):
    return {(finding.place.key, finding.other.key) for finding in result.of(kind)}


def test_what_was_planted_is_found_and_nothing_else(result):
    assert found(result, "leak") == {("dog/leak", "dog/003")}
    assert found(result, "exact-duplicate") in ({("cat/copy", "cat/000")}, {("cat/000", "cat/copy")})
    assert found(result, "near-duplicate") == {("cat/mirrored", "cat/004")}
    assert found(result, "conflict") == {("cat/two", "dog/001")}
    assert [one.place.key for one in result.of("quality") if one.what == "blank"] == ["dog/blank"]


def test_the_files_of_the_report_hold_all_of_it(result, folder):
    report = folder.parent / "report"
    assert imgdata.read_findings(report) == result.findings
    content = json.loads((report / "findings.json").read_text())
    assert content["counts"] == result.counts
    assert set(content["checks"]) == {check.name for check in CHECKS}
    page = (report / "index.html").read_text()
    assert page.count("data:image/jpeg") >= 2 * len(result.of("leak")) + len(result.of("quality"))


def test_a_fix_of_the_report_leaves_the_planted_out(result, folder):
    view = imgdata.open_view(imgdata.open(folder), "train")
    fixes = "exclude-leaks,exclude-duplicates,exclude-conflicts,exclude-quality"
    fixed = imgdata.fixed_view(view, result.findings, fixes)
    gone = set(keys(view)) - set(keys(fixed.view))
    assert gone - {"cat/copy", "cat/000"} == {"dog/leak", "cat/mirrored", "cat/two", "dog/001", "dog/blank"}
    assert len(gone) == 6
    imgdata.save_view(fixed.view, "clean")
    assert len(imgdata.open_view(imgdata.open(folder), "train", "clean")) == len(view) - 6


def test_every_kind_of_finding_has_a_check():
    covered = {kind for check in CHECKS for kind in check.kinds}
    assert covered - {"label"} == set(KINDS) - {"label"}
    assert len({check.name for check in CHECKS}) == len(CHECKS)
