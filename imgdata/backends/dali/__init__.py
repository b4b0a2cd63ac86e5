"""NVIDIA DALI as a backend: bytes and parameters -> pixels, on a GPU or on the processor. Nothing else imports it."""
