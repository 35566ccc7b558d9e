"""The report in a real browser: opened from the disk, with no server, network or inline code."""

import re
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from pycocotools import mask as pycoco

from amg.ops import rle
from amg.ops.rle_resize import shrink
from amg.records import Prompt
from amg.runs.schema import ImageRow
from amg.view.overlay import index_colour
from amg.view.report.build import write_report
from tests.view.made_run import (
    BIG,
    HOSTILE_IDS,
    OTHER,
    SIZE_HW,
    SMALL,
    blob_masks,
    good_row,
    rectangle_masks,
    write_image,
    write_run,
)

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
N_PLAIN = 40
CHANGED, GONE, MISSING, BROKEN, EMPTY = range(10, 15)
"""Rows of images without picture, and of one without masks; row 0 has the known rectangles."""
ASKED = 16
"""The row of an image whose masks are answers to prompts."""
FIRST_HOSTILE = 20
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 375, "height": 760}
MOBILE = {"has_touch": True, "is_mobile": True}
PATIENCE_MS = 60_000  # on a busy machine; what comes is not waited for any longer


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


def _asked_masks():
    """The rectangles, asked by a box, by two points, and by a box of no category."""
    prompts = (
        Prompt(box_xyxy=(18, 12, 42, 33), prompt_id="p0", category="<b>dog", score=0.75),
        Prompt(points_xy=((30, 20), (8, 50)), labels=(1, 0), prompt_id="p1", category="cat"),
        Prompt(box_xyxy=(65, 20, 85, 50)),
    )
    pairs = zip(rectangle_masks(), prompts, strict=True)
    return tuple(replace(mask, point_xy=None, prompt=prompt) for mask, prompt in pairs)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [write_image(folder / f"{i}.png", i) for i in range(N_PLAIN)]
    rows = [
        good_row(f"{i:03d}.png", path, blob_masks(i, i * 5 % 13 + 1), seconds=0.1 + i * 7 % 40 / 40)
        for i, path in enumerate(paths)
    ]
    rows[0] = good_row("rectangles.png", paths[0], rectangle_masks())
    rows[ASKED] = good_row("asked.png", paths[ASKED], _asked_masks())
    write_image(paths[CHANGED], 99)
    paths[GONE].unlink()
    rows[MISSING] = ImageRow("missing.png", "/no/such.png", "missing", "no such file")
    rows[BROKEN] = ImageRow("broken.png", "/broken.png", "decode_error", "PNG: <b>truncated</b>")
    rows[EMPTY] = good_row("empty.png", paths[EMPTY], ())
    for i, image_id in enumerate(HOSTILE_IDS, start=FIRST_HOSTILE):
        rows[i] = replace(rows[i], image_id=image_id)
    return rows


@pytest.fixture(scope="module")
def address(rows, tmp_path_factory):
    out = write_run(tmp_path_factory.mktemp("a run") / "out <b>", rows)
    return write_report(out).page.as_uri()


class Pages:
    """A page of each kind of device, which tests open one after the other, and what goes wrong."""

    def __init__(self, browser):
        self._browser = browser
        self._pages = {}
        self.wrong = []

    def of(self, **device):
        key = tuple(sorted(device.items()))
        if key not in self._pages:
            self._pages[key] = page = self._browser.new_context(**device).new_page()
            page.set_default_timeout(PATIENCE_MS)
            self._listen(page)
        return self._pages[key]

    def _listen(self, page):
        wrong = self.wrong
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("request", lambda r: r.url.startswith("file://") or wrong.append(r.url))

    def leave(self, blank):
        """Begin anew; gives what has gone wrong since the last time."""
        for page in self._pages.values():
            page.evaluate("localStorage.clear()")
        wrong = self.wrong[:]
        for page in self._pages.values():
            page.goto(blank)
        self.wrong.clear()  # pictures that were still loading when the page was left
        return wrong


@pytest.fixture(scope="module")
def pages(browser):
    playwright.expect.set_options(timeout=PATIENCE_MS)
    yield Pages(browser)
    playwright.expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """The address of an empty page, which the browser opens in the process that it has."""
    path = tmp_path_factory.mktemp("blank") / "blank.html"
    path.write_text("<!doctype html><title>blank</title>")
    return path.as_uri()


@pytest.fixture
def open_page(pages, address, blank):
    """Open the report on some device; at the end, nothing may have gone wrong in it."""

    def open_page(at="", viewport=DESKTOP, color_scheme="light", **options):
        motion = options.pop("reduced_motion", "no-preference")
        page = pages.of(**options)
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=color_scheme, reduced_motion=motion)
        page.mouse.move(0, 0)
        if page.url != blank:
            page.goto(blank)  # or another `at` would not load the report anew
        page.goto(address + at)
        return page

    yield open_page
    assert pages.leave(blank) == []


def _expect_place(page, end):
    """The address ends so, or soon: the browser tells of a change later than it is made."""
    playwright.expect(page).to_have_url(re.compile(re.escape(end) + "$"))


def _viewer(page):
    return page.get_by_role("dialog")


def _wait_for_masks(page, text):
    playwright.expect(page.locator("#count")).to_have_text(text)


def _at(page, y, x):
    """Where a pixel of the image, given by its row and column, is on the screen."""
    box = page.locator("#frame").bounding_box()
    scale = box["width"] / SIZE_HW[1]
    return box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale


def _middle(rectangle):
    return tuple((part.start + part.stop) // 2 for part in rectangle)


def _names(page):
    return page.locator("#grid .name").all_text_contents()


def test_it_opens_and_its_parts_have_names(open_page):
    page = open_page()
    playwright.expect(page).to_have_title(f"out <b>: masks of {N_PLAIN} images")
    page.get_by_role("heading", level=1, name="out <b>").wait_for()
    for name in ("Failures", "Gallery", "Distributions", "About this run"):
        page.get_by_role("heading", level=2, name=name).wait_for()
        page.get_by_role("region", name=name).first.wait_for()
    for name in ("Mask area", "Predicted IoU", "Stability score", "Seconds by stage"):
        plot = page.get_by_role("img", name=name)
        assert "median" in plot.locator("desc").text_content()
        page.get_by_text(f"{name} as a table").wait_for()
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Gallery").wait_for()
    page.get_by_role("group", name="Order").get_by_role("radio", name="Fewest masks").wait_for()
    page.get_by_role("searchbox", name="Find by name").wait_for()
    page.get_by_role("list", name="Images").get_by_role("link", name="rectangles.png").wait_for()
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len({*ids})


def test_a_plots_table_has_its_numbers(open_page):
    page = open_page()
    page.get_by_text("Masks an image as a table").click()
    table = page.get_by_role("table", name="Images")
    cells = table.get_by_role("cell").all_text_contents()
    assert sum(map(int, cells)) == N_PLAIN - 2


def test_the_browser_decodes_as_pycocotools(open_page):
    page = open_page()
    rng = np.random.default_rng(5)
    sizes = [(1, 1), (1, 50), (50, 1), (37, 91), (130, 120)]
    for (h, w), share in product(sizes, [0.0, 0.01, 0.5, 1.0]):
        (encoded,) = rle.encode_masks(rng.random((1, h, w)) < share)
        bits = pycoco.decode({"size": [h, w], "counts": encoded.counts})
        ends = page.evaluate("(counts) => [...amgReport.readRunEnds(counts)]", encoded.counts)
        np.testing.assert_array_equal(ends, np.cumsum(rle.runs(encoded)))
        inside = page.evaluate(
            """([counts, n]) => {
                const ends = amgReport.readRunEnds(counts);
                const isInside = (_, place) => Number(amgReport.isInside(ends, place));
                return Array.from({length: n}, isInside).join("");
            }""",
            [encoded.counts, h * w],
        )
        np.testing.assert_array_equal(np.reshape([*map(int, inside)], (w, h)).T, bits)


def test_the_browser_reads_counts_of_seven_characters(open_page):
    page = open_page()
    lengths = [2**30 - 12, 5, 7]
    mask = rle.from_runs(lengths, (2**15, 2**15))
    assert page.evaluate("(counts) => [...amgReport.readRunEnds(counts)]", mask.counts) == list(
        np.cumsum(lengths)
    )


def test_masks_are_painted_at_the_size_of_the_canvas(open_page):
    page = open_page()
    h, w = 37, 91
    (encoded,) = rle.encode_masks(np.random.default_rng(6).random((1, h, w)) < 0.4)
    for canvas_wh in [(91, 37), (40, 20), (7, 37), (200, 90)]:
        expected = _expected_on_canvas(encoded, canvas_wh)
        found = _painted(page, encoded, canvas_wh)
        np.testing.assert_array_equal(found, expected, err_msg=f"{canvas_wh}")


def _painted(page, encoded, canvas_wh):
    """What the browser has of a mask on a canvas of that size."""
    h, w = encoded.size_hw
    width, height = canvas_wh
    found = page.evaluate(
        """([counts, w, h, width, height]) => {
            const grid = new amgReport.Grid(w, h, width, height);
            grid.paint(amgReport.readRunEnds(counts), 1);
            return [...grid.atCanvas(width, height)];
        }""",
        [encoded.counts, w, h, width, height],
    )
    return np.reshape(found, (height, width))


def _expected_on_canvas(encoded, canvas_wh):
    h, w = encoded.size_hw
    width, height = canvas_wh
    if width <= w:
        return rle.decode(shrink(encoded, (height, width)))
    ys, xs = (
        ((np.arange(n) + 0.5) * full / n).astype(int) for n, full in ((height, h), (width, w))
    )
    return rle.decode(encoded)[np.ix_(ys, xs)]


def test_pointing_shows_the_smallest_mask_there(open_page):
    page = open_page("#image=0")
    _wait_for_masks(page, "3 of 3 masks")
    heading = page.locator("#mask .heading")
    page.mouse.move(*_at(page, *_middle(SMALL)))
    playwright.expect(heading).to_have_text("Mask 0")
    described = page.locator("#mask").inner_text()
    for said in ("0.90", "0.60", "300 px · 5.6 %", "20, 15 · 19 × 14", "1 of 2"):
        assert said in described
    page.mouse.move(*_at(page, BIG[0].start, BIG[1].start))
    playwright.expect(heading).to_have_text("Mask 1")
    page.mouse.move(*_at(page, *_middle(OTHER)))
    playwright.expect(heading).to_have_text("Mask 2")
    page.mouse.move(*_at(page, 2, 2))
    playwright.expect(page.locator("#mask")).to_be_hidden()


def test_a_click_takes_the_next_mask_at_the_same_place(open_page):
    page = open_page("#image=0")
    _wait_for_masks(page, "3 of 3 masks")
    place, heading = _at(page, *_middle(SMALL)), page.locator("#mask .heading")
    page.mouse.move(*place)
    playwright.expect(heading).to_have_text("Mask 0")
    page.mouse.click(*place)
    playwright.expect(heading).to_have_text("Mask 1")
    page.mouse.click(*place)
    playwright.expect(heading).to_have_text("Mask 0")


def test_a_tap_does_the_same(open_page):
    page = open_page("#image=0", viewport=PHONE, **MOBILE)
    _wait_for_masks(page, "3 of 3 masks")
    heading = page.locator("#mask .heading")
    for expected in ("Mask 0", "Mask 1", "Mask 0"):
        page.touchscreen.tap(*_at(page, *_middle(SMALL)))
        playwright.expect(heading).to_have_text(expected)
    page.touchscreen.tap(*_at(page, *_middle(OTHER)))
    playwright.expect(heading).to_have_text("Mask 2")


def test_the_list_is_worked_with_keys(open_page):
    page = open_page("#image=0")
    _wait_for_masks(page, "3 of 3 masks")
    box = page.get_by_role("listbox", name="Masks, largest first")
    options = box.get_by_role("option")
    assert options.all_text_contents() == ["Mask 150.9 %", "Mask 211.1 %", "Mask 05.6 %"]
    box.focus()
    heading = page.locator("#mask .heading")
    for key, expected in (("", 1), ("ArrowDown", 2), ("End", 0), ("ArrowUp", 2), ("Home", 1)):
        if key:
            page.keyboard.press(key)
        playwright.expect(heading).to_have_text(f"Mask {expected}")
        name = re.compile(rf"Mask {expected}, predicted IoU 0\.\d\d, stability 0\.\d\d, .* %")
        chosen = box.get_by_role("option", name=name, selected=True)
        playwright.expect(chosen).to_have_count(1)
        assert box.get_attribute("aria-activedescendant") == chosen.get_attribute("id")


def test_masks_are_drawn_in_their_colours(open_page):
    page = open_page("#image=0")
    _wait_for_masks(page, "3 of 3 masks")

    def drawn(canvas, y, x):
        return page.evaluate(
            """([id, y, x]) => {
                const canvas = document.getElementById(id);
                const at = [x * canvas.width, y * canvas.height].map(Math.floor);
                const copy = document.createElement("canvas");
                [copy.width, copy.height] = [canvas.width, canvas.height];
                const context = copy.getContext("2d", {willReadFrequently: true});
                context.drawImage(canvas, 0, 0);
                return [...context.getImageData(...at, 1, 1).data];
            }""",
            [canvas, (y + 0.5) / SIZE_HW[0], (x + 0.5) / SIZE_HW[1]],
        )

    for index, rectangle in ((1, BIG), (2, OTHER), (0, SMALL)):
        y, x = (part.stop - 3 for part in rectangle)
        *colour, alpha = drawn("overlay", y, x)
        np.testing.assert_allclose(colour, index_colour(index), atol=2)
        assert alpha == 128
    assert drawn("overlay", 2, 2) == [0, 0, 0, 115], "shaded"
    assert drawn("highlight", *_middle(SMALL))[3] == 0
    page.mouse.move(*_at(page, SMALL[0].start + 2, SMALL[1].start + 2))
    playwright.expect(page.locator("#mask .heading")).to_have_text("Mask 0")
    np.testing.assert_allclose(drawn("highlight", 28, 38)[:3], index_colour(0), atol=2)
    assert drawn("highlight", 50, 50)[3] == 0
    page.keyboard.press("m")
    assert drawn("overlay", 2, 2)[3] == 0, "not drawn any more"


def test_what_was_asked_is_said_and_drawn(open_page):
    page = open_page(f"#image={ASKED}")
    _wait_for_masks(page, "3 of 3 masks")
    described, heading = page.locator("#mask"), page.locator("#mask .heading")
    page.mouse.move(*_at(page, *_middle(SMALL)))
    playwright.expect(heading).to_have_text("Mask 0")
    for said in ("<b>dog", "0.75", "p0"):
        playwright.expect(described).to_contain_text(said)
    page.mouse.move(*_at(page, BIG[0].start, BIG[1].start))
    playwright.expect(heading).to_have_text("Mask 1")
    for said in ("cat", "p1", "30, 20 · 8, 50"):
        playwright.expect(described).to_contain_text(said)
    page.mouse.move(*_at(page, *_middle(OTHER)))
    playwright.expect(heading).to_have_text("Mask 2")
    playwright.expect(described).not_to_contain_text("Category")
    options = page.locator("#list [role=option]").all_text_contents()
    assert [text.partition("mask")[0] for text in options] == ["cat, ", options[1], "<b>dog, "]


def test_sliders_filter(open_page):
    page = open_page("#image=0")
    _wait_for_masks(page, "3 of 3 masks")
    page.get_by_label("predicted IoU from").fill("0.6")
    _wait_for_masks(page, "2 of 3 masks")
    page.mouse.move(*_at(page, BIG[0].start, BIG[1].start))
    playwright.expect(page.locator("#mask")).to_be_hidden()
    page.mouse.move(*_at(page, *_middle(SMALL)))
    playwright.expect(page.locator("#mask .heading")).to_have_text("Mask 0")
    page.get_by_label("stability from").fill("0.7")
    _wait_for_masks(page, "1 of 3 masks")
    playwright.expect(page.locator("#mask")).to_be_hidden()
    page.get_by_label("predicted IoU from").fill("0")
    page.get_by_label("stability from").fill("0")
    page.get_by_label("area from").fill("2.7")  # 501 px
    _wait_for_masks(page, "2 of 3 masks")
    assert page.locator("#list").get_by_role("option").count() == 2
    page.get_by_label("area from").press("ArrowRight")
    page.get_by_label("area from").press("ArrowRight")
    _wait_for_masks(page, "1 of 3 masks")
    _expect_place(page, "#image=0")  # arrows on a slider move the slider


def test_filters_stay_from_image_to_image(open_page, rows):
    page = open_page("#image=0")
    page.get_by_label("predicted IoU from").fill("0.7")
    _wait_for_masks(page, "2 of 3 masks")
    page.get_by_role("button", name="Next image").click()
    n = sum(mask.predicted_iou >= 0.7 for mask in rows[1].masks)
    _wait_for_masks(page, f"{n} of {len(rows[1].masks)} masks")


def test_keys_page_through_the_order_of_the_gallery(open_page, rows):
    page = open_page()
    page.get_by_role("radio", name="Most masks").check()
    order = sorted(
        (i for i, row in enumerate(rows) if row.status in ("ok", "empty")),
        key=lambda i: -len(rows[i].masks),
    )
    page.locator("#grid a").first.click()
    playwright.expect(_viewer(page)).to_be_visible()
    for i in (0, 1, 2):
        _expect_place(page, f"#image={order[i]}")
        name = re.sub(r"\s+", " ", rows[order[i]].image_id)
        playwright.expect(page.get_by_role("heading", level=2, name=name)).to_be_visible()
        _wait_for_masks(page, f"{len(rows[order[i]].masks)} of {len(rows[order[i]].masks)} masks")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    playwright.expect(page.locator("#viewer-place")).to_have_text(f"3 of {len(order)}")
    page.keyboard.press("Escape")
    playwright.expect(_viewer(page)).to_be_hidden()
    _expect_place(page, "#gallery")
    focused = page.evaluate("document.activeElement.getAttribute('href')")
    assert focused == f"#image={order[2]}", "the focus is where one was"


def test_the_ends_of_the_order_are_ends(open_page):
    page = open_page("#image=0")
    playwright.expect(page.get_by_role("button", name="Image before")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    _expect_place(page, "#image=0")
    page.goto(page.url.replace("image=0", f"image={N_PLAIN - 1}"))
    playwright.expect(page.get_by_role("button", name="Next image")).to_be_disabled()


def test_back_closes_the_viewer(open_page):
    page = open_page()
    page.get_by_role("link", name="rectangles.png").click()
    playwright.expect(_viewer(page)).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.go_back()
    playwright.expect(_viewer(page)).to_be_hidden()


def test_the_tab_key_stays_in_the_viewer(open_page):
    page = open_page("#image=5")
    playwright.expect(page.locator("#count")).not_to_be_empty()
    visited = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        visited.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"close", "least-iou", "least-stability", "least-area", "drawn", "list"} <= visited
    assert visited <= {"BODY", *visited & {"before", "after", "close", "drawn", "list"}} | {
        i for i in visited if i.startswith("least-")
    }


def test_hostile_names_stay_text(open_page, rows):
    page = open_page()
    report = page.url
    for row, image_id in enumerate(HOSTILE_IDS, start=FIRST_HOSTILE):
        page.get_by_role("searchbox").fill("")
        page.goto(f"{report}#image={row}")
        n_masks = len(rows[row].masks)
        name = page.locator("#viewer-name")
        playwright.expect(name).to_have_js_property("textContent", image_id)
        _wait_for_masks(page, f"{n_masks} of {n_masks} masks")
        page.keyboard.press("Escape")
        _expect_place(page, "#gallery")  # the gallery has turned to the image's page by then
        assert image_id in _names(page)
        found = page.evaluate("document.querySelectorAll('img[src=x], script:not([src])').length")
        assert found == 0
        page.get_by_role("searchbox").fill(image_id)
        assert _names(page) == [image_id]


def test_pictures_that_cannot_be_shown_say_why(open_page):
    page = open_page()
    cards = page.locator("#grid .card")
    expected = {
        CHANGED: "There is no picture: the file has changed since the run.",
        GONE: "The file is not there any more: no such file.",
        MISSING: "There is no picture: no such file.",
        BROKEN: "The file is not there any more",
    }
    for row, said in expected.items():
        assert said in cards.nth(row).text_content()
    page.goto(page.url + f"#image={CHANGED}")
    note = page.locator("#viewer-note")
    playwright.expect(note).to_contain_text("the file has changed since the run. Its masks are")
    playwright.expect(page.locator("#picture")).to_be_hidden()
    assert page.locator("#list").get_by_role("option").count() > 0
    for row, said in ((MISSING, "missing: no such file"), (BROKEN, "PNG: <b>truncated</b>")):
        page.goto(page.url.split("#")[0] + f"#image={row}")
        playwright.expect(note).to_contain_text(said)
        playwright.expect(page.locator("#frame")).to_be_hidden()


def test_an_image_without_masks(open_page):
    page = open_page(f"#image={EMPTY}")
    _wait_for_masks(page, "0 of 0 masks")
    playwright.expect(page.locator("#picture")).to_be_visible()
    playwright.expect(page.locator("#list")).to_be_hidden()


def test_orders_and_pages(open_page, rows):
    page = open_page()
    good = [row for row in rows if row.status in ("ok", "empty")]
    assert _names(page) == [row.image_id for row in rows[:24]]
    page.get_by_role("button", name="After").click()
    assert _names(page) == [row.image_id for row in rows[24:]]
    playwright.expect(page.get_by_role("button", name="After")).to_be_disabled()
    page.get_by_role("radio", name="Fewest masks").check()
    by_masks = sorted(good, key=lambda row: len(row.masks))
    assert _names(page) == [row.image_id for row in by_masks[:24]]
    page.get_by_role("combobox", name="Page").select_option("2")
    assert _names(page) == [row.image_id for row in by_masks[24:]]
    page.get_by_role("radio", name="Slowest").check()
    by_time = sorted(rows, key=lambda row: -np.float32(row.masks_s))
    assert _names(page)[:20] == [row.image_id for row in by_time[:20]]
    page.get_by_role("radio", name="Failed").check()
    assert _names(page) == ["missing.png", "broken.png"]
    page.get_by_role("radio", name="Random sample").check()
    assert len({*_names(page)}) == 24
    page.get_by_role("searchbox").fill("03")
    assert {*_names(page)} == {row.image_id for row in rows if "03" in row.image_id}


@pytest.mark.parametrize(("width", "device"), [(320, MOBILE), (375, MOBILE), (768, {})])
def test_nothing_is_wider_than_the_screen(open_page, width, device):
    page = open_page(viewport={"width": width, "height": 700}, **device)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.goto(page.url + f"#image={FIRST_HOSTILE + 5}")  # the longest name
    playwright.expect(page.locator("#count")).not_to_be_empty()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for id_ in ("viewer", "stage"):
            assert page.evaluate("(id) => document.getElementById(id).scrollWidth", id_) <= width
        frame = page.locator("#frame").bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") == width


def _contrast(one, other):
    """WCAG 2's ratio of two colours, (3,) of 0..255."""

    def luminance(colour):
        linear = np.asarray(colour) / 255
        linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_stand_out_from_what_is_behind(open_page):
    page = open_page()

    def colour(name):
        value = page.evaluate(
            "(n) => getComputedStyle(document.documentElement).getPropertyValue(n)", f"--{name}"
        )
        return [int(value.strip()[i : i + 2], 16) for i in (1, 3, 5)]

    pairs = [
        (text, back) for text in ("text", "muted") for back in ("page", "surface", "soft", "stage")
    ]
    pairs += [("accent", "page"), ("on-accent", "accent"), ("bad", "bad-soft"), ("bad", "surface")]
    pages = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for text, back in pairs:
            assert _contrast(colour(text), colour(back)) >= 4.5, (scheme, text, back)
        assert _contrast(colour("bar"), colour("surface")) >= 3
        pages.add(tuple(colour("page")))
    assert len(pages) == 2


def test_the_theme_is_the_systems_until_it_is_chosen(open_page):
    page = open_page(color_scheme="dark")

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = background()
    page.emulate_media(color_scheme="light")
    light = background()
    assert light != dark
    button = page.get_by_role("button", name="Theme: system")
    button.click()
    page.get_by_role("button", name="Theme: light").click()
    page.get_by_role("button", name="Theme: dark").wait_for()
    assert background() == dark
    page.reload()
    page.get_by_role("button", name="Theme: dark").wait_for()
    assert background() == dark, "kept"


def test_motion_stops_where_it_is_not_wanted(open_page):
    def duration(page):
        return page.evaluate(
            "getComputedStyle(document.getElementById('overlay')).transitionDuration"
        )

    assert duration(open_page()) != "0s"
    assert duration(open_page(reduced_motion="reduce")) == "0s"


def test_without_scripts_the_numbers_are_there(open_page):
    page = open_page(java_script_enabled=False)
    page.get_by_text("The gallery needs JavaScript").wait_for()
    page.get_by_role("img", name="Mask area").wait_for()
    playwright.expect(page.get_by_role("region", name="Failures").first).to_contain_text(
        "missing.png"
    )


def test_a_policy_holds(browser, address):
    """What the other tests rely on: a script or style inside the page would be reported."""
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hasRun = true";
            document.body.append(script);
            document.body.setAttribute("style", "color: red");
        }"""
    )
    assert page.evaluate("window.hasRun") is None
    assert sum("Content Security Policy" in text for text in said) == 2
    page.close()
