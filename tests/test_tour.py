"""The notebook of docs/ runs from top to bottom, as its reader would run it."""

import os
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"
FEW_POINTS = """
from amg.models.zoo.registry import MODELS
MODELS["nano"].generator_defaults["points_per_side"] = 6
"""


def _run(notebook, folder, monkeypatch):
    # The kernel of this interpreter, with this checkout in front.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOUR.parents[1]), *sys.path]))
    # So small a model is slower with more threads, much so on a busy machine.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(folder))  # it leaves a folder behind
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()  # raises what a cell raises


def _check(notebook):
    (equal,) = (cell.outputs for cell in notebook.cells if "annToMask" in cell.source)
    assert equal[-1].data["text/plain"] == "True"
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", {})
    ]
    assert len(pictures) == 3


def test_the_tour_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """With the model's defaults changed to few points, which no cell of the notebook names."""
    notebook = nbformat.read(TOUR, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEW_POINTS))
    _run(notebook, tmp_path, monkeypatch)
    _check(notebook)
    (found,) = (cell.outputs for cell in notebook.cells if "report.tally.masks" in cell.source)
    assert "{'decode_error': 1, 'ok': 4}" in found[-1].data["text/plain"]


@pytest.mark.slow
def test_the_tour_runs_as_it_stands(tmp_path, monkeypatch):
    notebook = nbformat.read(TOUR, as_version=4)
    _run(notebook, tmp_path, monkeypatch)
    _check(notebook)
