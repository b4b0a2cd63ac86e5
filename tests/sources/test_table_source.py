"""Tables of (path, label[, split]): columns, labels, files, and the errors for all their faults."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgdata.errors import ImageError, SourceError
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.table import source as table
from imgdata.sources.table.rows import fields_json

IMAGES = ("a.jpg", "b.jpg", "c.png")


def plant(root: Path, files: Iterable[str] = IMAGES, **tables: str) -> Path:
    """Write images, each one byte longer than the last, and tables: `train_csv="..."` becomes `train.csv`."""
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(bytes(number + 1))
    for name, text in tables.items():
        stem, _, suffix = name.rpartition("_")
        (root / f"{stem}.{suffix}").write_text(text, encoding="utf-8", newline="")
    return root


def listed(path: Path, **options: object) -> Listing:
    return table.list_samples(path, SourceOptions(**options))  # type: ignore[arg-type]


def rows(listing: Listing) -> list[tuple[str, str, str]]:
    """Return (split, name, class id) of every sample, in order."""
    refs = listing.refs(range(len(listing)))
    return [
        (listing.splits[split], ref.name, listing.classes[ref.label].id)
        for split, ref in zip(listing.split_N.tolist(), refs, strict=True)
    ]


ABC = [("train", "a.jpg", "cat"), ("train", "b.jpg", "dog"), ("train", "c.png", "cat")]


@pytest.mark.parametrize(
    "tables",
    [
        {"labels_csv": "path,label\na.jpg,cat\nb.jpg,dog\nc.png,cat\n"},
        # byte order mark, quotes, CRLF, blank line at the end, other case and order
        {"labels_csv": '\ufeff"Label","File Name"\r\n"cat",a.jpg\r\ndog,"b.jpg"\r\ncat,c.png\r\n\r\n'},
        {"labels_csv": "image;class\na.jpg;cat\nb.jpg;dog\nc.png;cat"},
        {"labels_csv": "id\tcategory\na.jpg\tcat\nb.jpg\tdog\nc.png\tcat"},
        {"labels_tsv": "image_id\ttarget\na\tcat\nb\tdog\nc\tcat\n"},
        {"labels_jsonl": '{"file_name":"./a.jpg","label":"cat"}\n{"label":"dog","file_name":"b.jpg"}\n\n'
                         '{"file_name":"x/../c.png","label":"cat"}\n'},
        # another table in the folder is about something else
        {"a_csv": "path,label\na.jpg,cat\nb.jpg,dog\nc.png,cat\n", "classes_csv": "id,word\n1,one\n"},
    ],
)  # fmt: skip
def test_usual_tables_are_understood(tmp_path: Path, tables: dict[str, str]) -> None:
    plant(tmp_path, **tables)
    assert table.recognise(tmp_path) is not None
    listing = listed(tmp_path)
    assert rows(listing) == ABC
    assert not listing.given_splits
    assert [listing.reader.read(ref) for ref in listing.refs(range(3))] == [bytes(1), bytes(2), bytes(3)]


def test_parquet_tables_are_understood(tmp_path: Path) -> None:
    plant(tmp_path)
    columns = {"path": ["a.jpg", "b.jpg", "c.png"], "label": ["cat", "dog", "cat"], "thumbnail": [b"1", b"2", b"3"]}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    assert table.recognise(tmp_path) is not None
    listing = listed(tmp_path)
    assert rows(listing) == ABC
    assert listing.fields_N is None


@pytest.mark.parametrize("beside", [True, False])
def test_the_table_can_be_named_or_be_the_path(tmp_path: Path, beside: bool) -> None:
    plant(tmp_path / "images")
    home = tmp_path / "images" if beside else tmp_path
    text = f"path,label\n{tmp_path}/images/a.jpg,cat\nb.jpg,dog\nc.png,cat\n"
    plant(home, [], one_csv=text, two_csv=text)
    assert rows(listed(tmp_path / "images", table=home / "one.csv")) == ABC
    if beside:
        assert table.recognise(home / "one.csv") is not None
        assert rows(listed(home / "one.csv")) == ABC
        assert (listed(home / "one.csv").title, listed(home, table=home / "one.csv").title) == ("one", "images")


def test_columns_can_be_named(tmp_path: Path) -> None:
    plant(tmp_path, labels_csv="label,path,part,truth,f\nx,p,dev,cat,a.jpg\ny,q,train,dog,b.jpg\n")
    listing = listed(tmp_path, path_column="f", label_column="truth", split_column="part")
    assert rows(listing) == [("val", "a.jpg", "cat"), ("train", "b.jpg", "dog")]
    assert listing.splits == ("train", "val")


@pytest.mark.parametrize(
    ("cells", "splits"),
    [
        (("train", "valid", "TEST"), ("train", "val", "test")),
        (("test", "train", "my extra"), ("train", "test", "my_extra")),
        (("0", "1", "0"), ("split0", "split1")),
    ],
)
def test_a_column_gives_the_splits(tmp_path: Path, cells: tuple[str, ...], splits: tuple[str, ...]) -> None:
    lines = [f"{name},x,{cell}" for name, cell in zip(IMAGES, cells, strict=True)]
    listing = listed(plant(tmp_path, t_csv="\n".join(["path,label,split", *lines])))
    assert listing.splits == splits
    assert listing.given_splits


@pytest.mark.parametrize(
    ("labels", "ids", "warned"),
    [
        (["2", "0", "1"], ["0", "1", "2"], False),
        (["10", "9", "9"], ["9", "10"], True),  # by number, not by text
        (["1", "2", "1"], ["1", "2"], True),
        (["007", "10", "9"], ["007", "9", "10"], False),
        (["b", "a", "1"], ["1", "a", "b"], False),
    ],
)
def test_classes_are_the_sorted_labels(tmp_path: Path, labels: list[str], ids: list[str], warned: bool) -> None:
    lines = [f"{name},{label}" for name, label in zip(IMAGES, labels, strict=True)]
    listing = listed(plant(tmp_path, t_csv="\n".join(["path,label", *lines])))
    assert [one.id for one in listing.classes] == ids
    assert [ids[label] for label in listing.label_N] == labels
    assert any("class index is the rank" in text for text in listing.warnings) is warned


def test_whole_floats_of_other_formats_are_numbers(tmp_path: Path) -> None:
    plant(tmp_path)
    pq.write_table(pa.table({"path": list(IMAGES), "label": [1.0, 0.0, 1.0]}), tmp_path / "t.parquet")
    assert listed(tmp_path).label_N.tolist() == [1, 0, 1]


def test_further_columns_are_kept_as_json(tmp_path: Path) -> None:
    text = "path,label,red,note,score,code,none\na.jpg,x,1,häs “quotes”,0.5,007,\nb.jpg,x,-2,NaN,1e-3,1e999,\n"
    listing = listed(plant(tmp_path, t_csv=text))
    assert listing.has_fields
    assert [json.loads(ref.fields) for ref in listing.refs([0, 1])] == [
        {"red": 1, "note": "häs “quotes”", "score": 0.5, "code": "007", "none": None},
        {"red": -2, "note": "NaN", "score": 0.001, "code": "1e999", "none": None},
    ]


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    lines = ['{"path":"a.jpg","label":1,"tags":["x",2],"n":"5"}', '{"path":"b.jpg","label":0,"more":NaN}']
    listing = listed(plant(tmp_path, t_jsonl="\n".join(lines)))
    assert [json.loads(ref.fields) for ref in listing.refs([0, 1])] == [{"tags": ["x", 2], "n": "5"}, {"more": None}]
    assert listing.label_N.tolist() == [1, 0]


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1))
def test_guessed_fields_lose_nothing_but_notation(row: dict[str, str]) -> None:
    fields = json.loads(fields_json(row, frozenset(), guess_numbers=True))
    assert fields.keys() == row.keys()
    for name, text in row.items():
        match fields[name]:
            case None:
                assert text == ""
            case str():
                assert fields[name] == text
            case number:
                assert float(text) == number


@pytest.mark.parametrize(
    ("files", "tables", "names"),
    [
        # one subfolder has the images
        (["images/a.jpg", "images/b.jpg"], {"t_csv": "id,label\na,x\nb,y\n"}, ["images/a.jpg", "images/b.jpg"]),
        # the folder has the name of the table
        (["train/a.jpg", "test/a.jpg"], {"train_csv": "id,label\na,x\n"}, ["train/a.jpg"]),
        # Windows separators
        (["images/a.jpg"], {"t_csv": "id,label\nimages\\a.jpg,x\n"}, ["images/a.jpg"]),
        # missing extensions may differ
        (["a.JPEG", "b.png", "c.tif", "d.1.jpg"], {"t_csv": "id,label\na,x\nb,x\nc,x\nd.1,x\n"},
         ["a.JPEG", "b.png", "c.tif", "d.1.jpg"]),
    ],
)  # fmt: skip
def test_files_are_found(tmp_path: Path, files: list[str], tables: dict[str, str], names: list[str]) -> None:
    assert listed(plant(tmp_path, files, **tables)).name_N.to_pylist() == names


def test_tables_of_splits_are_splits(tmp_path: Path) -> None:
    head = "path,label\n"
    plant(tmp_path, train_csv=head + "a.jpg,x\nb.jpg,y\n", my_val_csv=head + "c.png,y\n")
    assert rows(listed(tmp_path)) == [("val", "c.png", "y"), ("train", "a.jpg", "x"), ("train", "b.jpg", "y")]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_metadata_files_in_split_folders_are_splits(tmp_path: Path, form: str) -> None:
    for split, label in (("train", "x"), ("test", "y")):
        text = {"csv": f"file_name,label\na.jpg,{label}\n", "jsonl": f'{{"file_name":"a.jpg","label":"{label}"}}\n'}
        plant(tmp_path / split, ["a.jpg"], **{f"metadata_{form}": text[form]})
    assert table.recognise(tmp_path) is not None
    listing = listed(tmp_path)
    assert sorted(rows(listing)) == [("test", "test/a.jpg", "y"), ("train", "train/a.jpg", "x")]
    assert listing.key_N.to_pylist() == ["a", "a-1"]
    assert listing.warnings == ("1 of the classes in test are not in train: y",)


def test_images_that_the_table_does_not_name_are_counted(tmp_path: Path) -> None:
    listing = listed(plant(tmp_path, t_csv="path,label\na.jpg,x\n", notes_txt="hello"))
    assert listing.skipped == {"images that the table doesn't name": 2, "not images (.txt)": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,split\na.jpg,train\n", r"no labels: .*holds the label; name it with --label-column.*names: file, split"),
        ("where,label\na.jpg,red\n", r"holds the path; name it with --path-column.*names: where, label"),
        ("a.jpg,cat\nb.jpg,dog\n", r"first line must name the columns, and names: a\.jpg, cat"),
        ("", "names: none"),
        ("path,label,label\na.jpg,x,y\n", "must name each column once"),
        ("path,label\na.jpg,x\nb.jpg,\n", r"t\.csv: line 3: the label \(column 'label'\) is empty"),
        ("path,label\n,x\n", r"t\.csv: line 2: the path \(column 'path'\) is empty; name another column"),
        ("path,label\na.jpg\n", "line 2 has 1 cells, the first line names 2"),
        ('path,label\n"a.jpg,x\n', "not CSV: unexpected end of data"),
        (
            "path,label\na.jpg,0\nb.jpg,-1\n",
            r"line 3: the label \(column 'label'\) is -1, which says that there is none",
        ),
        ("path,label\na.jpg,0\nb.jpg,-2\n", "line 3: label -2 is outside of the classes"),
        ("path,label\n../a.jpg,0\n", r"line 2: \.\./a\.jpg lies outside"),
        (
            "path,label\na.jpg,0\na.jpg,1\n",
            r"1 rows name the file of an earlier row, such as a\.jpg \(labels 0 and 1\)",
        ),
        ("path,label\na.jpg,0\na,0\n", "1 rows name the file of an earlier row"),
        ("path,label,split\na.jpg,0,\n", "line 2: the split .* must be a word"),
        (
            "path,label\n" + "".join(f"no{i}.jpg,x\n" for i in range(5)) + "a.jpg,x\n",
            r"5 of the files are not in .*such as no0\.jpg, no1\.jpg, no2\.jpg; paths count from there",
        ),
        ("path,label\n", "no images found"),
    ],
)
def test_faults_in_a_table_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        listed(plant(tmp_path, t_csv=text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 must be a JSON object, got list"),
        ('{"path":"b.jpg","label":[1,2]}', "line 2: the label .* holds a list; each image needs one label"),
        ('{"path":"b.jpg"}', "line 2: the label .* is empty"),
        ('{"path":"b.jpg","label":NaN}', "line 2: the label .* is empty"),
    ],
)
def test_faults_in_json_lines_are_named_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        listed(plant(tmp_path, t_jsonl='{"path":"a.jpg","label":1}\n' + line))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", r"not UTF-8 text \(invalid continuation byte at byte 40018, line 2\); save it as UTF-8"),
        ("utf-16", "not UTF-8 text, probably UTF-16 .* at byte 0, line 1"),
        ("utf-16-le", "not UTF-8 text, probably UTF-16 .* at byte 80036, line 2"),
    ],
)
def test_a_table_of_another_encoding_is_refused(tmp_path: Path, encoding: str, message: str) -> None:
    plant(tmp_path)
    # The fault comes after the part that is read at once.
    (tmp_path / "t.csv").write_bytes(f"path,label\na.jpg,{'x' * 40_000}Käfer\n".encode(encoding))
    with pytest.raises(SourceError, match=message):
        listed(tmp_path)


def test_a_damaged_parquet_table_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, t_parquet="path,label")
    with pytest.raises(SourceError, match="can't read this as Parquet"):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "colour"}, r"no column 'colour' \(--label-column\); it has: path, label"),
        ({"path_column": "where"}, r"no column 'where' \(--path-column\)"),
        ({"split_column": "part"}, r"no column 'part' \(--split-column\)"),
        ({"table": Path("nowhere.csv")}, r"nowhere\.csv: no such table"),
    ],
)
def test_wrong_options_name_what_there_is(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        listed(plant(tmp_path, t_csv="path,label\na.jpg,x\n"), **options)


def test_which_table_or_folder_must_be_clear(tmp_path: Path) -> None:
    text = "path,label\na.jpg,x\n"
    with pytest.raises(SourceError, match=r"several tables \(one\.csv, two\.csv\); name one with --table"):
        listed(plant(tmp_path / "x", one_csv=text, two_csv=text))
    with pytest.raises(SourceError, match=r"a\.jpg is in several folders \(p/, q/\)"):
        listed(plant(tmp_path / "y", ["p/a.jpg", "q/a.jpg"], one_csv=text))
    with pytest.raises(SourceError, match="no table"):
        listed(plant(tmp_path / "z"))


@pytest.mark.parametrize("name", ["t.txt", "t.csv"])
def test_what_is_no_table_of_images_is_not_recognised(tmp_path: Path, name: str) -> None:
    plant(tmp_path)
    (tmp_path / name).write_text("hello\nworld\n")
    for path in (tmp_path, tmp_path / name):
        if name == "t.txt":
            assert table.recognise(path) is None
        else:
            with pytest.raises(SourceError, match=r"t\.csv: can't tell which column holds the path.*names: hello"):
                table.recognise(path)


def test_a_column_of_words_is_no_column_of_splits(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(300)]
    plant(tmp_path, names, t_csv="path,label,split\n" + "".join(f"{name},x,word {name}\n" for name in names))
    with pytest.raises(SourceError, match=r"line 257: column 'split': more than 255 splits, .*--split-column '' for"):
        listed(tmp_path)
    listing = listed(tmp_path, split_column="")
    assert (listing.splits, listing.given_splits, listing.has_fields) == (("train",), False, True)


@pytest.mark.parametrize(("cell", "split"), [("[1]", None), ("1.0", "split1"), ('" Val "', "val"), ("null", None)])
def test_cells_of_splits_are_words_or_numbers(tmp_path: Path, cell: str, split: str | None) -> None:
    plant(tmp_path, t_jsonl=f'{{"path":"b.jpg","label":0,"split":"x"}}\n{{"path":"a.jpg","label":0,"split":{cell}}}')
    if split:
        assert split in listed(tmp_path).splits
        return
    with pytest.raises(SourceError, match=r"line 2: the split \(column 'split'\) (holds a list|must be a word)"):
        listed(tmp_path)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1, max_size=8)
)
def test_any_text_is_a_label(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    root = plant(tmp_path_factory.mktemp("t"), [f"{i}.jpg" for i in range(len(labels))])
    lines = [json.dumps({"path": f"{i}.jpg", "label": f"={label}"}) for i, label in enumerate(labels)]
    (root / "t.jsonl").write_text("\n".join(lines))
    listing = listed(root)
    ids = [listing.classes[label].id for label in listing.label_N]
    expected = [f"={label}".strip() for label in labels]
    assert len(set(ids)) == len(set(expected))
    assert [a == b for a in ids for b in ids] == [a == b for a in expected for b in expected]
    assert [one.id for one in listing.classes] == sorted(one.id for one in listing.classes)


def test_a_few_missing_files_are_rejected_and_a_missing_folder_is_refused(tmp_path: Path) -> None:
    table_text = "path,label\n" + "".join(f"{name},x\n" for name in IMAGES) + "gone.jpg,x\n"
    plant(tmp_path, t_csv=table_text)
    listing = listed(tmp_path)
    assert [ref.name for ref in listing.refs(range(len(listing))) if not ref.size] == ["gone.jpg"]
    assert any("1 of the files is not in" in w and "gone.jpg: rejected as missing" in w for w in listing.warnings)
    with pytest.raises(ImageError, match="missing: there is no such file"):
        listing.reader.read(next(listing.refs([len(IMAGES)])))
    assert "gone.jpg" not in listed(tmp_path, exclude=("gone.jpg",)).name_N.to_pylist()
    (tmp_path / "t.csv").write_text("path,label\na/1.jpg,x\na/2.jpg,x\n")
    with pytest.raises(SourceError, match="2 of the files are not in"):
        listed(tmp_path)


def test_quantities_are_no_classes_unless_the_column_is_named(tmp_path: Path) -> None:
    plant(tmp_path, [f"{i}.jpg" for i in range(9)])
    (tmp_path / "t.csv").write_text("id,target\n" + "".join(f"{i},{i * 0.137:.3f}\n" for i in range(9)))
    with pytest.raises(SourceError, match=r"9 numbers such as .* for 9 images: quantities.*--label-column ''"):
        listed(tmp_path)
    listing = listed(tmp_path, label_column="")
    assert (set(listing.label_N.tolist()), next(listing.refs([1])).fields) == ({-1}, '{"target":0.137}')
    assert len(listed(tmp_path, label_column="target").classes) == 9
