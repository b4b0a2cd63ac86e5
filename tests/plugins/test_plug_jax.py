"""Batches as arrays of NumPy and JAX: the same memory, and safe as long as somebody holds it.

JAX runs in a process of its own, this file as a script: where it was imported every later fork gives a warning.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from imgdata.recipes import imagenet_train
from support.patience import PATIENCE_S
from support.plugin_pages import changed
from support.plugin_training import CLASSES, VAL, VAL_SAMPLES, train_loader, val_loader
from support.plugin_training import pets as pets

OPTIONS = [{}, {"channels_last": True}, {"dtype": "uint8"}, {"dtype": "float16"}]


BEFORE = """
for images, labels in tfds.as_numpy(train_data):
    state, loss = train_step(state, images, labels)
"""


def nhwc(batch):
    """A view of a batch's images: without gaps where the loader has channels last."""
    return batch.images.permute(0, 2, 3, 1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("convert", [np.asarray, np.from_dlpack, lambda images: images.numpy()])
def test_numpy_gets_the_same_memory(pets, options, convert):
    with train_loader(pets, **options) as train:
        batch = next(iter(train))
    array = convert(batch.images)
    assert array.shape == (8, 3, 16, 16)
    assert array.dtype.name == str(batch.images.dtype).removeprefix("torch.")
    assert array.ctypes.data == batch.images.data_ptr()
    last = options in ({"channels_last": True}, {"dtype": "uint8"})
    assert (convert(nhwc(batch)).flags.c_contiguous, array.flags.c_contiguous) == (last, not last)


def test_an_array_keeps_its_pixels_while_other_batches_are_made(pets):
    with train_loader(pets) as train:
        kept = [(batch.images.numpy(), batch.images.numpy().copy()) for _ in range(3) for batch in train]
    for array, copy in kept:
        assert np.array_equal(array, copy)


@pytest.fixture(scope="module")
def found(pets):
    """What the script found out."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", __file__, pets]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(OPTIONS)))
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_jax_gets_the_same_memory(found, number, layout):
    memory = found["memory"][f"{layout} {OPTIONS[number]}"]
    assert memory == {"copied": 0, "differ": 0, "batches": 7}


def test_an_array_of_jax_keeps_its_pixels_while_other_batches_are_made(found):
    assert found["kept"] == {"arrays": 21, "changed": 0}


def test_the_pages_loop_shows_an_epochs_batches(pets, found):
    with train_loader(pets, recipe=imagenet_train(16)) as train:
        expected = [[[8, 16, 16, 3], nhwc(batch)[0, 5].tolist(), batch.labels.tolist()] for batch in train]
    assert found["page"] == expected


def test_a_loop_of_jax_learns_and_evaluates_each_sample_once(found):
    losses = found["losses"]
    assert len(losses) == 60
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert found["counted"] == VAL_SAMPLES


def main(folder: str) -> None:
    import jax
    import jax.numpy as jnp

    def memory(view, options):
        seen = {"copied": 0, "differ": 0, "batches": 0}
        with train_loader(folder, **options) as train:
            for batch in train:
                array = jnp.from_dlpack(view(batch), copy=False)
                seen["copied"] += array.unsafe_buffer_pointer() != batch.images.data_ptr()
                seen["differ"] += not np.array_equal(np.asarray(array), view(batch).numpy())
                seen["batches"] += 1
        return seen

    def kept():
        with train_loader(folder) as train:
            pairs = [(jnp.from_dlpack(batch.images), batch.images.numpy().copy()) for _ in range(3) for batch in train]
        return {"arrays": len(pairs), "changed": sum(not np.array_equal(array, copy) for array, copy in pairs)}

    @jax.jit
    def fifth_row(images):
        return images[0, 5]

    def shown(images, labels):
        return images.shape, fifth_row(images).tolist(), labels.tolist()

    def loss(weights, images, labels):
        logits = images.reshape(len(images), -1) @ weights
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    @jax.jit
    def step(weights, images, labels):
        value, gradient = jax.value_and_grad(loss)(weights, images, labels)
        return weights - 1e-3 * gradient, value

    weights, losses, counted = jnp.zeros((16 * 16 * 3, CLASSES)), [], 0
    few = {"view": "fraction=0.3", "batch_size": 6, "recipe": VAL["recipe"]}
    with train_loader(folder, channels_last=True, **few) as train:
        for _ in range(20):
            for batch in train:
                labels = jnp.asarray(batch.labels.numpy(), jnp.int32)
                weights, value = step(weights, jnp.from_dlpack(nhwc(batch)), labels)
                losses.append(float(value))
    with val_loader(folder, channels_last=True) as val:
        for batch in val:
            answers = (jnp.from_dlpack(nhwc(batch)).reshape(8, -1) @ weights).argmax(1)
            counted += len(answers[np.asarray(batch.valid)])
    names = {"jnp": jnp, "state": [], "train_step": lambda *step: ([*step[0], shown(*step[1:])], 0.0)}
    exec(changed("jax-and-numpy", BEFORE, folder), names)
    views = {"NHWC": nhwc, "NCHW": lambda batch: batch.images}
    memories = {f"{name} {options}": memory(view, options) for name, view in views.items() for options in OPTIONS}
    print(
        json.dumps({"memory": memories, "kept": kept(), "losses": losses, "counted": counted, "page": names["state"]})
    )


if __name__ == "__main__":
    main(sys.argv[1])
