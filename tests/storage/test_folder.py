"""The one door to a dataset's files."""

import pickle

import pytest

import imgdata
from imgdata.storage.folder import DatasetFolder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "clean.json").write_text("{}")
    (tmp_path / "a-train-000000.tar").write_bytes(b"0123456789")
    return DatasetFolder(tmp_path)


def test_a_file_is_read_whole_or_in_part(folder):
    assert folder.read("a-train-000000.tar") == b"0123456789"
    assert folder.read("a-train-000000.tar", 7) == b"789"
    assert folder.read("a-train-000000.tar", 2, 3) == b"234"
    assert folder.read("a-train-000000.tar", 8, 5) == b"89"
    assert folder.pool(["views/clean.json", "a-train-000000.tar"]).read(1, 0, 1) == b"0"


def test_files_are_listed_by_pattern(folder, tmp_path):
    assert folder.list() == ["a-train-000000.tar"]
    assert folder.list("views/*.json") == ["views/clean.json"]
    assert DatasetFolder(tmp_path / "none").list() == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../secret", "a/../../secret", "a\0b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder, name):
    for use in (folder.local, folder.read, lambda name: folder.pool([name])):
        with pytest.raises(imgdata.ShardError, match="a file of a dataset must lie in its folder, got the name"):
            use(name)


def test_it_can_be_pickled(folder):
    assert pickle.loads(pickle.dumps(folder)).path == folder.path


def test_places_all_over_several_files_are_read_together(tmp_path):
    for name, data in (("a", b"abcdefghij"), ("b", b"0123456789")):
        (tmp_path / name).write_bytes(data)
    pool = DatasetFolder(tmp_path).pool(["a", "b"])
    for _ in range(2):  # files that are not open, and files that are
        assert pool.read_each([0, 1, 0, 1], [0, 2, 8, 2], 2) == b"ab23ij23"
        assert pool.read_each([], [], 2) == b""
    # A file that ends before a place gives less: whoever asks sees it by the length.
    assert pool.read_each([0, 1], [9, 0], 2) == b"j01"
    with pytest.raises(FileNotFoundError):
        DatasetFolder(tmp_path).pool(["c"]).read_each([0], [0], 1)
