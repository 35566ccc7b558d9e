"""The notebook of docs/ runs from top to bottom, as its reader would run it."""

import os
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def test_the_tour_runs_from_top_to_bottom(tmp_path, monkeypatch):
    notebook = nbformat.read(TOUR, as_version=4)
    # The kernel of this interpreter, with this checkout in front.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOUR.parents[1]), *sys.path]))
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # raises what a cell raises
    (equal,) = (cell.outputs for cell in notebook.cells if "annToMask" in cell.source)
    assert equal[-1].data["text/plain"] == "True"
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", {})
    ]
    assert len(pictures) == 3
