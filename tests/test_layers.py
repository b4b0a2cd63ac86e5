"""Optional packages are imported in one room each; the rest of the layers is import-linter's, in pyproject.toml."""

import ast
import re

import pytest

from support.places import REPOSITORY

MODULES = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "imgdata").rglob("*.py"))


def imported(path):
    """Yield the packages that a module imports, those named in a string to `import_module` too."""
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            yield from (value.value for value in node.args if isinstance(value, ast.Constant))


@pytest.mark.parametrize(
    ("package", "rooms"),
    [("nvidia", "backends/dali|measure/bench"), ("timm", "models"), ("simplejpeg", "images|measure|backends")],
)
def test_a_package_is_imported_in_its_rooms_alone(package, rooms):
    outside = [path for path in MODULES if not re.match(f"imgdata/({rooms})/", path)]
    assert [path for path in outside for name in imported(path) if name.partition(".")[0] == package] == []
