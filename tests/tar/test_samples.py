"""What samples a tar holds, and what is passed over: one rule for `shard`, `index` and all that reads tars."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import imgdata
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from imgdata.sources.parts import missing_parts
from imgdata.tar.samples import tar_contents
from support.rawdata import encoded

Files = Sequence[tuple[str, bytes]]


def write_tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            if data == b"->":
                info.type, info.linkname = tarfile.LNKTYPE, files[0][0]
                tar.addfile(info)
                continue
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        # as webdataset: the key ends at the first dot
        (["a.jpg", "a.cls", "b.jpg"], {"a": ["jpg", "cls"], "b": ["jpg"]}),
        (["a.left.png", "a.right.png", "a.cls"], {"a": ["left.png", "right.png", "cls"]}),
        # keys with dots
        (["p/2.0.png", "p/2.0.cls", "p/2.1.png"], {"p/2.0": ["png", "cls"], "p/2.1": ["png"]}),
        (["a.v1.png", "a.v1.json", "a.v2.png", "a.v2.json"], {"a.v1": ["png", "json"], "a.v2": ["png", "json"]}),
        # members that do not stand together
        (["a.jpg", "b.jpg", "a.cls", "b.cls"], {"a": ["jpg", "cls"], "b": ["jpg", "cls"]}),
    ],
)
def test_members_become_samples(tmp_path: Path, names: list[str], samples: dict[str, list[str]]) -> None:
    found = tar_contents(write_tar(tmp_path / "a.tar", [(name, b"x") for name in names]))
    assert {sample.key: list(sample.members) for sample, _ in found.samples} == samples


def images(count: int) -> list[tuple[str, bytes]]:
    return [file for i in range(count) for file in ((f"{i}.jpg", encoded(i)), (f"{i}.cls", b"%d" % (i % 2)))]


def both(tmp_path: Path) -> list[tuple[list[int], dict[str, int], str]]:
    """Labels, what was passed over and all notes, of `shard` and of `index`, for the tars in `tmp_path / "in"`."""
    imgdata.shard(tmp_path / "in", tmp_path / "out", workers=1)
    imgdata.index(tmp_path / "in")
    found = []
    for place in ("out", "in"):
        dataset = imgdata.open(tmp_path / place)
        source = dataset.manifest.source
        labels = sorted(sample.label for sample in dataset["train"])
        found.append((labels, dict(source["skipped"]), " ".join(source["warnings"])))
    assert imgdata.verify(tmp_path / "in", deep=True) == []
    return found


def test_shard_and_index_pass_over_the_same(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "in/a.tar", [*images(3), ("3.jpg", b"->"), ("4.cls", b"1"), ("README", b"x"), (".h.jpg", b"x")]
    )
    by_shard, by_index = both(tmp_path)
    expected = {"hard links": 1, "samples without an image": 1, "members without a key (hidden, or no extension)": 2}
    assert by_shard[:2] == by_index[:2] == ([0, 0, 1], expected)
    assert "passed over 1 hard links" in by_index[2]


DOTTED = [(name.replace(".", ".0."), data) for name, data in images(3)]
APART = sorted(images(3), key=lambda file: file[0].endswith("cls"))


@pytest.mark.parametrize(
    ("files", "note"),
    [(DOTTED, "3 samples have dots in their keys"), (APART, "the members of 3 samples are not together")],
)
def test_labels_are_found_where_other_readers_lose_them(tmp_path: Path, files: Files, note: str) -> None:
    write_tar(tmp_path / "in/a.tar", files)
    for labels, _, notes in both(tmp_path):
        assert (labels, note in notes) == ([0, 0, 1], True)


@pytest.mark.parametrize(("cut", "note"), [(0, "has no end marker"), (511, "no end marker: cut short")])
def test_a_tar_without_its_end_is_noted(tmp_path: Path, cut: int, note: str) -> None:
    path = write_tar(tmp_path / "in/a.tar", images(3))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    path.write_bytes(path.read_bytes()[: end - cut])
    assert all(note in notes for _, _, notes in both(tmp_path))


def test_captions_are_no_classes(tmp_path: Path) -> None:
    texts = [(f"{i}.txt", b"a photo of thing number %d" % i) for i in range(6)]
    write_tar(tmp_path / "in/a.tar", [file for i in range(6) for file in ((f"{i}.jpg", encoded(i)), texts[i])])
    for labels, _, notes in both(tmp_path):
        assert labels == [-1] * 6
        assert "6 different texts in the txt members are captions" in notes
    assert len(imgdata.index(tmp_path / "in", label_from="txt").classes) == 6


def test_lists_in_json_members_are_one_field_everywhere(tmp_path: Path) -> None:
    files = [file for i in range(2) for file in ((f"{i}.jpg", encoded(i)), (f"{i}.json", b"[1, 2]"))]
    write_tar(tmp_path / "in/a.tar", files)
    both(tmp_path)
    assert [imgdata.open(tmp_path / place)["train"][0].fields["json"] for place in ("in", "out")] == [[1, 2]] * 2


def test_folders_in_keys_that_are_splits_become_splits(tmp_path: Path) -> None:
    names = [f"{split}/{name}/{i}.jpg" for split in ("train", "val") for name in ("cat", "dog") for i in range(2)]
    write_tar(tmp_path / "d.tar", [(name, encoded(0)) for name in names])
    listing = list_source(tmp_path / "d.tar", SourceOptions(kind="tars"))
    assert (listing.splits, [one.id for one in listing.classes]) == (("train", "val"), ["cat", "dog"])
    assert listing.label_N.tolist() == [0, 0, 1, 1] * 2


def test_a_field_that_no_sample_has_is_refused_with_near_names(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", encoded(1)), ("1.json", b'{"class": 1}')])
    with pytest.raises(imgdata.OptionError, match=r"no sample has that field \(did you mean class\?\)"):
        list_source(path, SourceOptions(label_from="json:klass"))
    with pytest.raises(imgdata.OptionError, match="label_from 'cls': no sample has a label there"):
        list_source(path, SourceOptions(label_from="cls"))


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["x-00000-of-00002.tar", "x-00001-of-00002.tar"], []),
        (["x-00000-of-00002.tar"], ["1 part is missing of 2: x-00001-of-00002"]),
        (["x-00001-of-00002.tar", "x-00002-of-00002.tar"], []),  # counted from one
        (["x-0.tar", "x-2.tar"], ["1 part is missing among numbered files: x-1.tar"]),
        (["x-20190101.tar", "x-20210101.tar"], []),  # dates
    ],
)
def test_parts_that_are_missing(names: list[str], missing: list[str]) -> None:
    assert missing_parts(names) == missing
