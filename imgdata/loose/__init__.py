"""Raw images where they lie -> a `Dataset` on them: the listing of `sources` becomes an index in the cache folder."""

from imgdata.loose.opened import inspect, open

__all__ = ["inspect", "open"]
