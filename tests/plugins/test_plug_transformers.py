"""`transformers.Trainer` with our loaders as dicts: training, exact evaluation, resume in mid-epoch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments

from imgdata.recipes import imagenet_eval, imagenet_train
from support.plugin_pages import changed
from support.plugin_training import CLASSES, TRAIN_SAMPLES, VAL_SAMPLES, train_loader, val_loader
from support.plugin_training import pets as pets

BEFORE = """
trainer = Trainer(model, args, train_dataset=train_set, eval_dataset=val_set, compute_metrics=metrics)
"""


class Stops(TrainerCallback):
    """Ends the run at a step."""

    def __init__(self, stop):
        self.stop = stop

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.stop


def small_resnet():
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_labels=CLASSES, **sizes))


def metrics(found):
    counted = found.label_ids != -100
    right = (found.predictions.argmax(1) == found.label_ids)[counted]
    return {"accuracy": right.mean(), "counted": int(counted.sum())}


def run(folder, out, stop=None, resume=None):
    """A run of two epochs by the page's code, which may stop or go on at a step: the trainer, and what it was shown."""
    shown = []

    def noted(trainer, model, inputs, *others):
        shown.append([float(inputs["pixel_values"].sum()), *inputs["labels"].tolist()])
        return Trainer.training_step(trainer, model, inputs, *others)

    args = TrainingArguments(
        out,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        save_steps=4,
        learning_rate=1e-3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        ignore_data_skip=True,
    )
    names = {"Trainer": Trainer, "TrainerCallback": TrainerCallback, "Path": Path, "torch": torch}
    names |= {"model": small_resnet(), "args": args, "metrics": metrics}
    exec(changed("transformers", BEFORE, folder), names)
    names["LoaderTrainer"].training_step = noted
    trainer, train = names["trainer"], names["train"]
    trainer.add_callback(Stops(stop))
    if resume:
        train.load_state_dict(torch.load(Path(resume, "loader.pt")))
    trainer.train(resume_from_checkpoint=resume)
    return trainer, shown


@pytest.fixture(scope="module")
def whole(pets, tmp_path_factory):
    return run(pets, tmp_path_factory.mktemp("whole"))


def test_training_shows_every_batch_of_each_epoch(pets, whole):
    trainer, shown = whole
    with train_loader(pets, recipe=imagenet_train(16)) as loader:
        assert shown == [[float(batch.images.sum()), *batch.labels.tolist()] for _ in range(2) for batch in loader]
    assert trainer.state.global_step == len(shown) == 14
    assert trainer.num_examples(trainer.get_train_dataloader()) == TRAIN_SAMPLES


def test_evaluation_counts_each_sample_once(pets, whole):
    trainer, _ = whole
    found = trainer.evaluate()
    assert found["eval_counted"] == VAL_SAMPLES
    right = []
    with val_loader(pets, recipe=imagenet_eval(16)) as loader, torch.no_grad():
        for batch in loader:
            answers = trainer.model(batch.images).logits.argmax(1)
            right += (answers == batch.labels)[batch.valid].tolist()
    assert found["eval_accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("stop", [5, 9])
def test_a_resume_in_mid_epoch_gives_exactly_what_was_left(pets, whole, tmp_path, stop):
    trainer, expected = whole
    saved = stop // 4 * 4
    assert run(pets, tmp_path, stop=stop)[1] == expected[:stop]
    resumed, shown = run(pets, tmp_path, resume=str(tmp_path / f"checkpoint-{saved}"))
    assert shown == expected[saved:]
    assert resumed.state.global_step == 14
    for one, other in zip(trainer.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
