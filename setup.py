"""The optional compiled module; everything else stands in pyproject.toml.

Where gcc or the headers of libjpeg-turbo are missing, the installation goes on without it.
"""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("imgdata/native")

setup(
    ext_modules=[
        Extension(
            "imgdata.native._compiled",
            sorted(map(str, FOLDER.glob("*.c"))),
            depends=sorted(map(str, FOLDER.glob("*.h"))),
            libraries=["jpeg"],
            # Weights are computed in doubles: without fused multiply-adds they are the same on every machine.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
