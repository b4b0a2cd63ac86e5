"""Keras 3 on the torch backend: `fit`, `evaluate` and `predict` around our loader. A script as well."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from support.patience import PATIENCE_S
from support.plugin_pages import changed
from support.plugin_training import CLASSES, VAL_SAMPLES, train_loader, val_loader
from support.plugin_training import pets as pets

# Tensors of PyTorch have an `__array__` of the time before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


BEFORE = """
train_data = keras.utils.image_dataset_from_directory("imagenet/train", batch_size=256, image_size=(224, 224))
val_data = keras.utils.image_dataset_from_directory("imagenet/val", batch_size=256, image_size=(224, 224))
model.fit(train_data, validation_data=val_data, epochs=90)
"""


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras, imported with the settings that it takes from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras
    assert keras.backend.backend() == "torch"
    return keras


def pair(batch):
    """Keras has channels last; a view, without a copy where the loader has them last as well."""
    return batch.images.permute(0, 2, 3, 1), batch.labels


def weighted(batch):
    """With the third part, `sample_weight`, padding counts nothing."""
    return *pair(batch), batch.valid.to(batch.labels.device).float()


def for_keras(loader, function):
    return DataLoader(loader.map(function), batch_size=None)


@pytest.fixture
def model(keras):
    return small_model(keras)


def small_model(keras):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((16, 16, 3)), layers.Conv2D(4, 3, 4, "valid"), layers.Flatten(), layers.Dense(CLASSES)]
    )
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def test_the_pages_code_fits_and_its_process_ends_without_a_word(pets, tmp_path):
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, pets]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["epochs"] == found["validated"] == 3
    # Its own `evaluate` of the model after the last epoch.
    assert found["val_accuracy"] == pytest.approx(found["right"] / VAL_SAMPLES)
    assert found["moved"]


@pytest.mark.parametrize("initial_epoch", [0, 1])
def test_fit_shows_the_batches_of_each_epoch(pets, keras, model, initial_epoch):
    shown = []

    def noted(batch):
        shown.append(batch.positions.tolist())
        return pair(batch)

    with train_loader(pets, channels_last=True) as train, val_loader(pets, channels_last=True) as val:
        history = model.fit(
            for_keras(train, noted),
            validation_data=for_keras(val, weighted),
            initial_epoch=initial_epoch,
            epochs=3,
            shuffle=False,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: train.set_epoch(epoch))],
            verbose=0,
        )
        train.set_epoch(0)
        expected = [batch.positions.tolist() for _ in range(3) for batch in train]
    # Keras looks at one batch before it begins, which the callback makes up for.
    assert shown == expected[:1] + expected[7 * initial_epoch :]
    assert len(history.history["val_accuracy"]) == 3 - initial_epoch


def test_evaluation_counts_each_sample_once(pets, model):
    with val_loader(pets, channels_last=True) as val:
        found = model.evaluate(for_keras(val, weighted), return_dict=True, verbose=0)
        answers = model.predict(for_keras(val, lambda batch: pair(batch)[:1]), verbose=0).argmax(1)
        labels = torch.cat([batch.labels for batch in val]).numpy()
    right = (answers == labels)[:VAL_SAMPLES]
    assert found["accuracy"] == pytest.approx(np.mean(right))


def test_what_keras_is_given_is_no_copy(pets):
    with train_loader(pets, channels_last=True) as train:
        batch = next(iter(train))
        images, labels = pair(batch)
    assert images.is_contiguous()
    assert images.data_ptr() == batch.images.data_ptr()
    assert labels is batch.labels


def test_a_loader_itself_is_refused_by_keras(pets, model):
    # Should Keras take any iterable one day, the page can be shorter.
    with train_loader(pets) as train, pytest.raises(ValueError, match="Unrecognized data type"):
        model.fit(train, verbose=0)


def main(folder):
    import keras

    model = small_model(keras)
    before, fit = model.get_weights(), model.fit
    model.fit = lambda *data, **options: histories.append(fit(*data, verbose=0, **options).history)
    histories = []
    # The names of the script itself, as a user has them: they live until Python takes everything down.
    names = globals()
    names |= {"keras": keras, "model": model}
    exec(changed("keras", BEFORE, folder), names)
    (history,) = histories
    right = 0
    for batch in names["val"]:
        answers = model.predict_on_batch(pair(batch)[0]).argmax(1)
        right += int((answers == batch.labels.numpy())[batch.valid.numpy()].sum())
    moved = any((one != other).any() for one, other in zip(before, model.get_weights(), strict=True))
    found = {"epochs": len(history["loss"]), "validated": len(history["val_loss"]), "moved": moved}
    print(json.dumps(found | {"right": right, "val_accuracy": history["val_accuracy"][-1]}, default=bool))


if __name__ == "__main__":
    main(sys.argv[1])
