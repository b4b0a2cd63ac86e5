"""Every code block of every page: it runs, or its page says why it can't here."""

from collections import Counter

import pytest

from support.pages import PAGES, RUN, SHOWN, Session, blocks, indented_code, not_printed

NOT_RUN = {
    "CONTRIBUTING.md": 2,
    "README.md": 2,
    "docs/audit.md": 1,
    "docs/bench.md": 1,
    "docs/benchmarks.md": 1,
    "docs/dali.md": 2,
    "docs/gpu.md": 1,
    "docs/how-to/from-python.md": 1,
    "docs/how-to/several-gpus.md": 1,
    "docs/how-to/slurm.md": 6,
    "docs/loader.md": 1,
    "docs/index.md": 1,
    "docs/models.md": 1,
    "docs/pipelines/index.md": 1,
    "docs/pipelines/p0-cifar-and-imagenet.md": 1,
    "docs/pipelines/p1-image-classifier.md": 1,
    "docs/pipelines/p2-know-your-dataset.md": 1,
    "docs/pipelines/p3-cnn-layer-by-layer.md": 1,
    "docs/pipelines/p4-pretrained-models.md": 1,
    "docs/remote.md": 4,
    "docs/sharding.md": 1,
    "docs/training.md": 2,
    "docs/tutorial.md": 1,
    "docs/view.md": 3,
    "docs/without-sharding.md": 1,
}
"""Page -> blocks that say `<!-- not run: REASON -->`; a new one is counted here on purpose."""
SLOW = (
    "README.md",
    "docs/audit.md",
    "docs/bench.md",
    "docs/doctor.md",
    "docs/evaluation.md",
    "docs/how-to/imbalanced-classes.md",
    "docs/how-to/killed-runs.md",
    "docs/how-to/large-pictures.md",
    "docs/how-to/own-loop.md",
    "docs/how-to/part-of-the-data.md",
    "docs/how-to/predict.md",
    "docs/how-to/segmentation.md",
    "docs/how-to/simclr.md",
    "docs/how-to/validation-split.md",
    "docs/how-to/waiting-gpu.md",
    "docs/how-to/wrong-labels.md",
    "docs/index.md",
    "docs/models.md",
    "docs/parity.md",
    "docs/quickstart.md",
    "docs/training.md",
    "docs/tutorial.md",
)
"""Pages that train, or measure."""
SHOWN_AS_PRINTED = ("docs/how-to/", "docs/tutorial.md", "docs/quickstart.md")
"""Pages whose blocks of text are what the block before prints, but for numbers."""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_each_block_is(page):
    assert indented_code(page) == []
    for block in blocks(page):
        assert block.language in (*RUN, *SHOWN), f"{page}:{block.line}: a block must be one of {(*RUN, *SHOWN)}"


def test_blocks_that_are_not_run_are_counted():
    found = Counter(block.page for page in PAGES for block in blocks(page) if block.not_run)
    assert dict(found) == NOT_RUN


RUNNABLE = [page for page in PAGES if any(block.language in RUN and not block.not_run for block in blocks(page))]


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page for page in RUNNABLE]
)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    # Asserts nothing: a block that fails raises.
    monkeypatch.setenv("COLUMNS", "100")
    session, printed = Session(tmp_path), ""
    for block in blocks(page):
        if block.language in RUN:
            printed = "" if block.not_run else session.run(block)
        elif printed and page.startswith(SHOWN_AS_PRINTED):
            assert not_printed(block.text, printed) == [], f"{page}:{block.line}: the block before prints\n{printed}"
            printed = ""
