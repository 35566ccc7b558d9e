from dataclasses import replace

import pytest

from benchmarks import record
from benchmarks.table import means_line, photo_line, stages_table, total_stages
from tests.benchmarks.runs import DEVICE_RUN, SPEED_RUN


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "results.jsonl"
    row = replace(SPEED_RUN.photos[0], parity=None, stages=None)
    runs = [SPEED_RUN, DEVICE_RUN, replace(SPEED_RUN, reference=None, photos=(row,))]
    for run in runs:
        record.append(path, run)
    assert record.read(path) == runs
    assert len(path.read_text().splitlines()) == len(runs)


@pytest.mark.parametrize("line", ["{}", '{"kind": "speed"}', '{"kind": "other"}', "no JSON"])
def test_a_line_that_is_no_run_is_refused(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="validation error"):
        record.read(path)


def test_a_photo_in_words():
    line = photo_line(SPEED_RUN.photos[0], SPEED_RUN.peers, SPEED_RUN.reference)
    assert line == (
        "| small.jpg | 0.20 | 2.00 | 1000 | 30, 29 identical, exact "
        "| 4.0 x | 1.5 x | 30 | 6.0 x | 2.0 x | 28, 27 of original's 30 |"
    )


def test_no_reference_no_verdict():
    row = replace(SPEED_RUN.photos[0], parity=None)
    assert photo_line(row, ("transformers",), None).endswith("| 30 | 6.0 x | 2.0 x | 28 |")


def test_other_masks_are_said_to_be_other():
    row = SPEED_RUN.photos[0]
    row = replace(row, parity=replace(row.parity, exact=False, n_ours=31, min_iou=0.5))
    line = photo_line(row, SPEED_RUN.peers, SPEED_RUN.reference)
    assert "| 31 for 30, 29 identical, NOT EXACT, least IoU 0.5000 |" in line


def test_means_are_geometric():
    assert means_line(SPEED_RUN.photos, ("original",)).endswith("| 8.0 x | 1.5 x |  |")  # 4 and 16


def test_stages_add_up_over_photos():
    total = total_stages(SPEED_RUN.photos)
    assert total == {
        "encode": 1.0,
        "decode": 2.0,
        "measure": 0.6,
        "nms": 0.2,
        "rle": 0.1,
        "other": 0.1,
    }
    assert "| decode | 2.000 | 50% |" in stages_table(total)
