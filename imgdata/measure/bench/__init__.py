"""A dataset, settings -> images/s of the loader, its other figures, and those of other loaders beside it.

    options -> job -> processes: each loader in one of its own, `one` -> rounds -> result

Each process measures one loader once: nothing of another loader is in its memory. Loaders run alternately, so that a
machine that slows down slows all of them; figures are medians over the rounds, ratios medians of pairs of the same
round.
"""

from imgdata.measure.bench.options import BenchOptions
from imgdata.measure.bench.result import BenchResult, Figures, PeerFigures
from imgdata.measure.bench.run import bench

__all__ = ["BenchOptions", "BenchResult", "Figures", "PeerFigures", "bench"]
