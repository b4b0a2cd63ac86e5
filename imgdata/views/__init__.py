"""The public names of views: which samples of a split, under which labels, how often. Every function is pure."""

from imgdata.views.balance import balance, class_weights
from imgdata.views.filters import exclude, where
from imgdata.views.relabel import relabel
from imgdata.views.saved import apply_steps, list_views, load_view, open_view, save_view
from imgdata.views.subsets import fold, per_class, subset_count, subset_fraction
from imgdata.views.text import parse_view
from imgdata.views.view import View, whole

__all__ = [
    "View",
    "apply_steps",
    "balance",
    "class_weights",
    "exclude",
    "fold",
    "list_views",
    "load_view",
    "open_view",
    "parse_view",
    "per_class",
    "relabel",
    "save_view",
    "subset_count",
    "subset_fraction",
    "where",
    "whole",
]
