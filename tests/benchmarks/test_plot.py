from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks import plot, record
from benchmarks.plot import draw_speed, draw_stages, save
from tests.benchmarks.runs import DEVICE_RUN, GPU, SPEED_RUN, speed_run

RUNS = [SPEED_RUN, speed_run(imgsz=1024), DEVICE_RUN]


def _points(figure):
    """Of each line that has a label of its own: megapixels and times faster."""
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    return {label: xy for label, xy in lines.items() if not label.startswith("_")}


def test_a_line_for_each_thing_and_peer():
    points = _points(draw_speed(RUNS))
    assert list(points) == [
        "nano, 448 px, beside original",
        "nano, 448 px, beside transformers",
        "nano, 1024 px, beside original",
        "nano, 1024 px, beside transformers",
    ]
    np.testing.assert_allclose(points["nano, 448 px, beside original"], [(0.2, 4), (3.0, 16)])
    np.testing.assert_allclose(points["nano, 448 px, beside transformers"], [(0.2, 6), (3.0, 24)])


def test_the_last_run_of_a_thing_counts():
    later = replace(SPEED_RUN, photos=SPEED_RUN.photos[:1])
    points = _points(draw_speed([SPEED_RUN, later]))
    np.testing.assert_allclose(points["nano, 448 px, beside original"], [(0.2, 4)])


def test_machines_are_told_apart_where_there_are_two():
    labels = list(_points(draw_speed([SPEED_RUN, speed_run(machine=GPU, device="cuda")])))
    assert labels[0] == "nano, 448 px, Some CPU, 2 threads, beside original"
    assert labels[2] == "nano, 448 px, Some GPU, beside original"


def test_bars_of_stages_fill_the_whole():
    (axes,) = draw_stages(RUNS).axes
    assert [tick.get_text().split(",")[0] for tick in axes.get_yticklabels()] == [
        "nano",
        "nano",
        "sam_vit_h",
    ]
    widths = [patch.get_width() for patch in axes.patches]
    assert sum(widths) == pytest.approx(3.0)
    assert widths[:6] == pytest.approx([0.25, 0.5, 0.15, 0.05, 0.025, 0.025])


def test_a_run_without_a_profile_has_no_bar():
    rows = tuple(replace(row, stages=None) for row in SPEED_RUN.photos)
    (axes,) = draw_stages([replace(SPEED_RUN, photos=rows)]).axes
    assert not axes.patches


def test_files_are_made_and_are_the_same_again(tmp_path):
    results = tmp_path / "results.jsonl"
    for run in RUNS:
        record.append(results, run)
    app = plot.typer.Typer()
    app.command()(plot.main)
    drawn = []
    for _ in range(2):
        done = CliRunner().invoke(app, [str(results), "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
        drawn.append([(tmp_path / f"{name}.svg").read_bytes() for name in ("speed", "stages")])
    assert all(b"</svg>" in picture for picture in drawn[0])
    assert drawn[0] == drawn[1]


def test_a_raster_picture_has_ink(tmp_path):
    save(draw_stages, RUNS, tmp_path / "stages.png")
    pixels = np.asarray(Image.open(tmp_path / "stages.png").convert("RGB"))
    assert pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 6
