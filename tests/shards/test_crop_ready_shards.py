"""`imgdata shard --crop-ready`: JPEGs with restart markers in shards, their columns in the index, who knows of them."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash
from click.testing import CliRunner
from imgdata_cli.main import cli
from PIL import Image

import imgdata
from imgdata import OptionError, ShardOptions, native
from imgdata.dataset.index_schema import CROP_READY_FIELDS
from support import pictures

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")

COLUMNS = [field.name for field in CROP_READY_FIELDS]


def raw_files() -> dict[str, bytes]:
    plain = pictures.jpeg(quality=95)
    return {
        "a/plain.jpg": plain,
        "a/turned.jpg": pictures.jpeg(exif=pictures.exif(6)),
        "a/progressive.jpg": pictures.jpeg(progressive=True),
        "a/gray.jpg": pictures.jpeg("L"),
        "b/cmyk.jpg": pictures.cmyk_jpeg(0),
        "b/other.png": pictures.encode(pictures.photo(), "PNG"),
        "b/described.jpg": pictures.jpeg(comment=b"words" * 99, quality=80),
        "b/cut.jpg": plain[:-200],
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crop-ready") / "raw"
    for name, data in raw_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def made(raw: Path) -> tuple[Path, imgdata.ShardSummary]:
    out = raw.parent / "out"
    return out, imgdata.shard(raw, out, crop_ready=True, workers=1)


def by_source(out: Path) -> dict[str, tuple[bytes, int, int]]:
    """Stored bytes, restart interval and hash of the raw bytes of each image, by its name in the source."""
    dataset = imgdata.open(out)["train"]
    names = dataset.index.column("source").to_pylist()
    interval_N, original_N = (dataset.index.array(name) for name in COLUMNS)
    return {name: (dataset[i].image, int(interval_N[i]), int(original_N[i])) for i, name in enumerate(names)}


def test_jpegs_are_stored_with_markers_and_the_same_coefficients(made: tuple[Path, imgdata.ShardSummary]) -> None:
    stored = by_source(made[0])
    raw = raw_files()
    for name, (data, interval, original) in stored.items():
        assert original == xxhash.xxh64_intdigest(raw[name])
        if name in ("b/cmyk.jpg", "b/other.png"):
            assert (data, interval) == (raw[name], 0)
        else:
            assert native.same_coefficients(data, raw[name])
            assert native.crop_interval(data) == interval > 0
    assert set(stored) == set(raw) - {"b/cut.jpg"}


def test_what_stays_as_it_is_and_what_is_bad_is_counted(made: tuple[Path, imgdata.ShardSummary]) -> None:
    summary = made[1]
    assert dict(summary.rejected) == {"truncated": 1}
    notes = [text for text in summary.warnings if "without restart markers" in text]
    assert notes == [
        "1 image, b/cmyk.jpg: stored without restart markers: CMYK JPEG",
        "1 image, b/other.png: stored without restart markers: png is not JPEG; --format jpg encodes it",
    ]


def test_metadata_stay_without_strip_and_go_with_it(raw: Path, tmp_path: Path) -> None:
    kept = by_source(raw.parent / "out")
    imgdata.shard(raw, tmp_path / "out", crop_ready=True, strip=True, workers=1)
    stripped = by_source(tmp_path / "out")
    assert b"wordswords" in kept["b/described.jpg"][0]
    assert b"words" not in stripped["b/described.jpg"][0]
    for stored in (kept, stripped):
        assert Image.open(io.BytesIO(stored["a/turned.jpg"][0])).getexif()[0x0112] == 6
    assert native.same_coefficients(kept["b/described.jpg"][0], stripped["b/described.jpg"][0])


def test_only_bytes_that_stay_are_noted(tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    (tmp_path / "raw/a/1.jpg").write_bytes(pictures.jpeg() + bytes(5000))
    for strip in (False, True):
        summary = imgdata.shard(tmp_path / "raw", tmp_path / f"out-{strip}", crop_ready=True, strip=strip, workers=1)
        assert any("bytes behind the end" in text for text in summary.warnings) != strip


def test_inspect_counts_intervals(made: tuple[Path, imgdata.ShardSummary], raw: Path, tmp_path: Path) -> None:
    split = imgdata.inspect(made[0]).splits["train"]
    assert split.crop_ready == {2: 4, 4: 1}
    assert "crop-ready  5 of 7; MCUs between restart markers: 2 (4), 4 (1)" in str(imgdata.inspect(made[0]))
    imgdata.shard(raw, tmp_path / "plain", workers=1)
    assert imgdata.inspect(tmp_path / "plain").splits["train"].crop_ready == {}
    assert "crop-ready" not in str(imgdata.inspect(tmp_path / "plain"))
    values = json.loads(CliRunner().invoke(cli, ["inspect", str(made[0]), "--json"]).stdout)
    assert values["splits"]["train"]["crop_ready"] == {"2": 4, "4": 1}


def test_verify_compares_the_interval_with_the_index(
    made: tuple[Path, imgdata.ShardSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imgdata.verify(made[0], deep=True) == []
    found = native.crop_interval
    monkeypatch.setattr(native, "crop_interval", lambda data: 2 * found(data))
    faults = [str(fault) for fault in imgdata.verify(made[0], deep=True)]
    assert len(faults) == 5
    assert "a restart interval of 8 MCUs in the tar, 4 in the index" in "".join(faults)
    assert imgdata.verify(made[0]) == []


def test_a_rebuilt_index_is_the_same(made: tuple[Path, imgdata.ShardSummary], tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(made[0], out)
    imgdata.index(out)
    index = "raw-train.index.parquet"
    assert (out / index).read_bytes() == (made[0] / index).read_bytes()


def test_an_index_of_tars_alone_finds_the_intervals(made: tuple[Path, imgdata.ShardSummary], tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    for tar in made[0].glob("*.tar"):
        shutil.copy(tar, tmp_path / "tars")
    imgdata.index(tmp_path / "tars")
    index, before = (imgdata.open(folder)["train"].index for folder in (tmp_path / "tars", made[0]))
    assert np.array_equal(index.array("restart_interval"), before.array("restart_interval"))
    assert np.array_equal(index.array("original_xxh64"), index.xxh64_N)


def test_existing_shards_become_ready(made: tuple[Path, imgdata.ShardSummary], raw: Path, tmp_path: Path) -> None:
    imgdata.shard(raw, tmp_path / "plain", workers=1)
    imgdata.shard(tmp_path / "plain", tmp_path / "ready", crop_ready=True, workers=1)
    ready = {data for data, *_ in by_source(tmp_path / "ready").values()}
    assert ready == {data for data, *_ in by_source(made[0]).values()}
    assert imgdata.open(tmp_path / "ready").classes == imgdata.open(made[0]).classes
    # Made ready again, they are the same.
    imgdata.shard(tmp_path / "ready", tmp_path / "again", crop_ready=True, workers=1)
    assert ready == {data for data, *_ in by_source(tmp_path / "again").values()}


@pytest.mark.parametrize("quality", [90, 95])
def test_encoded_images_are_ready_and_have_the_same_pixels(raw: Path, tmp_path: Path, quality: int) -> None:
    options = {"resize": 90, "quality": quality, "format": "jpg", "workers": 1}
    imgdata.shard(raw, tmp_path / "plain", **options)
    imgdata.shard(raw, tmp_path / "ready", crop_ready=True, **options)
    plain = imgdata.open(tmp_path / "plain")["train"]
    ready = by_source(tmp_path / "ready")
    for sample, name in zip(plain, plain.index.column("source").to_pylist(), strict=True):
        data, interval, original = ready[name]
        assert original == xxhash.xxh64_intdigest(raw_files()[name])
        assert native.crop_interval(data) == interval > 0
        assert native.same_coefficients(data, sample.image)


def test_threads_and_resume_change_no_byte(made: tuple[Path, imgdata.ShardSummary], raw: Path, tmp_path: Path) -> None:
    imgdata.shard(raw, tmp_path / "out", crop_ready=True, workers=2)
    names = sorted(path.name for path in made[0].iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert all((made[0] / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)
    assert imgdata.shard(raw, tmp_path / "out", crop_ready=True, workers=1).already_complete


def test_options_without_it_are_those_of_before() -> None:
    assert not {"crop_ready", "strip"} & ShardOptions().to_dict().keys()
    assert ShardOptions(crop_ready=True).to_dict()["crop_ready"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strip": True}, "strip drops metadata of crop-ready JPEGs; give crop_ready too"),
        ({"crop_ready": True, "format": "png"}, "crop_ready is for JPEGs: format must be keep or jpg, got 'png'"),
    ],
)
def test_options_without_a_meaning_are_refused(
    raw: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message.replace("(", r"\(")):
        imgdata.shard(raw, tmp_path / "out", **options)


def test_without_the_extension_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    with pytest.raises(OptionError, match="install gcc and libjpeg-turbo's headers"):
        ShardOptions(crop_ready=True)
