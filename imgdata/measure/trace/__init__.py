"""Real samples of a dataset -> what goes into every stage and comes out of it, as rows and a picture."""

from imgdata.measure.trace.rows import TraceRow
from imgdata.measure.trace.run import Trace, trace

__all__ = ["Trace", "TraceRow", "trace"]
