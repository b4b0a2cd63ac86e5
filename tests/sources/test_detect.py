"""Which source reads a path: what is recognised, what wins, what is refused."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdata.errors import OptionError, SourceError
from imgdata.sources.detect import KINDS, detect, list_source, source
from imgdata.sources.options import SourceOptions

CSV = "path,label\ncat/1.jpg,cat\ndog/2.jpg,dog\n"


def plant(root: Path, files: Iterable[str]) -> Path:
    """Write each file with the content that its name promises: tables, tars, Parquet; else one byte."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix:
            case ".csv":
                path.write_text(CSV)
            case ".parquet":
                pq.write_table(pa.table({"image": [b"1"], "label": [0]}), path)
            case ".tar":
                plant_tar(path)
            case _:
                path.write_bytes(b"x")
    return root


def plant_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in (("a.jpg", b"x"), ("a.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def chosen(path: Path | str, **options: object) -> str:
    return detect(path, SourceOptions(**options)).NAME  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["cat/1.jpg", "dog/2.jpg"], "folder"),
        (["train/cat/1.jpg", "val/cat/2.jpg", "README.md"], "folder"),
        (["a/b/c/d/1.webp"], "folder"),
        (["a/1.heic", "b/2.jxl"], "folder"),
        (["1.jpg", "2.jpg"], "folder"),  # to say that labels are missing
        (["cat/1.jpg", "dog/2.jpg", "labels.csv"], "table"),  # a table says what folders only suggest
        (["data/train-00000-of-00001.parquet"], "parquet"),
        (["x-train-000000.tar"], "tars"),
        (["x-train-000000.tar", "labels.csv"], "tars"),
        (["train/n01440764/1.JPEG", "val/n01440764/2.JPEG"], "imagenet"),
        (["train/1.png", "trainLabels.csv"], "cifar"),
    ],
)
def test_usual_layouts_are_told_by_what_lies_there(tmp_path: Path, files: list[str], expected: str) -> None:
    assert chosen(plant(tmp_path, files)) == expected


@pytest.mark.parametrize(("file", "expected"), [("x.tar", "tars"), ("x.parquet", "parquet"), ("x.csv", "table")])
def test_a_file_is_told_by_its_content(tmp_path: Path, file: str, expected: str) -> None:
    assert chosen(plant(tmp_path, [file]) / file) == expected


def test_a_description_and_a_pattern_are_no_paths(tmp_path: Path) -> None:
    assert chosen("synthetic:samples=3") == "synthetic"
    assert len(list_source("synthetic:samples=3,val=2", SourceOptions())) == 5
    plant(tmp_path, ["x-0.tar", "x-1.tar"])
    assert chosen(f"{tmp_path}/x-{{0..1}}.tar") == "tars"


def test_the_source_can_be_named(tmp_path: Path) -> None:
    plant(tmp_path, ["cat/1.jpg", "dog/2.jpg", "labels.csv", "x.tar"])
    assert chosen(tmp_path, kind="folder") == "folder"
    assert list_source(tmp_path, SourceOptions(kind="folder")).kind == "folder"
    assert list_source(tmp_path, SourceOptions(kind="table")).kind == "table"
    assert list_source(str(tmp_path), SourceOptions(table=tmp_path / "labels.csv")).kind == "table"


def test_naming_columns_asks_for_a_table(tmp_path: Path) -> None:
    plant(tmp_path, ["images/1.jpg"])
    (tmp_path / "t.csv").write_text("name of file,mood\n1.jpg,glad\n")
    with pytest.raises(SourceError, match=r"t\.csv: can't tell which column holds the path"):
        chosen(tmp_path)
    assert chosen(tmp_path, label_column="mood") == "table"
    listing = list_source(tmp_path, SourceOptions(path_column="name of file", label_column="mood"))
    assert [one.id for one in listing.classes] == ["glad"]
    assert chosen(plant(tmp_path / "p", ["x.parquet", "a/1.jpg"]), label_column="label") == "parquet"


def test_unknown_sources_are_refused_with_the_list() -> None:
    with pytest.raises(OptionError, match=r"--source must be one of cifar, imagenet, .*synthetic, got 'folders'"):
        chosen("x", kind="folders")


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_keeps_the_protocol(kind: str, tmp_path: Path) -> None:
    module = source(kind)
    assert (module.NAME, module.recognise(tmp_path)) == (kind, None)


def test_several_layouts_are_left_to_the_user(tmp_path: Path) -> None:
    plant(tmp_path, ["cat/1.jpg", "x.tar", "x.parquet"])
    with pytest.raises(
        SourceError,
        match=r"several layouts fit, choose one with --source \(--source tars: .*--source parquet: .*--source folder: ",
    ):
        chosen(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "the folder is empty"),
        ([".DS_Store", ".git/config"], "the folder is empty but for 2 hidden entries"),
        (
            ["notes.txt", *(f"sub{i}/data.bin" for i in range(6))],
            r"(?s)no known layout\. Found there: sub0/, sub1/, sub2/, sub3/, sub4/ and 2 more\. --source of .*"
            r"Looked for:\n  cifar      CIFAR-10.*\n  folder     class folders: train/cat/1\.jpg",
        ),
    ],
)
def test_unknown_folders_are_refused_with_what_was_looked_for(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        chosen(plant(tmp_path, files))


CUT = {
    "x.parquet": r"x\.parquet: can't read this as Parquet",
    "x.tar": r"x\.tar: cut short: a\.cls at byte 1536 needs 1 bytes",
}


@pytest.mark.parametrize("file", CUT)
def test_damage_is_named_where_nothing_else_is_there(tmp_path: Path, file: str) -> None:
    whole = (plant(tmp_path, [file]) / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: 1536 if file == "x.tar" else len(whole) - 20])
    with pytest.raises(SourceError, match=rf"no known layout\. Seen and not understood: [^;]*{CUT[file]}[^;]*\. Found"):
        chosen(tmp_path)
    with pytest.raises(SourceError, match=CUT[file]):
        chosen(tmp_path / file)
    with pytest.raises(SourceError, match=rf"{CUT[file]}.*lies beside what can be read \(--source folder: .*mend it"):
        chosen(plant(tmp_path, ["cat/1.jpg", "dog/1.jpg"]))
    assert chosen(tmp_path, kind="folder") == "folder"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"1.jpg,cat\n2.jpg,dog\n", r"can't tell which column holds the path; name it with --path-column.*1\.jpg, cat"),
        (b"", "names: none"),
        ("path,label\n1.jpg,cat\n".encode("utf-16"), "not UTF-8 text, probably UTF-16"),
        (
            "path,label\n1.jpg,cat\n".encode("utf-16-le"),
            "probably UTF-16 .zero bytes in the first line at byte 1, line 1",
        ),
        (b"bild,klasse\n1.jpg,cat\n", "names: bild, klasse"),
    ],
    ids=["no header", "empty", "UTF-16", "UTF-16 without mark", "unusual names"],
)
def test_a_table_that_does_not_fit_is_named_beside_images(tmp_path: Path, table: bytes, message: str) -> None:
    plant(tmp_path / "flat", ["1.jpg", "2.jpg"])
    (tmp_path / "flat" / "a.csv").write_bytes(table)
    plant(tmp_path / "deep", ["cat/1.jpg", "dog/2.jpg"])
    for folder in ("flat", "deep"):
        (tmp_path / folder / "a.csv").write_bytes(table)
        with pytest.raises(SourceError, match=rf"a\.csv: .*{message}.*lies beside what can be read.*--source folder"):
            list_source(tmp_path / folder, SourceOptions())
    with pytest.raises(SourceError, match=rf"lies in no class folder.* Seen and not understood: .*a\.csv: .*{message}"):
        list_source(tmp_path / "flat", SourceOptions(kind="folder"))
    assert len(list_source(tmp_path / "deep", SourceOptions(kind="folder"))) == 2


def test_a_table_about_something_else_lies_beside_class_folders(tmp_path: Path) -> None:
    plant(tmp_path, ["cat/1.jpg", "dog/2.jpg"])
    (tmp_path / "prices.csv").write_text("animal,price\ncat,3\n")
    assert chosen(tmp_path) == "folder"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.tar.gz": "x"}, r"x\.tar\.gz: a packed archive; unpack it first"),
        ({"labels.csv.gz": "x"}, r"labels\.csv\.gz: a compressed table; unpack it first \(gunzip\)"),
        (
            {"t/data-0.arrow": "x", "t/state.json": "{}"},
            r"t/data-0\.arrow: an Arrow file of Hugging Face's save_to_disk",
        ),
        ({"train.txt": "a/1.jpg 0\na/2.jpg 1\n"}, r"train\.txt: a list of images; make it a CSV"),
        ({"labels.json": '[{"path": "a.jpg"}]'}, r"labels\.json: a JSON array; write one object a line"),
        ({"labels.json": '{"a.jpg": "cat"}'}, r"labels\.json: a JSON object of images"),
        ({"i.json": '{"images": [], "annotations": []}'}, r"i\.json: annotations in COCO's form"),
        ({"x.tfrecord": "x"}, r"x\.tfrecord: no TFRecord"),
        ({f"e{i:03d}/x.txt": "x" for i in range(90)} | {"z/y/1.jpg": "x"}, r"images lie in z/y/, among many folders"),
    ],
)
def test_what_no_source_reads_is_named_with_the_reason(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=rf"no known layout\. Seen and not understood: .*{message}.*Looked for"):
        chosen(tmp_path)


def test_lists_of_labels_that_are_not_read_are_noted(tmp_path: Path) -> None:
    plant(tmp_path, ["cat/1.jpg", "dog/2.jpg"])
    (tmp_path / "labels.json").write_text('[{"path": "cat/1.jpg", "label": "x"}]')
    assert any(
        "not used for labels: labels.json: a JSON array" in w for w in list_source(tmp_path, SourceOptions()).warnings
    )


def test_a_dataset_made_of_class_folders_and_left_among_them_is_not_taken_for_them(tmp_path: Path) -> None:
    plant(tmp_path, ["train/cat/1.jpg", "train/dog/2.jpg", "out/x.tar", "out/dataset.json"])
    assert chosen(tmp_path) == "folder"
    plant(tmp_path, ["other/y.tar"])
    with pytest.raises(SourceError, match="several layouts fit"):
        chosen(tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [("x.zip", "unpack it first"), ("x.txt", "no archive or table of a known dataset; give a folder of images")],
)
def test_unknown_files_are_refused(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        chosen(plant(tmp_path, [file]) / file)


@pytest.mark.parametrize("path", ["nowhere", "nowhere/x.tar", "no-{0..9}.tar"])
def test_a_missing_path_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        chosen(tmp_path / path)


def test_unlabelled_images_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no labels: 1\.jpg lies in no class folder; move images .*--table"):
        list_source(plant(tmp_path, ["1.jpg", "2.jpg"]), SourceOptions())


def test_a_column_of_splits_is_no_option_of_class_folders(tmp_path: Path) -> None:
    folders = plant(tmp_path, ["cat/1.jpg", "dog/2.jpg"])
    with pytest.raises(SourceError, match=r"no table .* in this folder; name one with --table"):
        list_source(folders, SourceOptions(split_column="fold"))
    assert list_source(folders, SourceOptions(split_column="")).kind == "folder"
