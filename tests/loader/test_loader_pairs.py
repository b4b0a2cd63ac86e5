"""Pairs of pictures: the further one is cut, resized and mirrored as its picture is, whatever decodes it."""

import pytest
import torch

import imgdata
from imgdata import BadImageWarning, native
from imgdata.backends.cpu.native_rows import NativeRows
from imgdata.recipes import HorizontalFlip, RandomResizedCrop, Recipe, Resize, Rotate, VerticalFlip, views
from support.loaders import TRAIN
from support.rawdata import encoded
from support.tars import write_tar

CUT, SMALL = encoded(2, (66, 48))[:-200], encoded(3, (9, 9))
MOVED = Recipe(RandomResizedCrop(32), HorizontalFlip(), VerticalFlip())


def pairs(folder, others):
    """Pictures, each with a further one, `other`, that has an extension; of None a copy of the picture."""
    files = []
    for number, other in enumerate(others):
        picture = encoded(number, (64 + number, 48))
        extension, data = other or ("jpg", picture)
        files += [
            (f"{number:02d}.jpg", picture),
            (f"{number:02d}.cls", b"0"),
            (f"{number:02d}.other.{extension}", data),
        ]
    write_tar(folder / "pairs-train-000000.tar", files)
    imgdata.index(folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """JPEGs in colour, one of which is stored as PNG, one in gray, and one in CMYK."""
    stored = {3: ("png", "PNG", "RGB"), 5: ("jpg", "JPEG", "L"), 7: ("jpg", "JPEG", "CMYK")}
    others = {number: (end, encoded(number, (64 + number, 48), *how)) for number, (end, *how) in stored.items()}
    return pairs(tmp_path_factory.mktemp("pairs") / "out", [others.get(number) for number in range(16)])


def difference(batch, position, view=None):
    row = batch.positions.tolist().index(position)
    picture, other = (
        (batch.images, batch.columns["other"]) if view is None else (batch.images[view], batch.columns["other"][view])
    )
    return (picture[row].float() - other[row].float()).abs().mean()


def test_a_copy_of_the_picture_has_its_pixels(copies, backend):
    recipe = Recipe(Resize((40, 40)), HorizontalFlip(), VerticalFlip()) if backend == "resident" else MOVED
    with imgdata.Loader(copies, **{**TRAIN, "recipe": recipe}, joint=["other"]) as loader:
        for batch in loader:
            assert batch.columns["other"].dtype == torch.uint8
            assert batch.columns["other"].shape == batch.images.shape
            for position in set(batch.positions.tolist()) - {3, 5, 7}:
                # DALI and the resident store resize in ways of their own.
                assert difference(batch, position) < (0.01 if backend in ("native", "pillow") else 3)


def test_other_formats_are_made_one_by_one(copies):
    with imgdata.Loader(copies, **{**TRAIN, "recipe": MOVED}, joint=["other"]) as loader:
        batches = list(loader)
    for batch in batches:
        for position in {3, 7} & set(batch.positions.tolist()):
            assert difference(batch, position) < 25
        if 5 in batch.positions.tolist():
            gray = batch.columns["other"][batch.positions.tolist().index(5)]
            assert torch.equal(gray[0], gray[1])


def test_each_view_has_its_own_pixels_of_it(copies):
    several = views(MOVED, 2, Recipe(Resize((20, 24))))
    with imgdata.Loader(copies, **{**TRAIN, "recipe": several}, joint=["other"]) as loader:
        for batch in loader:
            assert [tuple(view.shape[1:]) for view in batch.columns["other"]] == [(3, 32, 32), (3, 20, 24), (3, 20, 24)]
            for position in set(batch.positions.tolist()) - {3, 5, 7}:
                assert max(difference(batch, position, view) for view in range(3)) < 0.01


@pytest.mark.skipif(not native.AVAILABLE, reason="needs the compiled extension")
@pytest.mark.parametrize(("recipe", "used"), [(MOVED, True), (Recipe(*MOVED.ops, Rotate(10)), False)])
def test_the_extension_makes_what_is_cut_and_resized_alone(copies, monkeypatch, recipe, used):
    made = []
    start = NativeRows.start

    def counted(self, views, work, lease, *rows):
        made.append(lease.member)
        return start(self, views, work, lease, *rows)

    monkeypatch.setattr(NativeRows, "start", counted)
    with imgdata.Loader(copies, **{**TRAIN, "recipe": recipe}, joint=["other"]) as loader:
        list(loader)
    assert ("other" in made) is used


def test_a_damaged_one_is_replaced_or_named(tmp_path, backend):
    data = pairs(tmp_path / "out", [None, None, ("jpg", CUT), ("jpg", SMALL), *[None] * 12])
    recipe = Recipe(Resize((40, 40)), HorizontalFlip()) if backend == "resident" else MOVED
    with imgdata.Loader(data, **{**TRAIN, "recipe": recipe}, joint=["other"]) as loader:
        with pytest.warns(BadImageWarning):
            batches = list(loader)
        found = {bad.position: bad.detail for bad in loader.bad}
    seen = [position for batch in batches for position in batch.positions.tolist()]
    assert len(seen) == 16
    assert not {2, 3} & set(seen)
    assert sorted(found) == [2, 3]
    assert all(detail.startswith("its other: ") for detail in found.values())
