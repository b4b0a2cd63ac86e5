"""Messages are plain English: what people search for, not words of our own."""

import ast
import re

import pytest

from support.places import REPOSITORY

BANNED = re.compile(
    r"gone on with|go on with|goes on with|lies? there|\bis told\b|\bare told\b|heard (of|from)|nobody wants"
    r"|Be rank|stands there|stand there|can't be had|whoever"
)
FILES = sorted(
    path.relative_to(REPOSITORY).as_posix() for room in ("imgdata", "cli") for path in (REPOSITORY / room).rglob("*.py")
)


def messages(tree):
    """Yield the strings of a module that are not documentation: texts of errors, notes, options, help."""
    documentation = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node


@pytest.mark.parametrize("file", FILES)
def test_messages_are_in_words_that_people_use(file):
    tree = ast.parse((REPOSITORY / file).read_text())
    assert [f"line {node.lineno}: {node.value}" for node in messages(tree) if BANNED.search(node.value)] == []
