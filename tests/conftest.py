"""What holds for all tests: no GPU unless asked for, no network, caches in a temporary folder, the same examples."""

import atexit
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before anything imports torch. Which tests run, and how, shall not depend on the machine.
os.environ.update({} if os.environ.get("IMGDATA_GPU") == "1" else {"CUDA_VISIBLE_DEVICES": ""})
# Threads of PyTorch that wait for each other would keep the cores from the other tests: a third of the time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import PIL
import pytest
from PIL import features

from support.places import TESTS

# Programs that tests start find the helpers as well.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))

if "IMGDATA_TEST_CACHE" not in os.environ:
    # The first process makes the folder and removes it; pytest-xdist's workers find it in their environment.
    _CACHE = tempfile.mkdtemp(prefix="imgdata-tests-")
    os.environ["IMGDATA_TEST_CACHE"] = _CACHE
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

# Read when `datasets` and `huggingface_hub` are imported, so set before any test module is.
# albumentations would ask for its newest version on import.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["HF_HOME"] = os.environ["IMGDATA_TEST_CACHE"]
os.environ["HF_DATASETS_CACHE"] = str(Path(os.environ["IMGDATA_TEST_CACHE"], "datasets"))
_DECODED = Path(os.environ["IMGDATA_TEST_CACHE"], "decoded")
_VERDICT = Path(os.environ.get("IMGDATA_CACHE", "nowhere"), "dali-crop.json")
if os.environ.get("IMGDATA_GPU") == "1" and _VERDICT.exists() and not _DECODED.exists():
    # Whether DALI may decode crops takes 10 s to try.
    _DECODED.mkdir()
    shutil.copy(_VERDICT, _DECODED)
os.environ["IMGDATA_CACHE"] = str(_DECODED)
os.environ["IMGDATA_DATA"] = str(Path(os.environ["IMGDATA_TEST_CACHE"], "data"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# Below: some keep the environment for the programs that they start.
from support import found_cases, shortcuts  # noqa: E402
from support.digit_runs import digits  # noqa: E402, F401
from support.loaders import backend, images  # noqa: E402, F401  fixtures of several files
from support.remote_servers import s3  # noqa: E402, F401
from support.resident_batches import one_size, resident_cache, spoilt  # noqa: E402, F401


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """Yield a temporary folder, in a test that may not do everything, even where the tests run as root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            # Before privileges go: modules may lie where only root can read.
            import imgdata.shards.job  # noqa: F401

            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def pytest_configure(config: pytest.Config) -> None:
    """Add the plug-in that gives tests their random examples."""
    config.pluginmanager.register(found_cases)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a test that draws from global generators the same numbers, whatever ran before it; figures if it asks."""
    shortcuts.skip_waits_for_the_disk()
    shortcuts.draw_figures(item.get_closest_marker("figures") is not None)
    random.seed(0)
    np.random.seed(0)
    # Where no test has imported it yet, PyTorch begins with a seed of its own, which is always the same.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_report_header() -> str:
    """Return a line that names the Pillow in use, and what it can decode."""
    name = "Pillow-SIMD" if ".post" in PIL.__version__ else "Pillow"
    codecs = ", ".join(codec if features.check(codec) else f"no {codec}" for codec in ("jpg", "webp", "avif"))
    return f"images: {name} {PIL.__version__} ({codecs}) from {Path(PIL.__path__[0]).parent}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu`, `timing` or `webp` where they can't hold."""
    _skip(items, "webp", "this Pillow has no WebP", lambda: features.check("webp"))
    _skip(items, "timing", "needs a quiet machine, and IMGDATA_TIMES=1", lambda: os.environ.get("IMGDATA_TIMES") == "1")
    _skip(items, "gpu", "needs a CUDA device, and IMGDATA_GPU=1", _has_cuda)


def _skip(items: list[pytest.Item], marker: str, reason: str, can_run: Callable[[], bool | None]) -> None:
    marked = [item for item in items if item.get_closest_marker(marker)]
    if marked and not can_run():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_cuda() -> bool:
    import torch  # Takes a second, which runs without such tests need not pay.

    return torch.cuda.is_available()
