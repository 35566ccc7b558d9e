"""The pictures of README.md and docs/filters.md, by the built-in model on scikit-image's photos.

    python docs/make_pictures.py

The README's are photos beside their masks, and the report in a browser (Chromium). Those of filters
are pairs too: what comes by default, and what comes with an option. The outputs of the notebook are
made anew as well. To be run after every change of the built-in model.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import nbformat
import numpy as np
import skimage.data
from nbclient import NotebookClient
from PIL import Image
from playwright.sync_api import sync_playwright

from amg.config import GeneratorConfig
from amg.generate.crops import Crop
from amg.generate.generator import MaskGenerator
from amg.generate.points import crop_points
from amg.generate.refilter import change_filters, refilter
from amg.models.zoo.load import load_model
from amg.records import ImageResult, Mask
from amg.view.overlay import beside, draw_overlay
from pipelines.demo import main as run_demo

FOLDER = Path(__file__).parent
_WIDTH_PX = 900
_DEMO_COLUMNS = (("astronaut", "camera"), ("coffee", "cat", "rocket"))
_DEMO_COLUMN_PX = 640
_QUALITY = 80
_SCREEN = {"width": 1180, "height": 700}


def main() -> None:
    """Write all pictures."""
    _save_report()
    _run_tour()
    model = load_model("nano", device="cpu")
    _save_demo(model)
    photo = skimage.data.astronaut()
    generator = MaskGenerator(model, GeneratorConfig(keep_candidates=True))
    result, config = generator.generate(photo), generator.config
    for name, changes in {
        "areas": {"min_area": 400, "max_area_fraction": 0.1},
        "mask_nms": {"mask_nms_thresh": 0.4},
    }.items():
        kept = {*_refiltered(result, config, changes)}
        chosen = [i for i, mask in enumerate(result.masks) if mask in kept]
        print(f"{name}: {len(chosen)} of {len(result.masks)}")  # noqa: T201 - a script
        overlays = [draw_overlay(photo, result.masks, chosen=c) for c in (None, chosen)]
        _save(name, *overlays)
    family = _refiltered(result, config, {"find_parents": True})
    roots = [i for i, mask in enumerate(family) if mask.parent is None]
    children = [i for i, mask in enumerate(family) if mask.parent is not None]
    print(f"parents: {len(roots)} roots, {len(children)} children")  # noqa: T201
    _save("parents", *(draw_overlay(photo, family, chosen=c) for c in (roots, children)))
    _save("points", *(_draw_points(skimage.data.coffee()[60:300], f) for f in (False, True)))
    _save("crops", *(_segment_crops(model, photo, skip) for skip in (False, True)))


def _save_report() -> None:
    """The report of `make demo`: a photo opened, and the pointer on a mask."""
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        run_demo(Path(folder))
        chromium = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=_SCREEN)
        page.goto((Path(folder) / "report" / "index.html").as_uri())
        page.get_by_role("link", name="astronaut.png").click()
        page.locator("#count").filter(has_text="masks").wait_for()
        box = page.locator("#frame").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.22, box["y"] + box["height"] * 0.62)
        page.wait_for_timeout(500)  # milliseconds: drawn by then
        page.screenshot(path=FOLDER / "report.jpg", type="jpeg", quality=_QUALITY)
        browser.close()


def _run_tour() -> None:
    """The notebook with what its cells give."""
    path = FOLDER / "tour.ipynb"
    notebook = nbformat.read(path, as_version=4)
    kept = dict(notebook.metadata)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    notebook.metadata.clear()
    notebook.metadata.update(kept)
    for cell in notebook.cells:
        cell.metadata.clear()  # when each began and ended
        if "outputs" in cell:  # warnings are of the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


def _save_demo(model: object) -> None:
    """Photos of `make demo` beside their masks, in columns of one width."""
    generator = MaskGenerator(model)
    columns = [
        np.vstack([_photo_and_masks(generator, name) for name in names]) for names in _DEMO_COLUMNS
    ]
    height = max(len(column) for column in columns)
    padded = [
        np.pad(c, ((0, height - len(c)), (0, 0), (0, 0)), constant_values=255) for c in columns
    ]
    Image.fromarray(np.hstack(padded)).save(FOLDER / "demo.jpg", quality=_QUALITY, optimize=True)


def _photo_and_masks(generator: MaskGenerator, name: str) -> np.ndarray:
    """One of scikit-image's photos beside its masks, with a white margin to the right and below."""
    photo = getattr(skimage.data, name)()
    photo = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)
    pair = beside(photo, draw_overlay(photo, generator.generate(photo).masks))
    height = round(len(pair) * _DEMO_COLUMN_PX / pair.shape[1])
    small = cv2.resize(pair, (_DEMO_COLUMN_PX, height), interpolation=cv2.INTER_AREA)
    return np.pad(small, ((0, 8), (0, 8), (0, 0)), constant_values=255)


def _refiltered(
    result: ImageResult, config: GeneratorConfig, changes: dict[str, object]
) -> list[Mask]:
    wanted = change_filters(config, changes)
    return refilter(result.masks, result.candidates, result.size_hw, config, wanted)[0]


def _draw_points(photo: np.ndarray, follow: bool) -> np.ndarray:
    config = GeneratorConfig(points_per_side=16, points_follow_aspect=follow)
    height, width = photo.shape[:2]
    canvas = np.ascontiguousarray(photo)
    for x, y in crop_points(Crop((0, 0, width, height), 0), config):
        cv2.circle(canvas, (round(x), round(y)), 4, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, (round(x), round(y)), 3, (220, 30, 60), -1, cv2.LINE_AA)
    return canvas


def _segment_crops(model: object, photo: np.ndarray, skip: bool) -> np.ndarray:
    options = {"points_per_side": 16, "crop_n_layers": 1, "crop_skip_image": skip}
    return draw_overlay(
        photo, MaskGenerator(model, GeneratorConfig(**options)).generate(photo).masks
    )


def _save(name: str, before: np.ndarray, after: np.ndarray) -> None:
    picture = Image.fromarray(beside(before, after))
    picture.thumbnail((_WIDTH_PX, _WIDTH_PX))
    picture.save(FOLDER / "filters" / f"{name}.jpg", quality=_QUALITY, optimize=True)


if __name__ == "__main__":
    main()
