"""Names and texts of views, a dataset -> a view of each split."""

from collections.abc import Sequence

from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.views.saved import list_views, open_view, saved_views
from imgdata.views.view import View


def views_by_split(dataset: Dataset, texts: Sequence[str], splits: Sequence[str] = ()) -> dict[str, View]:
    """Return the views of these splits, or of all that have samples, in the dataset's order.

    A saved view, also with steps behind it, takes the place of its own split. Steps, which may be given once, are for
    all other splits. Raises `OptionError` for an unknown or empty split, and for views that don't fit the splits.
    """
    for name in splits:
        if name not in dataset:
            raise OptionError(f"split must be one of {', '.join(dataset)}, got {name!r}")
        if not len(dataset[name]):
            raise OptionError(f"split {name!r} has no samples")
    chosen = [name for name in dataset if len(dataset[name]) and name in (splits or dataset)]
    if not chosen:
        raise OptionError(f"{dataset.path}: no split has samples")
    by_split, steps = _sorted_out(dataset, texts)
    for split, text in by_split.items():
        if split not in chosen:
            raise OptionError(f"view {text!r} is of split {split!r}, which is not among {', '.join(chosen)}")
    return {split: open_view(dataset, split, by_split.get(split, steps)) for split in chosen}


def _sorted_out(dataset: Dataset, texts: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return the saved views by their splits, and the steps for all others."""
    by_split: dict[str, str] = {}
    steps = ""
    names = set(list_views(dataset))
    split_of = {view.name: view.split for view in saved_views(dataset)} if texts else {}
    for text in texts:
        name = text.partition("|")[0].strip()
        if name in names:
            split = split_of[name]
            if split in by_split:
                raise OptionError(f"views {by_split[split]!r} and {text!r} are both of split {split!r}; give one")
            by_split[split] = text
        elif steps:
            raise OptionError(f"view: steps may be given once, for all splits, got {steps!r} and {text!r}")
        else:
            steps = text
    return by_split, steps
