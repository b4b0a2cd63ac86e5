"""Labels of batches where the target isn't one class: on every backend, mixed, resumed, in ranks, with bad images."""

from pathlib import Path

import pytest
import torch

import imgdata
from imgdata.recipes import CutMix, MixUp
from support.loaders import as_saved, damaged, loader
from support.targets import expected, made, raw_table

KINDS = {"multi-label": "tags", "soft": "p,q", "regression": "age"}


@pytest.fixture(scope="module", params=KINDS)
def targets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A kind of target, and a dataset of it; not to be changed."""
    return request.param, made(tmp_path_factory.mktemp("targets"), request.param, KINDS[request.param])


def own(kind: str, batch: imgdata.Batch) -> torch.Tensor:
    """The targets of the samples at the batch's positions."""
    return torch.tensor([expected(kind, position) for position in batch.positions.tolist()], dtype=torch.float32)


def test_labels_are_the_targets_in_float32(targets, backend):
    kind, folder = targets
    with loader(folder) as batches:
        for images, labels in batches:
            assert len(images) == len(labels)
        for batch in batches:
            assert batch.labels.dtype == torch.float32
            assert torch.equal(batch.labels, own(kind, batch))


@pytest.mark.parametrize("op", [MixUp(alpha=1.0), CutMix(alpha=1.0)])
def test_targets_are_mixed_as_the_pictures_are(targets, backend, op):
    kind, folder = targets
    with loader(folder, more=[op]) as batches:
        for batch in batches:
            plain = own(kind, batch)
            other = plain.reshape(4, 2, -1).flip(1).reshape(plain.shape)
            apart = plain - other
            share = float(((batch.labels - other) * apart).sum() / (apart * apart).sum())
            assert torch.allclose(batch.labels, share * plain + (1 - share) * other, atol=1e-4)
            assert -1e-4 <= share <= 1 + 1e-4


def test_a_resume_with_other_ranks_has_the_same_targets(targets):
    _, folder = targets
    with loader(folder) as batches:
        taken = iter(batches)
        next(taken)
        state = as_saved(batches.state_dict())
        rest = [row for batch in taken for row in batch.labels.tolist()]
    found = [[], []]
    for rank in range(2):
        with loader(folder, batch_size=4, rank=rank, world_size=2) as batches:
            batches.load_state_dict(state)
            found[rank] = [batch.labels.tolist() for batch in batches]
    assert [row for parts in zip(*found, strict=True) for part in parts for row in part] == rest


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_skipped_adds_no_class_and_leaves_numbers_alone(tmp_path, kind):
    folder = raw_table(tmp_path / "raw", 8)
    (folder / "001.jpg").write_bytes(damaged(1))
    options = {"target": kind, "label_column": KINDS[kind]}
    imgdata.shard(folder, tmp_path / "out", check="header", shuffle=False, **options)
    options = {"shuffle": "none", "on_bad": "skip", "more": [MixUp(alpha=1.0)]}
    with loader(tmp_path / "out", **options) as batches, pytest.warns(imgdata.BadImageWarning):
        (batch,) = batches
    plain = own(kind, batch)
    if kind == "regression":
        assert batch.labels[0] == plain[0]
    else:
        lam = batch.labels[0].sum() / plain[0].sum()
        assert 0 < float(lam) < 1
        assert torch.allclose(batch.labels[0], lam * plain[0])


def test_a_saved_state_is_refused_after_a_relabel(tmp_path, monkeypatch):
    folder = made(tmp_path / "data", "regression", "age", 16)
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("key,label\n003,9\n")
    with loader(folder) as batches:
        state = batches.state_dict()
    with (
        loader(folder, view="relabel=new.csv") as batches,
        pytest.raises(imgdata.OptionError, match="saved with another dataset"),
    ):
        batches.load_state_dict(state)
