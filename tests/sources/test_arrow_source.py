"""Folders of Hugging Face's save_to_disk: what datasets writes, read in place; what is damaged or missing is named."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from PIL import Image

import imgdata
from imgdata import ShardOptions
from imgdata.errors import SourceError
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from support.loose import assert_the_same_in_place

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["dark", "light"]),
        "tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b"])),
        "caption": datasets.Value("string"),
    }
)


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def rows(count=5):
    return datasets.Dataset.from_dict(
        {
            "image": [Image.new("RGB", (8, 8), (value, value, 40)) for value in range(count)],
            "label": [number % 2 for number in range(count)],
            "tags": [[number % 2] for number in range(count)],
            "caption": [f"picture {number}" for number in range(count)],
        },
        features=FEATURES,
    )


def saved(path: Path) -> Path:
    both = datasets.DatasetDict(train=rows(), validation=rows().select([3, 0]))
    both.save_to_disk(path, num_shards={"train": 2, "validation": 1})
    return path


def listed(path, **options):
    return list_source(path, SourceOptions(**options))


def contents(listing):
    return [listing.reader.read(ref) for ref in listing.refs(range(len(listing)))]


def test_a_dataset_of_splits_is_listed_with_its_class_names_and_the_bytes_that_datasets_gives(tmp_path):
    listing = listed(saved(tmp_path / "photos"))
    assert (listing.kind, listing.title, listing.splits) == ("arrow", "photos", ("train", "val"))
    assert [one.name for one in listing.classes] == ["dark", "light"]
    assert listing.label_N.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert listing.split_N.tolist() == [0] * 5 + [1] * 2
    raw = datasets.load_from_disk(tmp_path / "photos").cast_column("image", datasets.Image(decode=False))
    assert contents(listing) == [row["image"]["bytes"] for split in raw.values() for row in split]
    assert listing.size_N.tolist() == [len(data) for data in contents(listing)]
    assert json.loads(listing.fields_N[1].as_py()) == {"tags": [1], "caption": "picture 1"}
    assert listing.name_N[2].as_py() == "train/data-00000-of-00002.arrow[2]"


def test_one_split_alone_is_train_and_its_targets_become_shards(tmp_path):
    rows().save_to_disk(tmp_path / "one")
    imgdata.shard(
        tmp_path / "one",
        tmp_path / "out",
        options=ShardOptions(),
        read=SourceOptions(target="multi-label", label_column="tags"),
    )
    dataset = imgdata.open(tmp_path / "out")
    assert list(dataset.splits) == ["train"]
    assert [one.name for one in dataset.classes] == ["a", "b"]


def test_a_saved_folder_is_opened_in_place(tmp_path):
    assert_the_same_in_place(saved(tmp_path / "photos"), tmp_path / "out")


def test_names_beside_the_bytes_become_keys_where_all_differ(tmp_path):
    rows = [{"bytes": b"x" * (number + 1), "path": f"cats/{number}.jpg"} for number in range(3)]
    data = datasets.Dataset.from_dict({"image": rows, "label": [0, 1, 0]})
    data.save_to_disk(tmp_path / "named")
    assert listed(tmp_path / "named").key_N.to_pylist() == ["cats/0", "cats/1", "cats/2"]


def cut(folder):
    file = folder / "train" / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-100])


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def compress(folder):
    file = folder / "train" / "data-00001-of-00002.arrow"
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"data-00001-of-00002\.arrow: cut short"),
        (compress, r"data-00001-of-00002\.arrow: its images are compressed"),
        (lambda folder: (folder / "train" / "data-00001-of-00002.arrow").unlink(), r"train: data-00001.* missing"),
        (lambda folder: (folder / "train" / "state.json").unlink(), r"train: has no state\.json"),
        (lambda folder: (folder / "train" / "state.json").write_text("{"), r"state\.json: can't read this file"),
        (lambda folder: change(folder / "train" / "state.json", _data_files=[{"filename": "../x"}]), r"must name the"),
        (lambda folder: change(folder / "train" / "state.json", _indices_data_files=["x"]), r"an old form"),
        (lambda folder: change(folder / "dataset_dict.json", splits=["../x"]), r"must name the splits"),
    ],
    ids=["cut", "compressed", "missing", "no state", "no JSON", "outside", "old", "splits"],
)
def test_a_damaged_folder_is_one_clear_error(tmp_path, damage, message):
    damage(saved(tmp_path / "photos"))
    with pytest.raises(SourceError, match=message):
        listed(tmp_path / "photos")


def test_files_beside_are_counted(tmp_path):
    folder = saved(tmp_path / "photos")
    (folder / "notes.txt").write_text("x")
    (folder / "train" / "cache-0.arrow").write_bytes(b"x")
    assert listed(folder).skipped == {"other entries beside the splits": 1, "other files beside the Arrow files": 1}
