"""ImageNet in all its layouts: one and the same listing, and clear errors where the parts contradict."""

import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import data
from imgdata.errors import ShardError, SourceError
from imgdata.sources.imagenet import source as imagenet
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions

OPTIONS = SourceOptions()
SMALL = data.imagenet(classes=4, per_class=5, val=8, size=(48, 36))
WNIDS = list(SMALL.names)


Writer = Callable[[Path, data.ImageNet], Path]


def content(listing: Listing, split: str) -> list[tuple[str, int, bytes]]:
    rows = np.flatnonzero(listing.split_N == listing.splits.index(split))
    return [(ref.key, ref.label, listing.reader.read(ref)) for ref in listing.refs(rows)]


def expected(split: str) -> list[tuple[str, int, bytes]]:
    if split == "val":
        return [(Path(file).stem, WNIDS.index(wnid), jpeg) for file, (wnid, jpeg) in SMALL.val.items()]
    return [
        (f"{wnid}/{Path(file).stem}", label, SMALL.train[wnid][file])
        for label, wnid in enumerate(WNIDS)
        for file in sorted(SMALL.train[wnid])
    ]


def flat(labels: str) -> Writer:
    return lambda root, source: data.write_imagenet_flat_val(root, source, labels=labels)


def class_tars_below_train(root: Path, source: data.ImageNet) -> Path:
    data.write_imagenet21k(root / "train", source)
    data.write_imagenet_folders(root / "rest", source)
    shutil.move(root / "rest/val", root / "val")
    shutil.rmtree(root / "rest")
    return root


def folders_and_val_tar(root: Path, source: data.ImageNet) -> Path:
    data.write_imagenet_official(root, source)
    (root / "ILSVRC2012_img_train.tar").unlink()
    data.write_imagenet_folders(root / "rest", source)
    shutil.move(root / "rest/train", root / "train")
    shutil.rmtree(root / "rest")
    return root


LAYOUTS: dict[str, Writer] = {
    "class folders": data.write_imagenet_folders,
    "flat val, devkit archive": flat("devkit"),
    "flat val, devkit folder": flat("folder"),
    "flat val, solution csv": flat("csv"),
    "official tars": data.write_imagenet_official,
    "kaggle": data.write_imagenet_kaggle,
    "kaggle, inner folder": lambda root, source: data.write_imagenet_kaggle(root, source) / "ILSVRC",
    "kaggle, innermost folder": lambda root, source: data.write_imagenet_kaggle(root, source) / "ILSVRC/Data/CLS-LOC",
    "train as class tars": class_tars_below_train,
    "train extracted, val as tar": folders_and_val_tar,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_keys_labels_bytes_and_order(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path / "data", SMALL)
    assert imagenet.recognise(path)
    listing = imagenet.list_samples(path, OPTIONS)
    assert (listing.title, listing.splits, listing.given_splits) == ("imagenet", ("train", "val"), True)
    assert [one.id for one in listing.classes] == WNIDS
    assert content(listing, "train") == expected("train")
    assert content(listing, "val") == expected("val")
    assert not listing.warnings


@pytest.mark.parametrize(
    ("layout", "named"),
    [("class folders", False), ("official tars", True), ("kaggle", True), ("flat val, devkit folder", True)],
)
def test_classes_have_readable_names_where_a_file_tells_them(tmp_path: Path, layout: str, named: bool) -> None:
    listing = imagenet.list_samples(LAYOUTS[layout](tmp_path / "data", SMALL), OPTIONS)
    assert [one.name for one in listing.classes] == (list(SMALL.names.values()) if named else WNIDS)


@pytest.mark.parametrize(
    ("layout", "train", "val"),
    [
        ("class folders", "train/{wnid}/{train}", "val/{val_wnid}/{val}"),
        ("flat val, solution csv", "train/{wnid}/{train}", "val/{val}"),
        ("official tars", "train/{wnid}/{train}", "val/{val}"),
        ("kaggle", "train/{wnid}/{train}", "val/{val}"),
    ],
)
def test_names_are_the_paths_that_people_know(tmp_path: Path, layout: str, train: str, val: str) -> None:
    listing = imagenet.list_samples(LAYOUTS[layout](tmp_path / "data", SMALL), OPTIONS)
    first_val = next(iter(SMALL.val))
    words = {
        "wnid": WNIDS[0],
        "train": min(SMALL.train[WNIDS[0]]),
        "val": first_val,
        "val_wnid": SMALL.val[first_val][0],
    }
    names = listing.name_N.to_pylist()
    assert (names[0], names[20]) == (train.format(**words), val.format(**words))


def test_ilsvrc_ids_are_not_taken_for_class_indices() -> None:
    assert all(SMALL.ilsvrc_ids[wnid] - 1 != rank for rank, wnid in enumerate(WNIDS))


def test_a_class_that_only_val_has_is_a_warning_without_devkit_and_an_error_with_one(tmp_path: Path) -> None:
    root = data.write_imagenet_folders(tmp_path, SMALL)
    data.write_file(root / "val/n01440000/a.JPEG", b"x")
    listing = imagenet.list_samples(root, OPTIONS)
    assert listing.warnings == ("classes without an image in train (1): n01440000",)
    assert [one.id for one in listing.classes] == ["n01440000", *WNIDS]
    data.write_devkit(root / "ILSVRC2012_devkit_t12", SMALL)
    with pytest.raises(SourceError, match=r"val: has 5 classes, and .* has 4; not in the latter \(1\): n01440000"):
        imagenet.list_samples(root, OPTIONS)


def test_images_of_other_val_sets_keep_their_class_in_the_key(tmp_path: Path) -> None:
    for wnid in WNIDS[:2]:
        data.write_file(tmp_path / "train" / wnid / "0.JPEG", b"a")
        data.write_file(tmp_path / "val" / wnid / "0.JPEG", b"b")
    listing = imagenet.list_samples(tmp_path, OPTIONS)
    assert listing.key_N.to_pylist() == [f"{wnid}/0{again}" for again in ("", "-1") for wnid in WNIDS[:2]]


@pytest.mark.parametrize("form", ["folder of class tars", "tar of class tars"])
def test_imagenet21k_is_read_from_its_class_tars(tmp_path: Path, form: str) -> None:
    path = data.write_imagenet21k(tmp_path / "21k", SMALL)
    if form == "tar of class tars":
        whole = tmp_path / "winter21_whole.tar"
        data.write_file(
            whole, data.tar_bytes({f"winter21_whole/{tar.name}": tar.read_bytes() for tar in path.iterdir()})
        )
        path = whole
    assert imagenet.recognise(path)
    listing = imagenet.list_samples(path, OPTIONS)
    assert (listing.title, listing.splits, listing.given_splits) == ("imagenet21k", ("train",), False)
    assert content(listing, "train") == expected("train")


def test_one_official_tar_alone_will_do(tmp_path: Path) -> None:
    root = data.write_imagenet_official(tmp_path, SMALL)
    train = imagenet.list_samples(root / "ILSVRC2012_img_train.tar", OPTIONS)
    val = imagenet.list_samples(root / "ILSVRC2012_img_val.tar", OPTIONS)
    assert (train.splits, val.splits) == (("train",), ("val",))
    assert content(train, "train") == expected("train")
    assert content(val, "val") == expected("val")


def test_wnid_folders_without_splits_are_one_split(tmp_path: Path) -> None:
    root = data.write_imagenet_folders(tmp_path, SMALL) / "train"
    listing = imagenet.list_samples(root, OPTIONS)
    assert not listing.given_splits
    assert content(listing, "train") == expected("train")


def test_tiny_imagenet_is_read(tmp_path: Path) -> None:
    for wnid in WNIDS[:2]:
        data.write_file(tmp_path / f"train/{wnid}/images/{wnid}_0.JPEG", b"train")
        data.write_file(tmp_path / f"train/{wnid}/{wnid}_boxes.txt", b"0 0 1 1")
    for number in range(2):
        data.write_file(tmp_path / f"val/images/val_{number}.JPEG", b"val")
        data.write_file(tmp_path / f"test/images/test_{number}.JPEG", b"test")
    data.write_file(
        tmp_path / "val/val_annotations.txt",
        "".join(f"val_{n}.JPEG\t{WNIDS[1 - n]}\t0\t0\t1\t1\n" for n in (0, 1)).encode(),
    )
    data.write_file(tmp_path / "words.txt", f"{WNIDS[0]}\ttench\n{WNIDS[1]}\tgoldfish\nn09999999\tother\n".encode())
    listing = imagenet.list_samples(tmp_path, OPTIONS)
    assert listing.label_N.tolist() == [0, 1, 0, 1]
    assert listing.name_N.to_pylist()[2:] == ["val/images/val_1.JPEG", "val/images/val_0.JPEG"]
    assert [one.name for one in listing.classes] == ["tench", "goldfish"]
    assert listing.skipped == {"not images (.txt)": 3, "test images without labels": 2}


def test_what_is_no_labelled_image_is_counted(tmp_path: Path) -> None:
    root = data.write_imagenet_kaggle(tmp_path / "kaggle", SMALL)
    base = root / "ILSVRC/Data/CLS-LOC"
    data.write_file(base / "train" / WNIDS[0] / ".DS_Store", b"x")
    data.write_file(base / "train" / WNIDS[0] / "notes.txt", b"x")
    listing = imagenet.list_samples(root, OPTIONS)
    assert listing.skipped == {"hidden files": 1, "not images (.txt)": 1, "test images without labels": 1}


def test_what_is_no_image_in_a_tar_is_counted(tmp_path: Path) -> None:
    tar = data.tar_bytes(
        {f"{WNIDS[0]}/b.JPEG": b"b", f"{WNIDS[0]}/a.JPEG": b"a", "._a.JPEG": b"x", "README": b"x", "x.txt": b"x"}
    )
    data.write_file(tmp_path / f"{WNIDS[0]}.tar", tar)
    listing = imagenet.list_samples(tmp_path, OPTIONS)
    assert listing.name_N.to_pylist() == [f"train/{WNIDS[0]}/a.JPEG", f"train/{WNIDS[0]}/b.JPEG"]
    assert listing.skipped == {"hidden files": 1, "not images (.txt)": 1, "not images (no extension)": 1}


def test_extracted_folders_win_over_the_tars_beside_them(tmp_path: Path) -> None:
    root = data.write_imagenet_official(tmp_path, SMALL)
    data.write_imagenet_folders(root, SMALL)
    data.write_file(root / "ILSVRC2012_img_test_v10102019.tar", b"")
    listing = imagenet.list_samples(root, OPTIONS)
    assert isinstance(listing.reader, imagenet.ImagenetReader)
    assert not listing.container_N.any()
    assert listing.skipped == {"official tars that are extracted beside": 2, "tars of test images without labels": 1}


@pytest.mark.parametrize("tar", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
@pytest.mark.parametrize("kept", [0, 700, 3 / 4])
def test_a_truncated_official_tar_names_file_and_byte(tmp_path: Path, tar: str, kept: float) -> None:
    root = data.write_imagenet_official(tmp_path, SMALL)
    size = (root / tar).stat().st_size
    os.truncate(root / tar, int(size * kept) if kept < 1 else int(kept))
    assert imagenet.recognise(root)
    with pytest.raises(ShardError, match=rf"{tar}: .*byte \d+"):
        imagenet.list_samples(root, OPTIONS)


def test_a_tar_that_shrinks_after_listing_is_named(tmp_path: Path) -> None:
    root = data.write_imagenet_official(tmp_path, SMALL)
    listing = imagenet.list_samples(root, OPTIONS)
    os.truncate(root / "ILSVRC2012_img_val.tar", 600)
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_val\.tar: ends inside val/ILSVRC2012_val_"):
        content(listing, "val")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"dogs.tar": b""}, r"must hold class tars such as n01440764\.tar, got dogs\.tar"),
        (
            {"n01440764.tar": data.tar_bytes({"a.JPEG": b"x"}), "b/n01440764.tar": data.tar_bytes({})},
            "holds n01440764 twice",
        ),
    ],
)
def test_a_train_tar_must_hold_class_tars(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    data.write_file(tmp_path / "ILSVRC2012_img_train.tar", data.tar_bytes(members))
    with pytest.raises(SourceError, match=message):
        imagenet.list_samples(tmp_path, OPTIONS)


def test_a_compressed_class_tar_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / f"{WNIDS[0]}.tar", "w:gz") as tar:
        tar.add(__file__, "a.JPEG")
    with pytest.raises(ShardError, match="compressed with gzip"):
        imagenet.list_samples(tmp_path, OPTIONS)


def test_the_reader_travels_to_workers(tmp_path: Path) -> None:
    listing = imagenet.list_samples(folders_and_val_tar(tmp_path, SMALL), OPTIONS)
    ref = next(listing.refs([0]))
    before = listing.reader.read(ref)
    assert pickle.loads(pickle.dumps(listing.reader)).read(ref) == before


def other_folders(root: Path) -> None:
    data.write_class_folders(root, {"train": 1, "val": 1}, classes=2, size=(8, 8))


def wnids_and_others(root: Path) -> None:
    data.write_class_folders(root, {"train": 1}, classes=[WNIDS[0], "mine"], size=(8, 8))


def flat_val_of_something(root: Path) -> None:
    data.write_file(root / "val/1.jpg", b"x")


def two_vals(root: Path) -> None:
    for split in ("val", "validation"):
        data.write_file(root / split / WNIDS[0] / "1.jpg", b"x")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (other_folders, "no ImageNet found"),
        (wnids_and_others, "no ImageNet found"),
        (flat_val_of_something, "no ImageNet found"),
        (two_vals, "val/ and validation/ are both val"),
        (lambda root: root.mkdir(), "no ImageNet found"),
        (lambda root: None, "no ImageNet found"),
        (lambda root: root.write_bytes(b"x"), "no ImageNet found"),
        (lambda root: data.write_file(root / "a.tar", b""), "no ImageNet found"),
    ],
)
def test_other_things_are_not_recognised(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "data")
    assert imagenet.recognise(tmp_path / "data") is None
    with pytest.raises(SourceError, match=message):
        imagenet.list_samples(tmp_path / "data", OPTIONS)


def test_a_split_that_is_not_imagenet_stops_the_listing_of_the_others(tmp_path: Path) -> None:
    root = data.write_imagenet_folders(tmp_path, SMALL)
    data.write_file(root / "val/mine/1.jpg", b"x")
    assert imagenet.recognise(root) is None
    with pytest.raises(SourceError, match=r"val/ must have a folder for each wnid .* use source 'folder'"):
        imagenet.list_samples(root, OPTIONS)
