"""The viewer on a dataset in an object store: the answers of the same dataset in a folder."""

import pytest

from support.viewer_sites import site


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IMGDATA_DATA", str(tmp_path / "data"))


def test_samples_pictures_and_members_are_those_of_the_folder(s3, zoo):
    url = s3.upload(zoo, "zoo")
    with site(zoo) as here, site(url) as there:
        for number in (3, 21):
            assert there.json(f"/api/sample/{number}") == here.json(f"/api/sample/{number}")
        assert len(there.json("/api/sample/3")["members"]) == 2
        for path in ("/picture/7", "/thumb/5/64", "/augmented/4/0"):
            assert there.get(path) == here.get(path)
        assert there.json("/api/dataset")["folder"] == url
