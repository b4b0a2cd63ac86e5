"""Accelerate leaves our loaders as they are: alone, with saved states, and as two ranks. A script as well."""

import json
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

from imgdata.errors import OptionError
from support.plugin_pages import changed
from support.plugin_training import VAL_SAMPLES, leave, run_ranks, tiny_model, train_loader, val_loader
from support.plugin_training import pets as pets

BEFORE = """
accelerator = Accelerator()
train_loader = DataLoader(train_set, batch_size=256, shuffle=True, num_workers=8)
val_loader = DataLoader(val_set, batch_size=256, num_workers=8)
model, optimizer, train_loader, val_loader = accelerator.prepare(model, optimizer, train_loader, val_loader)
for epoch in range(90):
    for batch in train_loader:
        trained.append(step(accelerator, model, optimizer, batch))
    seen.append([])
    for batch in val_loader:
        answers = model(batch[0]).argmax(1)
        answers, labels = accelerator.gather_for_metrics((answers, batch[1]))
        seen[-1] += labels.tolist()
"""


@pytest.fixture(autouse=True)
def fresh_state():
    """Accelerate, and with it `transformers.Trainer`, keeps its state for the whole process."""
    _reset()
    yield
    _reset()


def _reset():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def setting(folder):
    """What a script prepares, and what it gets."""
    accelerator = Accelerator(cpu=True)
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loaders = train_loader(folder), val_loader(folder)
    model, optimizer, train, val = accelerator.prepare(model, optimizer, *loaders)
    assert (train, val) == loaders
    return accelerator, model, optimizer, train, val


def step(accelerator, model, optimizer, batch):
    images, labels = batch
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    accelerator.backward(loss)
    optimizer.step()
    return batch.positions.tolist()


def weights(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()]).tolist()


def test_a_prepared_loader_is_the_loader_itself(pets):
    accelerator, model, optimizer, train, val = setting(pets)
    with train, val:
        mapped = train.map(tuple)
        assert accelerator.prepare(mapped) is mapped
        shown = [step(accelerator, model, optimizer, batch) for batch in train]
        train.set_epoch(0)
        assert shown == [batch.positions.tolist() for batch in train]


@pytest.mark.parametrize("dispatch", [True, False])
def test_a_data_loader_around_the_loader_of_a_rank_is_not_shared_out_again(pets, monkeypatch, dispatch):
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
    monkeypatch.setattr(PartialState(), "num_processes", 2)
    with train_loader(pets, rank=0, world_size=2) as train:
        prepared = accelerator.prepare(DataLoader(train.map(tuple), batch_size=None))
        with pytest.raises(OptionError, match=r"each rank has its own batches already.*pass loader.map"):
            next(iter(prepared))


def test_a_state_of_accelerate_has_the_place_in_the_epoch(pets, tmp_path):
    accelerator, model, optimizer, train, val = setting(pets)
    accelerator.register_for_checkpointing(train)
    with train, val:
        batches = iter(train)
        for _ in range(3):
            step(accelerator, model, optimizer, next(batches))
        accelerator.save_state(tmp_path / "state")
        rest = [step(accelerator, model, optimizer, batch) for batch in batches]
        expected = weights(model)
    accelerator, model, optimizer, train, val = setting(pets)
    accelerator.register_for_checkpointing(train)
    with train, val:
        accelerator.load_state(tmp_path / "state")
        assert [step(accelerator, model, optimizer, batch) for batch in train] == rest
        assert weights(model) == expected


def test_accumulation_counts_on_over_the_end_of_an_epoch(pets):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model, synced = accelerator.prepare(tiny_model()), []
    with train_loader(pets) as train:
        for batch in (batch for _ in range(2) for batch in train):
            with accelerator.accumulate(model):
                synced.append(accelerator.sync_gradients)
                assert len(batch) == 8
    assert synced == [number % 4 == 3 for number in range(14)]


def test_the_pages_code_trains_on_every_batch_and_evaluates_each_sample_once(pets):
    model = tiny_model()
    before, optimizer = weights(model), torch.optim.SGD(model.parameters(), lr=0.05)
    names = {"Accelerator": lambda: Accelerator(cpu=True), "model": model, "optimizer": optimizer, "step": step}
    names |= {"trained": (trained := []), "seen": (seen := [])}
    exec(changed("accelerate", BEFORE, pets), names)
    with train_loader(pets) as train, val_loader(pets) as val:
        assert trained == [batch.positions.tolist() for _ in range(3) for batch in train]
        assert seen == [[label for batch in val for label in batch.labels[batch.valid].tolist()]] * 3
    assert weights(names["model"]) != before


@pytest.mark.slow
def test_two_ranks_show_each_sample_once(pets, tmp_path):
    run_ranks(__file__, pets, tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    trained = [position for rank in ranks for batch in rank["trained"] for position in batch]
    assert len(trained) == len(set(trained)) == 48
    assert sorted(ranks[0]["checked"] + ranks[1]["checked"]) == [*range(VAL_SAMPLES)]
    assert ranks[0]["gathered"] == ranks[1]["gathered"] == [*range(VAL_SAMPLES)]
    assert ranks[0]["weights"] == ranks[1]["weights"]


def main(folder, out):
    accelerator, model, optimizer, train, val = setting(folder)
    trained = [step(accelerator, model, optimizer, batch) for batch in train]
    checked, gathered = [], []
    for batch in val:
        checked += batch.positions[batch.valid].tolist()
        # Batches are equally long on all ranks, so they can be gathered whole; what is valid is chosen after that.
        positions, valid = accelerator.gather((batch.positions, batch.valid))
        gathered += positions[valid].tolist()
    result = {"trained": trained, "checked": checked, "gathered": sorted(gathered), "weights": weights(model)}
    Path(out, f"{accelerator.process_index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave()
