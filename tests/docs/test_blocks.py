"""Every code block of every page: it runs, or its page says why it can't here."""

from collections import Counter

import pytest

from support.pages import PAGES, RUN, SHOWN, Session, blocks, indented_code

NOT_RUN = {}
"""Page -> blocks that say `<!-- not run: REASON -->`; a new one is counted here on purpose."""
SLOW = ()


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
def test_the_blocks_of_a_page_run_in_order(page, tmp_path):
    # Asserts nothing: a block that fails raises.
    session = Session(tmp_path)
    for block in blocks(page):
        if block.language in RUN and not block.not_run:
            session.run(block)
