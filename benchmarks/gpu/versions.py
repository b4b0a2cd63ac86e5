"""Installed packages -> those of NVIDIA that decode pictures."""

from importlib.metadata import distributions

DALI_PACKAGES = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
_CODECS = ("nvidia-nvimgcodec", "nvidia-nvjpeg")


def codec_packages() -> list[str]:
    """Return the names of the packages of nvImageCodec and nvJPEG, by which the CUDA is known that they are for."""
    names = {str(one.metadata["Name"]).lower() for one in distributions() if one.metadata["Name"]}
    return sorted(name for name in names if name.startswith(_CODECS))
