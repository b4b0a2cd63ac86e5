"""Parquet with image bytes: columns, class names, splits, random access, the spool."""

import json
import pickle
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgdata.errors import ImageError, OutputError, SourceError
from imgdata.sources.detect import list_source
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.parquet import source as parquet
from imgdata.sources.spool import spool

IMAGES = [bytes([number]) * (number + 1) for number in range(10)]


def listed(path: Path, **options: Any) -> Listing:
    return parquet.list_samples(path, SourceOptions(**options))


def write(
    path: Path,
    *,
    images: Sequence[bytes | None] = IMAGES,
    paths: list[str | None] | None = None,
    names: list[str] | None = None,
    group: int = 3,
    **columns: Any,
) -> Path:
    """Write a file as Hugging Face's datasets does; labels alternate unless given."""
    paths = paths or [f"{path.stem}_{row}.JPEG" for row in range(len(images))]
    structs = [{"bytes": data, "path": name} for data, name in zip(images, paths, strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns.setdefault("label", [row % 2 for row in range(len(images))])
    table = pa.table({"image": pa.array(structs, kind), **columns})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def contents(listing: Listing) -> list[bytes]:
    return [listing.reader.read(ref) for ref in listing.refs(range(len(listing)))]


def test_a_file_is_listed_with_true_sizes_and_read_by_row(tmp_path: Path) -> None:
    listing = listed(write(tmp_path / "pets.parquet", names=["cat", "dog"]))
    assert parquet.recognise(tmp_path / "pets.parquet") is not None
    assert [one.name for one in listing.classes] == ["cat", "dog"]
    assert listing.label_N.tolist() == [0, 1] * 5
    assert listing.size_N.tolist() == [len(data) for data in IMAGES]
    assert listing.name_N.to_pylist()[:2] == ["pets_0.JPEG", "pets_1.JPEG"]
    assert listing.key_N.to_pylist()[:2] == ["pets_0", "pets_1"]
    assert (listing.title, listing.splits, listing.given_splits) == ("pets", ("train",), False)
    assert contents(listing) == IMAGES


def test_what_datasets_writes_is_read(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    pictures = [Image.new("RGB", (8, 8), (value, value, value)) for value in (0, 255, 10)]
    data = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}, features=features)
    data.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    listing = listed(tmp_path)
    assert [one.id for one in listing.classes] == ["dark", "light"]
    assert listing.label_N.tolist() == [0, 1, 0]
    assert [data[:4] for data in contents(listing)] == [b"\x89PNG"] * 3
    # These images came without a path.
    assert listing.name_N[1].as_py() == "data/train-00000-of-00001.parquet[1]"


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], ("train",)),
        (["data/validation-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"], ("train", "val")),
        (["default/test/0000.parquet", "default/train/0000.parquet"], ("train", "test")),
    ],
)
def test_names_of_files_and_folders_give_the_splits(tmp_path: Path, files: list[str], splits: tuple[str, ...]) -> None:
    for number, file in enumerate(files):
        write(tmp_path / file, paths=[f"{number}/{row}.jpg" for row in range(10)])
    listing = listed(tmp_path)
    assert parquet.recognise(tmp_path) is not None
    assert (listing.splits, len(listing), listing.given_splits) == (splits, 20, True)
    assert contents(listing) == IMAGES * 2


def test_files_without_a_split_beside_others_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet")
    write(tmp_path / "extra.parquet")
    listing = listed(tmp_path)
    assert len(listing) == 10
    assert listing.skipped == {"Parquet files without a split in their name": 1}


@pytest.mark.parametrize(
    "paths", [["same.jpg"] * 10, [None] * 10, [*(f"{row}.jpg" for row in range(9)), None]]
)  # fmt: skip
def test_rows_are_named_by_number_where_paths_repeat_or_lack(tmp_path: Path, paths: list[str | None]) -> None:
    listing = listed(write(tmp_path / "a.b.parquet", paths=paths))
    assert listing.name_N.to_pylist()[8:] == ["a.b.parquet[8]", "a.b.parquet[9]"]
    assert listing.key_N.to_pylist()[8:] == ["a_b-8", "a_b-9"]


@pytest.mark.parametrize(
    ("labels", "ids", "codes"),
    [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        ([7, 30, 7], ["7", "30"], [0, 1, 0]),
        ([True, False, True], ["false", "true"], [1, 0, 1]),
    ],
)
def test_labels_without_names_are_sorted(tmp_path: Path, labels: list[Any], ids: list[str], codes: list[int]) -> None:
    listing = listed(write(tmp_path / "x.parquet", images=[b"1", b"2", b"3"], label=labels))
    assert [one.id for one in listing.classes] == ids
    assert listing.label_N.tolist() == codes


@pytest.mark.parametrize("names", [["a", "b"], None])
def test_a_split_has_labels_for_all_rows_or_for_none(tmp_path: Path, names: list[str] | None) -> None:
    write(tmp_path / "train.parquet", images=[b"1", b"4"], names=names, label=[1, 0])
    write(tmp_path / "test.parquet", images=[b"1", b"22"], names=names, label=[-1, None])
    listing = listed(tmp_path)
    assert (listing.splits, sorted(listing.label_N.tolist())) == (("train", "test"), [-1, -1, 0, 1])
    assert len(listing.classes) == 2
    assert listing.warnings == ("split test has no labels (2 images)",)
    write(tmp_path / "train.parquet", images=[b"1", b"22", b"3"], names=names, label=[1, None, -1])
    with pytest.raises(
        SourceError,
        match=r"train\.parquet: row 1: the label .* is empty, and so for 1 more, where others of split train",
    ):
        listed(tmp_path)


def test_a_test_split_may_lack_the_label_column(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    table = pq.read_table(tmp_path / "train.parquet").drop_columns(["label"])
    pq.write_table(table, tmp_path / "test.parquet")
    listing = listed(tmp_path)
    assert (listing.splits, listing.label_N.tolist()) == (("train", "test"), [-1] * 10 + [0, 1] * 5)


@pytest.mark.parametrize(
    "columns", [{"labels": [[0, 3], [], [1]]}, {"hat": [1, 0, 0], "smile": [0, 1, 0]}], ids=["list", "several"]
)
def test_several_labels_go_into_the_fields_of_unlabelled_images(tmp_path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table({"image": [b"1", b"2", b"3"], **columns}), tmp_path / "x.parquet")
    listing = listed(tmp_path)
    assert (listing.label_N.tolist(), listing.classes) == ([-1] * 3, ())
    assert [json.loads(ref.fields) for ref in listing.refs([0, 2])] == [
        {name: cells[row] for name, cells in columns.items()} for row in (0, 2)
    ]
    assert f"columns {', '.join(columns)} go into the json members" in listing.warnings[0]


def test_a_column_of_splits_goes_before_the_names_of_files(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", images=[b"1", b"2", b"3"], Split=["train", "validation", "train"])
    listing = listed(tmp_path)
    assert (listing.splits, listing.split_N.tolist(), listing.given_splits) == (("train", "val"), [0, 1, 0], True)
    assert listed(tmp_path, split_column="").splits == ("train",)


@pytest.mark.parametrize("cell", [None, "", "--"])
def test_an_empty_split_is_refused(tmp_path: Path, cell: str | None) -> None:
    write(tmp_path / "x.parquet", images=[b"1", b"2"], split=["train", cell])
    with pytest.raises(SourceError, match=r"row 1: the split \(column 'split'\) must be a word such as train or val"):
        listed(tmp_path)


def test_files_may_differ_in_further_columns(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", images=[b"1"], paths=["a"], note=["x"])
    write(tmp_path / "train-1.parquet", images=[b"2"], paths=["b"])
    assert [ref.fields for ref in listed(tmp_path).refs([0, 1])] == ['{"note":"x"}', ""]


@pytest.mark.parametrize("kind", [pa.null(), pa.binary()])
def test_paths_without_bytes_are_no_images(tmp_path: Path, kind: pa.DataType) -> None:
    cells = pa.array([{"bytes": None, "path": "0.jpg"}], pa.struct([("bytes", kind), ("path", pa.string())]))
    pq.write_table(pa.table({"image": cells, "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(
        SourceError, match=r"x\.parquet: column image\.bytes holds no image \(.*\): the images lie else"
    ):
        list_source(tmp_path, SourceOptions())


@pytest.mark.parametrize("plain", [False, True])
def test_of_several_columns_of_images_with_unusual_names_one_is_named(tmp_path: Path, plain: bool) -> None:
    columns = {name: [data if plain else {"bytes": data} for data in IMAGES] for name in ("left", "right")}
    pq.write_table(pa.table({**columns, "side": ["a", "b"] * 5}), tmp_path / "x.parquet")
    wanted = "can't tell which column holds" if plain else r"holds image bytes; name it with --image-column \(left, rig"
    with pytest.raises(SourceError, match=wanted):
        list_source(tmp_path, SourceOptions())
    for path in (tmp_path, tmp_path / "x.parquet"):
        listing = list_source(path, SourceOptions(image_column="right", label_column="side"))
        assert contents(listing) == IMAGES
        assert [one.name for one in listing.classes] == ["a", "b"]


def test_plain_bytes_other_names_and_further_columns_are_read(tmp_path: Path) -> None:
    columns = {
        "my.img": IMAGES,
        "thumb": IMAGES,
        "k": ["a", "b"] * 5,
        "tags": [[row, 1] for row in range(10)],
        "s": ["dev"] * 10,
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=4)
    listing = listed(tmp_path, image_column="my.img", label_column="k", split_column="s")
    assert contents(listing) == IMAGES
    assert listing.splits == ("val",)
    assert json.loads(next(listing.refs([3])).fields) == {"tags": [3, 1]}
    assert listing.warnings == ("column thumb holds bytes and is left out",)


@pytest.mark.parametrize(("wanted", "expected"), [("fine", [3, 1, 2]), ("coarse", [0, 0, 1])])
def test_cifar_100_labels_are_chosen_by_the_option(tmp_path: Path, wanted: str, expected: list[int]) -> None:
    columns: Mapping[str, Any] = {"img": [b"1", b"2", b"3"], "fine_label": [3, 1, 2], "coarse_label": [0, 0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    listing = listed(tmp_path, labels=wanted)
    assert [int(listing.classes[label].id) for label in listing.label_N] == expected


def test_any_order_of_reading_and_a_small_cache_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet")
    write(tmp_path / "train-1.parquet")
    listing = listed(tmp_path)
    reader = listing.reader
    assert isinstance(reader, parquet.ParquetReader)
    small = pickle.loads(pickle.dumps(parquet.ParquetReader(reader.files, reader.column, cache_bytes=40)))
    refs = list(listing.refs(range(len(listing))))
    for ref in random.Random(0).choices(refs, k=60):
        assert small.read(ref) == reader.read(ref) == IMAGES[ref.offset]
        kept = sum(group.nbytes for group in small._groups.values())
        assert kept <= 40 or len(small._groups) == 1


def test_a_row_without_an_image_is_a_bad_image_not_a_bad_file(tmp_path: Path) -> None:
    listing = listed(write(tmp_path / "x.parquet", images=[b"1", None, b"333", b""]))
    assert listing.size_N.tolist() == [1, 0, 3, 0]
    for ref in listing.refs([1, 3]):
        with pytest.raises(ImageError, match=r"empty: row [13] of x\.parquet holds no image"):
            listing.reader.read(ref)


def test_a_spool_keeps_everything_but_the_place(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "data" / f"train-{number}.parquet", images=[*IMAGES, None], extra=list(range(11)))
    listing = listed(tmp_path / "data")
    spooled = spool(listing, tmp_path / "blob")
    for row, (ref, other) in enumerate(zip(listing.refs(range(22)), spooled.refs(range(22)), strict=True)):
        assert (ref.name, ref.key, ref.label, ref.size, ref.fields) == (
            other.name, other.key, other.label, other.size, other.fields
        )  # fmt: skip
        assert spooled.reader.read(other) == [*IMAGES, b""][row % 11]
    assert (tmp_path / "blob").stat().st_size == 2 * sum(map(len, IMAGES))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blob", "data"]


def test_a_spool_of_any_rows_is_written_in_the_order_of_the_files(tmp_path: Path) -> None:
    listing = listed(write(tmp_path / "train.parquet"))
    assert np.all(np.diff(spool(listing, tmp_path / "blob").offset_N) > 0)
    assert (tmp_path / "blob").read_bytes() == b"".join(IMAGES)


def test_a_spool_that_fails_leaves_nothing(tmp_path: Path) -> None:
    listing = listed(write(tmp_path / "train.parquet"))
    with pytest.raises(OutputError, match="can't copy the images there: No such file or directory"):
        spool(listing, tmp_path / "nowhere" / "blob")
    write(tmp_path / "train.parquet", images=[b"?"] * 10)
    with pytest.raises(SourceError, match="it has changed"):
        spool(listed_again(listing), tmp_path / "blob")
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]


def listed_again(listing: Listing) -> Listing:
    """Return the reader as a worker gets it: with files not yet open."""
    return pickle.loads(pickle.dumps(listing))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": [b"1"], "b": [b"2"], "label": [0]}, {}, r"which column holds image bytes; name it with --image-column"),
        ({"image": [b"1"], "label": [0]}, {"image_column": "img"}, r"--image-column \(image, label\)"),
        ({"image": [b"1"]}, {}, r"no labels: no column 'label', nor another but 'image'; name it with --label-column"),
        ({"image": [b"1"], "label": [0]}, {"label_column": "kind"}, "no column 'kind'"),
        ({"image": [b"1"], "label": [[0]]}, {"label_column": "label"}, "'label' .*, which holds no single values"),
        ({"image": [b"1"], "label": [0]}, {"split_column": "part"}, "no column 'part'"),
        ({"image": [b"1"], "label": [-1]}, {}, r"row 0: the label \(column 'label'\) is -1, .*everywhere: no labels"),
        ({"image": [b"1"], "label": [-2]}, {}, "row 0: label -2 is outside of the classes"),
    ],
)
def test_missing_columns_and_labels_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, str], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=message):
        listed(tmp_path, **options)


def test_labels_outside_of_the_named_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", images=[b"1", b"2"], names=["a", "b"], label=[0, 2])
    with pytest.raises(SourceError, match=r"x\.parquet: row 1: label 2 is outside of the 2 classes of 'label'"):
        listed(tmp_path)


def test_files_of_different_classes_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", names=["a", "b"])
    write(tmp_path / "val.parquet", names=["b", "a"])
    with pytest.raises(SourceError, match=r"val\.parquet: columns or class names differ from those of train\.parquet"):
        listed(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.parquet", images=[bytes(10_000)] * 10).read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[: len(whole) // 2])
    for read in (listed, parquet.recognise):
        with pytest.raises(SourceError, match=r"x\.parquet: can't read this as Parquet"):
            read(tmp_path)
    with pytest.raises(SourceError, match=r"no \.parquet files there"):
        listed(tmp_path / "nothing")


def test_parquet_without_bytes_is_not_recognised(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"], "label": [0]}), tmp_path / "x.parquet")
    assert parquet.recognise(tmp_path) is None
    assert parquet.recognise(tmp_path / "x.parquet") is None
