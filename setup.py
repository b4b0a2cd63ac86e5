"""The optional compiled module; everything else stands in pyproject.toml.

Where gcc or the headers of libjpeg-turbo are missing, the installation goes on without it.
"""

from setuptools import Extension, setup

SOURCES = ("decode", "encode", "kernels", "module", "planes", "resample", "scratch", "turbo")
HEADERS = ("kernels", "planes", "resample", "scratch", "turbo")

setup(
    ext_modules=[
        Extension(
            "imgdata.native._planes",
            [f"imgdata/native/{name}.c" for name in SOURCES],
            depends=[f"imgdata/native/{name}.h" for name in HEADERS],
            libraries=["jpeg"],
            # Weights are computed in doubles: without fused multiply-adds they are the same on every machine.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
