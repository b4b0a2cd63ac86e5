"""Backends: which samples, with which parameters -> a batch of pixels. They only execute; nothing random lives here."""
