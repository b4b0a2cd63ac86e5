"""Everything that a user needs is `imgdata.X`, imported when it is first asked for."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys

import pytest

import imgdata
from support.places import REPOSITORY

FACE = [
    "Applied",
    "AuditOptions",
    "AuditResult",
    "BadImage",
    "BadImageWarning",
    "Batch",
    "BenchOptions",
    "BenchResult",
    "BucketSummary",
    "Buckets",
    "CacheFacts",
    "CheckResult",
    "ClassName",
    "ClassScore",
    "Compacted",
    "Confusion",
    "Dataset",
    "DeviceMemoryError",
    "DoctorOptions",
    "Encoding",
    "EpochRow",
    "Evaluation",
    "Exported",
    "Fault",
    "Features",
    "Figures",
    "Finding",
    "Fixed",
    "FunctionError",
    "ImageError",
    "ImgdataError",
    "Loader",
    "MissingExtraError",
    "ModelInput",
    "OptionError",
    "OutputError",
    "Parity",
    "PartSummary",
    "PeerFigures",
    "Place",
    "Predicted",
    "PredictedDataset",
    "Prediction",
    "Predictions",
    "RayOptions",
    "Report",
    "Sample",
    "Scores",
    "ShardError",
    "ShardOptions",
    "ShardSummary",
    "Shown",
    "ShuffleQuality",
    "ShuffleWarning",
    "SourceError",
    "SourceOptions",
    "Split",
    "Summary",
    "Trace",
    "TraceRow",
    "TrainOptions",
    "TrainResult",
    "TrainWatcher",
    "Trained",
    "TrainingError",
    "View",
    "Watcher",
    "Writer",
    "__version__",
    "advice_for_run",
    "advice_for_wait",
    "audit",
    "begin_parts",
    "bench",
    "class_weights",
    "compact",
    "contact_sheet",
    "create_model",
    "dali_pipeline",
    "doctor",
    "end_to_end",
    "evaluate",
    "export",
    "export_model",
    "features",
    "finish_parts",
    "fixed_view",
    "index",
    "inspect",
    "list_views",
    "load_pictures",
    "load_trained",
    "load_view",
    "model_input",
    "open",
    "open_view",
    "parity",
    "plan_shards",
    "predict",
    "predict_dataset",
    "rank_and_world",
    "read_findings",
    "recipes",
    "save_picture",
    "save_view",
    "shard",
    "shuffle_quality",
    "trace",
    "train",
    "verify",
    "view",
    "views",
    "write_part",
]


def test_the_public_face_is_pinned():
    assert imgdata.__all__ == FACE == sorted(FACE)
    assert dir(imgdata) == FACE


def test_importing_imgdata_imports_nothing_heavy():
    code = "import sys, imgdata; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = ast.literal_eval(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert {"torch", "pyarrow", "timm", "numpy", "PIL", "click", "rich"} & set(loaded) == set()


def test_type_checkers_and_python_find_each_name_in_the_same_place():
    tree = ast.parse((REPOSITORY / "imgdata" / "__init__.py").read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    for_types = {
        name.name: node.module.removeprefix("imgdata").removeprefix(".") or name.name
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert for_types == imgdata._PLACES


def test_no_module_hides_a_name_of_the_face():
    for module in pkgutil.walk_packages(imgdata.__path__, "imgdata."):
        if module.name.count(".") == 1 or module.ispkg:
            importlib.import_module(module.name)
    for name, place in imgdata._PLACES.items():
        found = getattr(imgdata, name)
        module = importlib.import_module(f"imgdata.{place}")
        assert found is (module if place == name else getattr(module, name))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'imgdata' has no attribute 'loder'"):
        imgdata.loder  # noqa: B018


PAGES = sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if path.name != "architecture.md")


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "README.md"], ids=lambda path: path.name)
def test_pages_import_from_the_face_alone(page):
    code = "\n".join(re.findall(r"^ *(?:from|import) imgdata.*$", page.read_text(), re.M))
    assert [line for line in code.splitlines() if re.search(r"imgdata\.(?!recipes|views)\w+", line)] == []
