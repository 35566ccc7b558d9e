"""A `pipelines` of the user's own in front of ours: it is named, where it is in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.helpers import make_folder

ROOT = Path(__file__).parents[1]
KINDS = {
    "package": "pipelines/__init__.py",
    "module": "pipelines.py",
    "namespace": "pipelines/notes.txt",
}
# What an editable install puts behind Python's own finders, as setuptools writes it.
EDITABLE = f"""
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
ROOT = Path({str(ROOT)!r})
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in ("amg", "pipelines"):
            return spec_from_file_location(name, ROOT / name / "__init__.py")
        parent, _, _ = name.rpartition(".")
        if parent in ("amg", "pipelines"):
            return PathFinder.find_spec(name, path=[str(ROOT / parent)])
sys.meta_path.append(Finder)
"""


def _python(code, folder, *options, install="normal"):
    """Run code in a folder, which Python looks in first; `site` would install amg by itself."""
    paths = [path for path in sys.path if path.endswith("-packages")]
    if install == "normal":
        paths.insert(0, str(ROOT))
    else:
        code = EDITABLE + code
    return subprocess.run(
        [sys.executable, "-S", *options, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """A kind of `pipelines` that is in a folder."""
    path = tmp_path / KINDS[request.param]
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return request.param


NAMES = """
import amg
for name in {names}:
    try:
        print(getattr(amg, name).__module__)
    except ImportError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("install", ["normal", "editable"])
def test_what_is_in_the_way_is_named(kind, install, tmp_path):
    homes = {"Run": "pipelines.corpus.run", "refilter_run": "pipelines.refilter"}
    if (kind, install) in (("package", "editable"), ("namespace", "editable")):
        del homes["refilter_run"]  # it is found as the other is, but imports torch
    done = _python(NAMES.format(names=[*homes]), tmp_path, install=install)
    if kind == "namespace" or (kind, install) == ("package", "editable"):
        assert done.stdout.split() == [*homes.values()], done.stderr
        return
    place = tmp_path / ("pipelines" if kind == "package" else "pipelines.py")
    assert done.stdout.count(f"ShadowedError {place} is in the way") == 2, done.stderr
    assert f"looks in {tmp_path} first" in done.stdout
    assert "rename it" in done.stdout


def test_commands_say_so_if_they_need_ours(kind, tmp_path):
    code = """
from amg.cli import app
app(["models"], standalone_mode=False)
print("and then")
app(["status", "out"])
"""
    done = _python(code, tmp_path)
    if kind == "namespace":
        assert "is in the way" not in done.stderr
    else:
        assert f"error: {tmp_path}/pipelines" in done.stderr
    assert done.returncode == 2  # there is no run either
    models, _, status = done.stdout.partition("and then")
    assert "nano" in models
    assert not status.strip()


def test_workers_look_where_their_driver_does(kind, tmp_path):
    """The current folder is none of these places when the `amg` command is called."""
    make_folder(tmp_path / "in", 2)
    code = "from tests.pipelines.helpers import make_run; make_run('in', 'out').execute()"
    done = _python(code, tmp_path, "-P")
    assert (tmp_path / "out" / "_SUCCESS").exists(), done.stderr


@pytest.mark.parametrize("kind", ["package", "module"], indirect=True)
def test_workers_of_ray_would_look_in_the_current_folder(kind, tmp_path):
    make_folder(tmp_path / "in", 2)
    code = (
        "from tests.pipelines.helpers import make_run\n"
        "make_run('in', 'out', 'engine.name=ray', 'engine.max_workers=1').execute()"
    )
    assert f"ShadowedError: {tmp_path}/pipelines" in _python(code, tmp_path, "-P").stderr
