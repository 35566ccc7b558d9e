"""The folder of a report: what is in it, where it may go, and what it says of odd runs."""

import html
import json
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from amg.cli import app
from amg.errors import ConfigError, OutputError, RunError, ShardError
from amg.inputs.sources import list_sources
from amg.ops import rle
from amg.records import Prompt
from amg.runs.schema import ImageRow
from amg.view.overlay import draw_overlay, index_colour
from amg.view.report import pictures
from amg.view.report.build import write_report
from benchmarks.synthetic_run import VERSION
from tests.view.made_run import (
    HOSTILE_IDS,
    SIZE_HW,
    blob_masks,
    good_row,
    log_events,
    rectangle_masks,
    write_image,
    write_run,
)


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "images" / "image.png")


@pytest.fixture
def out(image, tmp_path):
    """Nine images with masks, one of them failed."""
    rows = [good_row(f"{i}.png", image, blob_masks(i, i)) for i in range(9)]
    rows[4] = ImageRow("4.png", "/not/there.png", "missing", "no such file")
    return write_run(tmp_path / "out", rows)


def _text(page):
    """What a reader sees of a page, in one line."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def _data(path):
    """The values that a data file hands to the page."""
    match = re.fullmatch(
        r"amgReport\.(gallery|image)\((.*)\);\n", path.read_text("ascii"), re.DOTALL
    )
    return json.loads(match.group(2))


def _files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_files_are_numbers_and_every_one_is_used(out):
    report = write_report(out)
    assert report.page == out / "report" / "index.html"
    assert (report.n_images, report.n_shown, report.n_unreadable) == (9, 9, 1)
    shown = [i for i in range(9) if i != 4]
    expected = ["data/gallery.js", "index.html", "report.css", "report.js"]
    expected += [f"data/{i:06d}.js" for i in range(9)]
    expected += [f"{kind}/{i:06d}.jpg" for i in shown for kind in ("images", "thumbs")]
    assert _files(out / "report") == sorted(expected)


def test_a_page_says_what_the_run_found(out):
    events = [
        (1000.0, "a", "started", {}),
        (1002.0, "a", "worker_ready", {"worker": 0}),
        (1004.0, "a", "committed", {"images": 9}),
        (1004.5, "a", "ended", {}),
    ]
    log_events(out, *events)
    text = _text(write_report(out).page)
    for said in (
        f"nano found {sum(range(9)) - 4} masks in 8 images ; 1 image failed .",
        "Images 9 all that were planned",
        "Failed 1 1 missing",
        "2 images/s 4.5 s at work",
        "4.png /not/there.png no such file",
        "Weights, sha256 " + "ab" * 32,
        f"Made with amg {VERSION}",
        "Begun 1 January 1970, 00:16 UTC",
        "points_per_side 24 use_m2m no point_grids none",
    ):
        assert re.sub(r"\s", "", said) in re.sub(r"\s", "", text), said
    assert "not complete" not in text


def test_data_are_what_the_rows_hold(image, tmp_path):
    masks = rectangle_masks()
    out = write_run(tmp_path / "out", [good_row("a.png", image, masks)])
    write_report(out)
    index = _data(out / "report/data/gallery.js")
    (item,) = index["items"]
    union = np.any([rle.decode(mask.rle) for mask in masks], axis=0)
    assert item["coverage"] == union.mean()
    assert (item["id"], item["masks"], item["note"], item["status"]) == ("a.png", 3, None, "ok")
    assert (item["height"], item["width"]) == SIZE_HW
    shown = _data(out / "report/data/000000.js")["masks"]
    assert [mask["index"] for mask in shown] == [1, 2, 0], "largest first"
    for found in shown:
        mask = masks[found["index"]]
        assert found["counts"] == mask.rle.counts
        assert tuple(found["colour"]) == index_colour(found["index"])
        assert (found["area"], found["iou"]) == (mask.area, mask.predicted_iou)
        assert (found["stability"], found["level"]) == (mask.stability_score, 1)


def test_masks_have_the_colours_of_their_categories(image, tmp_path):
    asked = [
        Prompt(box_xyxy=(1, 2, 3, 4), prompt_id="a", category="dog", score=0.25),
        Prompt(points_xy=((5, 6), (7, 8)), labels=(1, 0), category="cat"),
        Prompt(box_xyxy=(0, 0, 9, 9), prompt_id="c", category="dog"),
    ]
    masks = [
        replace(mask, point_xy=None, prompt=prompt)
        for mask, prompt in zip(rectangle_masks(), asked, strict=True)
    ]
    rows = [good_row("a.png", image, tuple(masks))]
    out = write_run(tmp_path / "out", rows, categories={"cat": 7, "dog": 3})
    write_report(out)
    shown = {m["index"]: m for m in _data(out / "report/data/000000.js")["masks"]}
    colours = [tuple(shown[i]["colour"]) for i in range(3)]
    assert colours == [index_colour(0), index_colour(1), index_colour(0)]
    known = [(m["prompt"], m["category"], m["score"]) for _, m in sorted(shown.items())]
    assert known == [("a", "dog", 0.25), (None, "cat", None), ("c", "dog", None)]
    assert (shown[0]["asked"], shown[0]["points"]) == ([1, 2, 3, 4], [])
    assert (shown[1]["asked"], shown[1]["points"]) == (None, [[5, 6], [7, 8]])
    thumb = np.asarray(Image.open(out / "report/thumbs/000000.jpg"), float)
    picture = np.asarray(Image.open(image))
    by_category, by_index = (draw_overlay(picture, masks, colours=c) for c in (colours, None))
    assert np.abs(thumb - by_category).mean() < np.abs(thumb - by_index).mean()


def test_a_thumbnail_has_the_masks_and_the_picture_does_not(image, tmp_path):
    masks = rectangle_masks()
    out = write_run(tmp_path / "out", [good_row("a.png", image, masks)])
    write_report(out)
    pixels = np.asarray(Image.open(image))
    thumb = np.asarray(Image.open(out / "report/thumbs/000000.jpg")).astype(int)
    assert np.abs(thumb - draw_overlay(pixels, masks)).mean() < 12, "but for JPEG"
    picture = np.asarray(Image.open(out / "report/images/000000.jpg")).astype(int)
    assert np.abs(picture - pixels).mean() < 12


def test_large_images_are_made_smaller_with_their_masks(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (3000, 1000), "grey").save(path)
    bits = np.zeros((1000, 3000), bool)
    bits[:, 1500:] = True
    (encoded,) = rle.encode_masks(bits[None])
    mask = replace(rectangle_masks()[0], rle=encoded, area=int(bits.sum()))
    row = replace(good_row("large", path, (mask,)), height=1000, width=3000)
    out = write_run(tmp_path / "out", [row])
    write_report(out)
    assert Image.open(out / "report/images/000000.jpg").size == (1600, 533)
    thumb = Image.open(out / "report/thumbs/000000.jpg")
    assert thumb.size == (400, 133)
    assert np.ptp(thumb.getpixel((100, 66))) < 12, "grey, under no mask"
    assert np.ptp(thumb.getpixel((300, 66))) > 60, "in the mask's colour"


@pytest.mark.parametrize("image_id", HOSTILE_IDS)
def test_names_are_text_and_never_files(image, tmp_path, image_id):
    rows = [
        good_row(image_id, image, blob_masks(0, 2)),
        ImageRow(f"bad {image_id}", image_id, "decode_error", f"a reason {image_id}"),
    ]
    out = write_run(tmp_path / image_id.replace("/", "_")[:40], rows)
    page = write_report(out).page
    source = page.read_text()
    assert source.count("<script") == 2, "ours and the gallery's"
    assert "<img src=x" not in source
    assert f"bad {image_id}" in html.unescape(source)
    assert [item["id"] for item in _data(page.parent / "data/gallery.js")["items"]] == [
        row.image_id for row in rows
    ]
    names = [part for name in _files(page.parent) for part in name.split("/")]
    assert all(re.fullmatch(r"[a-z]+|\d{6}\.\w+|\w+\.(html|css|js)", part) for part in names)


def test_nothing_inline_may_run(out):
    source = write_report(out).page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source).group(1)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|https?://", source)


def test_a_file_that_no_worker_has_lived_to_read_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "read_planned_image", lambda *_: pytest.fail("opened"))
    row = ImageRow("a.png", str(write_image(tmp_path / "a.png", 1)), "crashed", "workers died")
    report = write_report(write_run(tmp_path / "out", [row]))
    (item,) = _data(report.page.parent / "data/gallery.js")["items"]
    assert item["note"] == "The file was not opened again: workers died of it."


def test_no_html_is_made_in_the_browser(out):
    script = (write_report(out).page.parent / "report.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script)


def test_pictures_that_are_gone_or_changed_say_so(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", i) for i in range(5)]
    rows = [good_row(path.name, path, blob_masks(i, 2)) for i, path in enumerate(paths)]
    rows[4] = replace(rows[4], status="crashed", error="two workers died", masks=())
    out = write_run(tmp_path / "out", rows)
    paths[0].unlink()
    write_image(paths[1], 77)
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    report = write_report(out)
    items = _data(out / "report/data/gallery.js")["items"]
    assert [item["note"] for item in items] == [
        "The file is not there any more: no such file.",
        "There is no picture: the file has changed since the run.",
        "There is no picture: the file has changed since the run.",
        None,
        None,
    ]
    assert report.n_unreadable == 3
    assert not (out / "report/images/000001.jpg").exists()
    assert (out / "report/images/000004.jpg").exists(), "it is there, only without masks"
    assert len(_data(out / "report/data/000000.js")["masks"]) == 2, "masks are kept all the same"


def test_images_are_read_as_workers_read_them(image, tmp_path):
    with tarfile.open(tmp_path / "pack.tar", "w") as tar:
        for name in ("one.png", "two.png"):
            tar.add(image, name)
    sources = list(list_sources([tmp_path / "pack.tar"]))
    rows = [replace(good_row(s.image_id, image, ()), uri=s.uri) for s in sources]
    out = write_run(tmp_path / "out", rows, sources=sources)
    assert write_report(out).n_unreadable == 0
    items = _data(out / "report/data/gallery.js")["items"]
    assert [item["id"] for item in items] == ["pack.tar::one.png", "pack.tar::two.png"]


def test_of_a_long_run_a_sample_is_shown_and_the_page_says_which(image, tmp_path):
    rows = [good_row(f"{i}", image, blob_masks(i % 7, i % 7)) for i in range(60)]
    out = write_run(tmp_path / "out", rows, images_per_shard=16)
    report = write_report(out, n_images=20)
    index = _data(out / "report/data/gallery.js")
    assert report.n_shown == len(index["items"]) <= 20
    assert not index["isAll"]
    assert index["extremes"] == {"fewest": 2, "most": 2, "uncovered": 2, "slowest": 2, "failed": 0}
    shown = [item["row"] for item in index["items"]]
    assert {0, 7, 6, 13} <= {*shown}, "no masks, and most"
    assert {*index["sample"]} <= {*shown}
    text = _text(report.page)
    assert f"{len(shown)} of 60 images: up to 2 most extreme of each view" in text
    assert f"{len(index['sample'])} drawn uniformly" in text


def test_a_run_that_goes_on_says_so(out):
    (out / "commits/00001.json").unlink()
    text = _text(write_report(out).page)
    assert "This run is not complete. 5 of 9 images are committed" in text
    assert "Images 5 of 9 planned" in text


def test_an_empty_run(image, tmp_path):
    rows = [good_row("a", image, ())]
    report = write_report(write_run(tmp_path / "out", rows, leave_out=(0,)))
    assert (report.n_images, report.n_shown) == (0, 0)
    text = _text(report.page)
    assert "No image is done yet: 1 image planned." in text
    assert "Distributions" not in text
    assert _files(report.page.parent) == [
        "data/gallery.js",
        "index.html",
        "report.css",
        "report.js",
    ]


def test_a_run_of_failures_only(tmp_path):
    rows = [ImageRow(f"{i}", f"/{i}", "missing", "no such file") for i in range(3)]
    report = write_report(write_run(tmp_path / "out", rows))
    text = _text(report.page)
    assert "nano found 0 masks in 0 images; 3 images failed." in text
    assert "Mask area" not in text
    assert "Masks 0" in text


def test_a_run_without_a_single_mask(image, tmp_path):
    text = _text(write_report(write_run(tmp_path / "out", [good_row("a", image, ())])).page)
    assert "Coverage 0 %" in text
    assert "Mask area" not in text
    assert "Masks an image" in text


def test_a_report_takes_the_place_of_one(out):
    write_report(out)
    stale = out / "report" / "images" / "000777.jpg"
    stale.write_bytes(b"")
    write_report(out)
    assert not stale.exists()
    assert [p.name for p in out.iterdir() if p.name.startswith(".report")] == []


def test_what_is_no_report_is_never_touched(out, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "index.html").write_text("<p>my page</p>")
    file = tmp_path / "file"
    file.write_text("mine")
    for taken in (folder, file):
        with pytest.raises(OutputError, match=f"{taken.name} is there and is no report"):
            write_report(out, taken)
    assert (folder / "index.html").read_text() == "<p>my page</p>"
    assert file.read_text() == "mine"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write_report(out, empty).page.exists()


def test_a_report_that_cannot_be_made_leaves_the_old_one(out):
    page = write_report(out).page
    before = page.read_text()
    for shard in (out / "data").iterdir():
        shard.write_bytes(b"PAR1")
    with pytest.raises(ShardError):
        write_report(out)
    assert page.read_text() == before


def test_a_run_on_an_object_store_needs_a_folder(image, tmp_path, storage):
    out = write_run(storage.address, [good_row("a", image, blob_masks(1, 3))])
    if "://" in storage.address:
        with pytest.raises(ConfigError, match="--out: give a folder here"):
            write_report(out)
    page = write_report(out, tmp_path / "local").page
    assert "nano found 3 masks in 1 image" in _text(page)
    with pytest.raises(ConfigError, match="a report goes to a local folder"):
        write_report(out, "s3://bucket/report")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command(out, tmp_path):
    result = CliRunner().invoke(
        app, ["report", str(out), "--images", "5", "--out", f"{tmp_path}/r"]
    )
    assert result.exit_code == 0, result.output
    assert "of 9 images shown" in result.output
    assert str(tmp_path / "r" / "index.html") in result.output.replace("\n", "")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "holds no run" in result.output
