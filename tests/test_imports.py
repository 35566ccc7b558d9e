"""Imports point one way, so that each room can be read, and used, without those above it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = {"amg.errors", "amg.records"}
# What each room may import of ours, beside itself and the leaves.
ALLOWED = {
    "amg.errors": set(),
    "amg.records": set(),
    "amg.config": set(),
    "amg.shadow": set(),
    "amg.ops": set(),
    # From pixels to candidate masks, to the generator.
    "amg.models": {"amg.ops"},  # interface and precision
    "amg.models.modules": set(),
    "amg.models.decoding": {"amg.models.interface", "amg.models.modules", "amg.ops"},
    "amg.models.tracking": {"amg.models.modules"},
    "amg.models.families": {
        "amg.models.decoding",
        "amg.models.interface",
        "amg.models.modules",
        "amg.models.precision",
        "amg.models.tracking",
        "amg.ops",
    },
    "amg.models.zoo": {"amg.config", "amg.models", "amg.storage"},  # names, locks
    "amg.generate": {
        "amg.config",
        "amg.inputs",  # pixels
        "amg.models.interface",
        "amg.models.precision",
        "amg.ops",
    },
    "amg.predict": {
        "amg.config",
        "amg.generate",
        "amg.inputs",
        "amg.models.interface",
        "amg.models.precision",
        "amg.ops",
        "amg.prompts",  # checks
    },
    # From locations to what a run's folder holds, to those who read it.
    "amg.storage": set(),
    "amg.inputs": {"amg.storage"},
    "amg.prompts": {"amg.config", "amg.inputs", "amg.storage"},
    "amg.runs": {"amg.inputs", "amg.ops", "amg.prompts", "amg.storage"},
    "amg.exports": {"amg.ops", "amg.runs", "amg.storage"},
    "amg.evaluate": {"amg.ops", "amg.runs", "amg.storage"},
    "amg.view": {"amg.ops"},
    "amg.view.report": {
        "amg.evaluate",
        "amg.inputs",
        "amg.ops",
        "amg.runs",
        "amg.storage",
        "amg.view",
    },
    # On top.
    "amg.cli": {"amg", "pipelines"},
    "amg": {"amg", "pipelines.corpus.run", "pipelines.refilter"},  # the public names
    "pipelines": {"amg", "pipelines"},
    "pipelines.corpus": {"amg"},
    "pipelines.train": {"amg.models", "amg.ops"},
}
WITHOUT_FILES = {"amg.models.modules", "amg.models.decoding", "amg.models.tracking"}
FILES_ARE_READ_BY = ("fsspec", "io", "os", "pathlib", "pyarrow", "safetensors", "shutil")
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


def _module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _room(module):
    """The longest known room that a module belongs to."""
    return max((room for room in ALLOWED if _within(module, room)), key=len)


def _within(module, package):
    return module == package or module.startswith(package + ".")


def _is_ours(module):
    return _within(module, "amg") or _within(module, "pipelines")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = _module(path)
    room = _room(module)
    assert room != "amg" or module == "amg", f"{path}: in no room"
    for imported in _imports(path):
        if _is_ours(imported) and _room(imported) != room:
            allowed = ALLOWED[room] | LEAVES
            assert any(_within(imported, package) for package in allowed), imported
        if not _within(module, "pipelines"):
            assert not _within(imported, "ray"), "only pipelines may import Ray"
        if room in WITHOUT_FILES:
            assert imported.partition(".")[0] not in FILES_ARE_READ_BY
        assert not _within(imported, "benchmarks")
        assert not _within(imported, "tests")
        if _within(imported, "skimage"):
            assert module in USERS_OF_SKIMAGE


def test_no_circle_of_rooms():
    graph = {room: set() for room in ALLOWED if room != "amg"}  # its names are of all rooms
    for path in FILES:
        room = _room(_module(path))
        if room != "amg":
            graph[room] |= {_room(name) for name in _imports(path) if _is_ours(name)} - {room}
    TopologicalSorter(graph).prepare()  # raises CycleError


ROOMS = [folder for room in ALLOWED if (folder := ROOT / room.replace(".", "/")).is_dir()]


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_each_room_says_who_lives_there(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_there_is_something_to_check():
    assert len(FILES) > 30
    assert len(ROOMS) > 15
