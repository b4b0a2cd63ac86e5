"""imgdata: image datasets into verified, indexed WebDataset shards, and from them into training.

Everything that a user needs is one level deep: `imgdata.shard`, `imgdata.open`, `imgdata.Loader`, `imgdata.train`.
Each name is imported when it is first asked for: `import imgdata` takes milliseconds, and sharding neither waits for
PyTorch nor needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from imgdata.errors import (
    DeviceMemoryError,
    FunctionError,
    ImageError,
    ImgdataError,
    MissingExtraError,
    OptionError,
    OutputError,
    ShardError,
    SourceError,
    TrainingError,
)
from imgdata.extras import importing_torch
from imgdata.version import __version__

if TYPE_CHECKING:
    from imgdata import recipes, views
    from imgdata.auditing.finding import Finding, Place
    from imgdata.auditing.findings_file import read_findings
    from imgdata.auditing.fix import Applied, Fixed, fixed_view
    from imgdata.auditing.options import AuditOptions
    from imgdata.auditing.result import AuditResult, CheckResult
    from imgdata.auditing.run import audit
    from imgdata.backends.dali.webdataset_pipeline import dali_pipeline
    from imgdata.cluster import RayOptions
    from imgdata.dataset.dataset import Dataset
    from imgdata.dataset.split import Split
    from imgdata.dataset.summary import Summary
    from imgdata.images.encode import Encoding
    from imgdata.inference.evaluate import ClassScore, Confusion, Evaluation, evaluate
    from imgdata.inference.export import Exported, export_model
    from imgdata.inference.features import Features, features
    from imgdata.inference.predict import Predicted, PredictedDataset, Prediction, predict, predict_dataset
    from imgdata.inference.predictions import Predictions
    from imgdata.inference.trained import Trained, load_trained
    from imgdata.loader.bad_images import BadImage, BadImageWarning
    from imgdata.loader.buckets import Buckets, BucketSummary
    from imgdata.loader.loader import Loader
    from imgdata.loader.shuffle_quality import ShuffleQuality, ShuffleWarning, shuffle_quality
    from imgdata.loose.opened import inspect, open
    from imgdata.measure.bench.options import BenchOptions
    from imgdata.measure.bench.result import BenchResult, Figures, PeerFigures
    from imgdata.measure.bench.run import bench
    from imgdata.measure.doctor.inputs import DoctorOptions
    from imgdata.measure.doctor.run import doctor
    from imgdata.measure.doctor.wait import advice_for_run, advice_for_wait
    from imgdata.measure.parity.parity import Parity, parity
    from imgdata.measure.parity.pictures import load_pictures
    from imgdata.measure.sheet import contact_sheet
    from imgdata.measure.trace.picture import save_picture
    from imgdata.measure.trace.rows import TraceRow
    from imgdata.measure.trace.run import Trace, trace
    from imgdata.models.build import create_model
    from imgdata.models.inputs import ModelInput, model_input
    from imgdata.order.ranks import rank_and_world
    from imgdata.sample import Batch, ClassName, Sample
    from imgdata.shards.compact import Compacted, compact
    from imgdata.shards.export import export
    from imgdata.shards.index_tars import index
    from imgdata.shards.job import plan_shards, shard
    from imgdata.shards.object_writer import Writer
    from imgdata.shards.options import ShardOptions
    from imgdata.shards.parts import begin_parts, finish_parts, write_part
    from imgdata.shards.summary import PartSummary, ShardSummary, Watcher
    from imgdata.shards.verify import verify
    from imgdata.shards.verify_shard import Fault
    from imgdata.sources.options import SourceOptions
    from imgdata.storage.shard_state import CacheFacts
    from imgdata.training.history import EpochRow, Report, TrainResult, TrainWatcher
    from imgdata.training.loop import train
    from imgdata.training.options import TrainOptions
    from imgdata.training.scores import Scores
    from imgdata.training.throughput import end_to_end
    from imgdata.views.balance import class_weights
    from imgdata.views.saved import list_views, load_view, open_view, save_view
    from imgdata.views.view import View
    from imgdata.web.view import Shown, view

_PLACES = {
    "recipes": "recipes",
    "views": "views",
    "Finding": "auditing.finding",
    "Place": "auditing.finding",
    "read_findings": "auditing.findings_file",
    "Applied": "auditing.fix",
    "Fixed": "auditing.fix",
    "fixed_view": "auditing.fix",
    "AuditOptions": "auditing.options",
    "AuditResult": "auditing.result",
    "CheckResult": "auditing.result",
    "audit": "auditing.run",
    "dali_pipeline": "backends.dali.webdataset_pipeline",
    "Dataset": "dataset.dataset",
    "Split": "dataset.split",
    "Summary": "dataset.summary",
    "Encoding": "images.encode",
    "ClassScore": "inference.evaluate",
    "Confusion": "inference.evaluate",
    "Evaluation": "inference.evaluate",
    "evaluate": "inference.evaluate",
    "Exported": "inference.export",
    "export_model": "inference.export",
    "Features": "inference.features",
    "features": "inference.features",
    "Predicted": "inference.predict",
    "Prediction": "inference.predict",
    "PredictedDataset": "inference.predict",
    "predict": "inference.predict",
    "predict_dataset": "inference.predict",
    "Predictions": "inference.predictions",
    "Trained": "inference.trained",
    "load_trained": "inference.trained",
    "BadImage": "loader.bad_images",
    "BadImageWarning": "loader.bad_images",
    "BucketSummary": "loader.buckets",
    "Buckets": "loader.buckets",
    "CacheFacts": "storage.shard_state",
    "Loader": "loader.loader",
    "ShuffleQuality": "loader.shuffle_quality",
    "ShuffleWarning": "loader.shuffle_quality",
    "shuffle_quality": "loader.shuffle_quality",
    "inspect": "loose.opened",
    "open": "loose.opened",
    "BenchOptions": "measure.bench.options",
    "BenchResult": "measure.bench.result",
    "Figures": "measure.bench.result",
    "PeerFigures": "measure.bench.result",
    "bench": "measure.bench.run",
    "DoctorOptions": "measure.doctor.inputs",
    "doctor": "measure.doctor.run",
    "advice_for_run": "measure.doctor.wait",
    "advice_for_wait": "measure.doctor.wait",
    "Parity": "measure.parity.parity",
    "parity": "measure.parity.parity",
    "load_pictures": "measure.parity.pictures",
    "contact_sheet": "measure.sheet",
    "save_picture": "measure.trace.picture",
    "TraceRow": "measure.trace.rows",
    "Trace": "measure.trace.run",
    "trace": "measure.trace.run",
    "create_model": "models.build",
    "ModelInput": "models.inputs",
    "model_input": "models.inputs",
    "rank_and_world": "order.ranks",
    "Batch": "sample",
    "ClassName": "sample",
    "Sample": "sample",
    "Compacted": "shards.compact",
    "compact": "shards.compact",
    "RayOptions": "cluster",
    "export": "shards.export",
    "index": "shards.index_tars",
    "plan_shards": "shards.job",
    "shard": "shards.job",
    "Writer": "shards.object_writer",
    "ShardOptions": "shards.options",
    "begin_parts": "shards.parts",
    "finish_parts": "shards.parts",
    "write_part": "shards.parts",
    "PartSummary": "shards.summary",
    "ShardSummary": "shards.summary",
    "Watcher": "shards.summary",
    "verify": "shards.verify",
    "Fault": "shards.verify_shard",
    "SourceOptions": "sources.options",
    "EpochRow": "training.history",
    "Report": "training.history",
    "TrainResult": "training.history",
    "TrainWatcher": "training.history",
    "train": "training.loop",
    "TrainOptions": "training.options",
    "Scores": "training.scores",
    "end_to_end": "training.throughput",
    "class_weights": "views.balance",
    "list_views": "views.saved",
    "load_view": "views.saved",
    "open_view": "views.saved",
    "save_view": "views.saved",
    "View": "views.view",
    "Shown": "web.view",
    "view": "web.view",
}
"""Public names -> the modules below `imgdata` that define them."""

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'imgdata' has no attribute {name!r}")
    with importing_torch(f"imgdata.{name}"):
        module = importlib.import_module(f"imgdata.{_PLACES[name]}")
    value = globals()[name] = module if _PLACES[name] == name else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
