"""The optional compiled module; everything else stands in pyproject.toml.

Where gcc or the headers of libjpeg-turbo are missing, the installation goes on without it. IMGDATA_LIBJPEG_TURBO names
the folder of a libjpeg-turbo that is to be part of the module, as wheels/build.py does: then it has to be compiled, and
serves every later version of Python.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("imgdata/native")
# One compiled module for this and all later versions of Python; without Python's lock there is none of that kind yet.
STABLE = [] if sysconfig.get_config_var("Py_GIL_DISABLED") else [("Py_LIMITED_API", "0x030B0000")]
TURBO = os.environ.get("IMGDATA_LIBJPEG_TURBO")
JPEG = {"include_dirs": [f"{TURBO}/include"], "extra_objects": [f"{TURBO}/lib/libjpeg.a"]}

setup(
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if TURBO else {},
    ext_modules=[
        Extension(
            "imgdata.native._compiled",
            sorted(map(str, FOLDER.glob("*.c"))),
            depends=sorted(map(str, FOLDER.glob("*.h"))),
            **(JPEG if TURBO else {"libraries": ["jpeg"]}),
            define_macros=STABLE,
            # Weights are computed in doubles: without fused multiply-adds they are the same on every machine.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"],
            py_limited_api=bool(TURBO),
            optional=not TURBO,
        )
    ],
)
