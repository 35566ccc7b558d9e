"""Imports point one way, so that each part can be read, and used, without those above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = {"amg.errors", "amg.records"}
# What each part may import of ours, beside itself and the leaves.
ALLOWED = {
    "amg.errors": set(),
    "amg.records": set(),
    "amg.config": set(),
    "amg.ops": set(),
    "amg.models": {"amg.ops"},
    "amg.generate": {"amg.config", "amg.ops", "amg.models.interface", "amg.models.precision"},
    "amg.io": set(),
    "amg.exports": {"amg.io", "amg.ops", "amg.runs.results"},
    "amg.view": {"amg.ops"},
    "amg.view.report": {"amg.evaluate", "amg.io", "amg.ops", "amg.view"},
    "amg.evaluate": {"amg.io", "amg.ops", "amg.runs.results"},
    "amg.cli": {"amg", "pipelines"},
    "amg.runs.results": {"amg.io", "amg.ops"},
    "amg": {"amg", "pipelines.corpus.run", "pipelines.refilter"},
    "pipelines": {"amg"},
}
USERS_OF_SKIMAGE = {"pipelines.demo", "amg.evaluate.edges"}  # of the extras demo and eval
FILES = sorted(path for part in ("amg", "pipelines") for path in (ROOT / part).rglob("*.py"))


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from amg.ops import rle` names a module as much as `import amg.ops.rle`.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _part(module):
    """The longest known part that a module belongs to."""
    parts = [part for part in ALLOWED if module == part or module.startswith(part + ".")]
    return max(parts, key=len)


def _within(module, package):
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    part = _part(module)
    allowed = ALLOWED[part] | LEAVES | {part}
    for imported in _imports(path):
        if _within(imported, "amg") or _within(imported, "pipelines"):
            assert any(_within(imported, package) for package in allowed), imported
        if part != "pipelines":
            assert not _within(imported, "ray"), "only pipelines may import Ray"
        assert not _within(imported, "benchmarks")
        assert not _within(imported, "tests")
        if _within(imported, "skimage"):
            assert module in USERS_OF_SKIMAGE


def test_there_is_something_to_check():
    assert len(FILES) > 30
