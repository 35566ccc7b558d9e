"""What `amg eval` has kept, on the report page."""

import html
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from amg.evaluate.calibration import calibrate
from amg.evaluate.results import (
    Comparison,
    Evaluation,
    ImageDifference,
    PartnerCounts,
    RegionScore,
    read_evaluations,
)
from amg.storage.stores import open_storage
from amg.view.report.build import write_report
from amg.view.report.calibration import draw_calibration
from amg.view.report.plots import LEFT, RIGHT
from benchmarks.synthetic_run import FINGERPRINT
from tests.view.made_run import blob_masks, good_row, write_image, write_run

SCORES = np.random.default_rng(0).beta(5, 2, (400, 3))


@pytest.fixture
def out(tmp_path):
    image = write_image(tmp_path / "images" / "image.png")
    return write_run(tmp_path / "out", [good_row("a.png", image, blob_masks(1, 3))])


def _evaluation(out, **changes):
    return replace(
        Evaluation(
            kind="bsds",
            out=str(out),
            against="/data/people & <others>",
            fingerprint=FINGERPRINT,
            model="nano",
            is_complete=True,
            rank="mean",
            max_masks=(150,),
            partners=PartnerCounts(1, 0, 0, 2, (), ("b", "c"), ()),
            regions=(RegionScore(150, 1, 7, 3, 0.4321, 0.1234, 0.5),),
            calibration=tuple(calibrate([SCORES])),
        ),
        **changes,
    )


def _page(out):
    return write_report(out).page.read_text()


def _words(page):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_results_are_on_the_page(out):
    _evaluation(out).keep()
    page = _page(out)
    assert page.count('<section id="quality"') == 1
    assert "<others>" not in page
    words = _words(page)
    for said in (
        "Against people & <others> (BSDS500), masks ranked by the mean of predicted IoU",
        "1 image compared. Left out: 2 images of the other side without a row here.",
        "150 3 0.432 0.123 0.500",
        "400 in all",
    ):
        assert said in words, said
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def _comparison(**changes):
    numbers = dict.fromkeys(Comparison.__dataclass_fields__, 1)
    worst = (ImageDifference("a.png", 1, 1, 0, 0),)
    return Comparison(**numbers | {"best_iou_quantiles": {0.5: 0.75}, "worst": worst} | changes)


def test_a_comparison_of_runs_is_a_table_without_charts(out):
    comparison = _comparison()
    of_runs = {"kind": "run", "rank": None, "regions": None, "calibration": None}
    kept = _evaluation(out, **of_runs, comparison=comparison)
    kept.keep()
    assert read_evaluations(open_storage(out), FINGERPRINT) == ([kept], [])
    assert "images exact but for rounding 1 of 1" in _words(_page(out))
    assert "and true IoU" not in _page(out)


def test_what_is_kept_is_read_back(out):
    kept = _evaluation(out)
    kept.keep()
    (out / "evaluation" / "again.json").write_bytes(kept.to_json())
    (out / "evaluation" / "folder.json").mkdir()
    assert read_evaluations(open_storage(out), FINGERPRINT) == ([kept], [])


def test_numbers_that_are_none_are_read_back():
    """As of masks whose stability is no number, or whose predicted IoU is infinite."""
    scores = np.array([[np.inf, np.nan, 0.5], [0.5, 0.5, 0.5]])
    calibration = tuple(calibrate([scores]))
    assert [score.n_masks for score in calibration] == [1, 1]
    kept = _evaluation("memory://odd", calibration=calibration)
    kept = replace(kept, kind="run", comparison=_comparison(max_score_difference=math.inf))
    kept.keep()
    ((found,), problems) = read_evaluations(open_storage("memory://odd"), FINGERPRINT)
    assert found.comparison.max_score_difference is None
    assert (found.calibration, problems) == (calibration, [])


def test_secrets_and_odd_bytes_are_not_kept(out):
    for against in ("s3://key:SECRET@bucket/run?token=SECRET", "/data/\udce9x"):
        kept = _evaluation(out, against=against)
        kept.keep()
        assert "SECRET" not in kept.name + kept.to_json().decode()
    page = _page(out)
    assert "SECRET" not in page
    assert "Against <bdi>run (BSDS500)" in page


@pytest.mark.parametrize("fingerprint", ["e" * 64, None])
def test_results_of_another_plan_are_not_shown(out, fingerprint):
    _evaluation(out, fingerprint=fingerprint).keep()
    assert 'id="quality"' not in _page(out)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "odd.json: not JSON: "),
        (b"\x00\x05\x16\x07", "odd.json: not JSON: "),
        (
            f'{{"kind": "dogs", "fingerprint": "{FINGERPRINT}"}}'.encode(),
            "odd.json: not what this version of amg eval writes (kind)",
        ),
    ],
)
def test_a_result_that_cannot_be_read_is_named_beside_the_others(out, data, said):
    _evaluation(out).keep()
    (out / "evaluation" / "odd.json").write_bytes(data)
    words = _words(_page(out))
    assert f"Not shown: evaluation/{said}" in words
    assert "150 3 0.432 0.123 0.500" in words


@pytest.mark.parametrize("data", [b'{"kind": "dogs"}', b"[]", b"null"])
def test_files_of_others_are_left_alone(out, data):
    (out / "evaluation").mkdir()
    (out / "evaluation" / "odd.json").write_bytes(data)
    assert 'id="quality"' not in _page(out)


def test_results_that_are_older_than_the_rows_say_so(out):
    _evaluation(out, is_complete=False, partners=PartnerCounts(0, 0, 0, 0, (), (), ())).keep()
    words = _words(_page(out))
    assert "The run was not complete: images without a row then are left out." in words
    assert "The run had 0 rows then; evaluate again." in words
    _evaluation(out).keep()
    assert "rows then" not in _words(_page(out))


def test_bars_are_mean_ious_beside_the_line_of_equals():
    scores = np.array([[0.5, 0, 0.25], [0.6, 0, 0.5], [0.605, 0, 1.0], [0.69, 0, 0.0]])
    chart = draw_calibration("key", calibrate([scores])[0])
    ious, counts = chart.panels
    assert [(bar.label, bar.text) for bar in ious.bars] == [
        ("0.50 to 0.51", "0.25"),
        ("0.60 to 0.61", "0.75"),
        ("0.69 to 0.70", "0.00"),
    ]
    assert [bar.text for bar in counts.bars] == ["1", "2", "1"]
    whole = ious.base - ious.top
    assert [bar.height / whole for bar in ious.bars[:2]] == pytest.approx([0.25, 0.75], abs=0.01)
    x1, y1, x2, y2 = ious.diagonal
    assert (x1, x2) == (LEFT, RIGHT)
    heights = [(ious.base - y) / whole for y in (y1, y2)]
    assert heights == pytest.approx([0.5, 0.7], abs=0.01)
    for panel in chart.panels:
        assert panel.base < chart.height
        for bar in panel.bars:
            assert bar.x >= LEFT
            assert bar.x + bar.width <= RIGHT
            assert bar.y + bar.height == pytest.approx(panel.base)
    assert chart.caption.endswith(": Spearman's correlation -0.20, Pearson's -0.18")
    assert chart.description.endswith(
        "mean true IoU 0.25 at scores from 0.50, 0.00 at scores from 0.69"
    )


def test_scores_that_are_all_the_same_have_no_correlation():
    (predicted, _) = calibrate([np.full((3, 3), 0.5)])
    chart = draw_calibration("key", predicted)
    assert "one of them is the same for all masks" in chart.caption
    texts = [tick.text for tick in chart.x_ticks]
    assert len(texts) == len(set(texts)) >= 1
    assert draw_calibration("key", calibrate([])[0]) is None
