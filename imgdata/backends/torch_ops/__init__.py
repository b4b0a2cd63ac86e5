"""Whole batches of pixels on any device + their parameters -> the same batches, changed there.

What a picture becomes is torchvision's (version 2, tensors), within a step of 255; `Solarize` is its `Solarize` of PIL
images. It is the same in any batch: each row is worked on by itself, by sums and products that round in one way on
every device. Functions change the batch that they are given and return it. None waits for the device.
"""

from imgdata.backends.torch_ops.apply import apply, flip
from imgdata.backends.torch_ops.postprocess import erase, normalise

__all__ = ["apply", "erase", "flip", "normalise"]
