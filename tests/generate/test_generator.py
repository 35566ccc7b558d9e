"""The generator against the original on real photos, with the built-in model's weights.

Most of it on small photos with a small input: what is to be shown has no size. Once at full size.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from amg import GeneratorConfig, ImageError, MaskGenerator
from amg.evaluate.parity import compare_annotations
from amg.ops import rle
from benchmarks.original import original_generator
from tests.models.oracles import our_sam

# Low enough that every photo gives dozens of masks to compare.
LOOSE = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.2}
CASES = {
    "plain": {"points_per_side": 8},
    "model defaults": {"points_per_side": 8, "for_model": True},
    "one crop layer": {
        "points_per_side": 8,
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 2,
    },
    "clean regions": {
        "points_per_side": 8,
        "min_mask_region_area": 40,
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 4,
    },
    "explicit grid": {"point_grids": [[(0.1, 0.9), (0.5, 0.5), (0.33, 0.21), (1.0, 0.0)]]},
    "no predicted-IoU filter": {"points_per_side": 3, "pred_iou_thresh": 0.0},
    "no stability filter": {"points_per_side": 3, "stability_score_thresh": 0.0},
    "uneven chunks": {"points_per_side": 5, "points_per_batch": 7, "box_nms_thresh": 0.4},
}


def _config(values):
    values = dict(values)
    loose = {} if values.pop("for_model", False) else LOOSE
    return GeneratorConfig(**{**loose, **values})


def _compare(model, config, image):
    generator = MaskGenerator(model, config)
    reference = original_generator(model, generator.config).generate(image)
    return compare_annotations(reference, generator.generate(image).to_annotations())


@pytest.mark.parametrize("photo", ["cat", "coffee"])
def test_masks_are_the_originals_at_full_size(nano, photos, photo):
    report = _compare(nano, _config(CASES["plain"]), photos[photo])
    assert report.exact, report
    assert report.n_ours >= 5


@pytest.mark.parametrize("photo", ["astronaut", "rocket", "camera", "coins"])
def test_masks_are_the_originals_on_photos(small_nano, small_photos, photo):
    report = _compare(small_nano, _config(CASES["plain"]), small_photos[photo])
    assert report.exact, report
    assert report.n_ours >= 15


@pytest.mark.parametrize("case", [name for name in CASES if name != "plain"])
def test_masks_are_the_originals_in_every_mode(small_nano, small_photos, case):
    tall = np.ascontiguousarray(small_photos["astronaut"][:, 40:200])
    report = _compare(small_nano, _config(CASES[case]), tall)
    assert report.exact, report
    assert report.n_ours >= (1 if case == "explicit grid" else 5)


def test_two_crop_layers_are_the_originals(small_nano, small_photos):
    values = {"points_per_side": 8, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2}
    generator, image = MaskGenerator(small_nano, _config(values)), small_photos["coffee"]
    reference = original_generator(small_nano, generator.config).generate(image)
    result = generator.generate(image)
    report = compare_annotations(reference, result.to_annotations())
    assert report.exact, report
    assert {mask.crop_layer for mask in result.masks} == {0, 1, 2}


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (7, 5), (1, 1)])
def test_slivers_are_the_originals(small_nano, small_photos, shape):
    image = np.ascontiguousarray(small_photos["coffee"][: shape[0], : shape[1]])
    config = GeneratorConfig(points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0)
    report = _compare(small_nano, config, image)
    assert report.exact, report


def test_slivers_on_which_the_original_fails_give_a_result(small_nano):
    image = np.full((1, 3000, 3), 90, dtype=np.uint8)
    config = GeneratorConfig(points_per_side=2, crop_n_layers=1, pred_iou_thresh=0)
    assert MaskGenerator(small_nano, config).generate(image).size_hw == (1, 3000)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize(
    "nothing",
    [
        {"pred_iou_thresh": 1.0},
        # No logit is a million above the threshold, so no mask is stable.
        {"pred_iou_thresh": 0.0, "stability_score_offset": 1e6, "stability_score_thresh": 0.1},
    ],
)
def test_no_mask_surviving_is_an_empty_result(small_nano, small_photos, layers, nothing):
    config = GeneratorConfig(
        points_per_side=2, crop_n_layers=layers, min_mask_region_area=10, **nothing
    )
    result = MaskGenerator(small_nano, config).generate(small_photos["astronaut"][:100, :120])
    assert result.masks == ()
    assert result.to_annotations() == []


def test_a_batch_gives_what_single_images_give(small_nano, small_photos):
    images = [
        small_photos["astronaut"],
        small_photos["coffee"][:100],
        small_photos["cat"][25:, 20:],
    ]
    config = _config({"points_per_side": 4, "crop_n_layers": 1, "encoder_batch_size": 3})
    generator = MaskGenerator(small_nano, config)
    for image, together in zip(images, generator.generate_batch(images), strict=True):
        alone = generator.generate(image)
        report = compare_annotations(alone.to_annotations(), together.to_annotations())
        assert report.exact, report
        assert report.n_ours > 0


@pytest.mark.parametrize("layers", [0, 1])
def test_images_prepared_in_threads_give_the_same_masks(small_nano, small_photos, layers):
    coffee = small_photos["coffee"]
    images = [small_photos["astronaut"][:252, :252].copy(), coffee]
    grid = {"points_per_side": 5, "crop_n_points_downscale_factor": 2}
    config = _config({**grid, "crop_n_layers": layers, "encoder_batch_size": 3})
    generator = MaskGenerator(small_nano, config)
    expected = [result.masks for result in generator.generate_batch(images)]
    assert all(expected)
    with ThreadPoolExecutor(2) as pool:
        prepared = list(pool.map(generator.prepare, images))
    images[0][:] = 0  # nobody looks at it any more
    mixed = [prepared[0], coffee]
    assert [result.masks for result in generator.generate_batch(mixed)] == expected
    alone = generator.with_smaller_batches().generate(prepared[1])
    assert (alone.size_hw, len(alone.masks)) == (coffee.shape[:2], len(expected[1]))
    n_crops = 1 if layers == 0 else 5
    assert prepared[0].nbytes == n_crops * small_nano.imgsz**2 * 3  # its crops are square, as it is


def test_images_of_pillow_and_paths_give_what_their_arrays_give(small_nano, small_photos, tmp_path):
    photo = small_photos["cat"]
    Image.fromarray(photo).save(tmp_path / "cat.png")
    generator = MaskGenerator(small_nano, _config({"points_per_side": 3}))
    expected = generator.generate(photo).masks
    assert expected
    for image in (Image.fromarray(photo), tmp_path / "cat.png", str(tmp_path / "cat.png")):
        assert generator.generate(image).masks == expected
        assert generator.generate(generator.prepare(image)).masks == expected
    with pytest.raises(ImageError, match=r"images\[1\]: .*dog.png") as caught:
        generator.generate_batch([photo, tmp_path / "dog.png"])
    assert caught.value.status == "missing"


def test_images_of_many_crops_are_not_prepared(small_nano, small_photos, monkeypatch):
    image, n_crop_bytes = small_photos["astronaut"], small_nano.imgsz**2 * 3
    generator = MaskGenerator(small_nano, GeneratorConfig(points_per_side=2, crop_n_layers=2))
    n_bytes = generator.prepare(image).nbytes
    assert 15 * n_crop_bytes < n_bytes <= 21 * n_crop_bytes
    monkeypatch.setattr("amg.generate.generator._MOST_PREPARED_BYTES", n_bytes - 1)
    assert generator.prepare(image) is image


def test_an_image_prepared_for_another_input_is_refused(nano, small_nano, small_photos):
    prepared = MaskGenerator(small_nano).prepare(small_photos["astronaut"])
    with pytest.raises(ValueError, match="fitted to 224 x 224 px, the input is 448"):
        MaskGenerator(nano).generate(prepared)


def test_masks_agree_with_their_own_numbers(small_nano, small_photos):
    image = small_photos["rocket"]
    result = MaskGenerator(small_nano, _config({"points_per_side": 8})).generate(image)
    assert result.size_hw == image.shape[:2]
    assert result.masks
    scores = [mask.predicted_iou for mask in result.masks]
    assert scores == sorted(scores, reverse=True)
    for mask in result.masks:
        bits = rle.decode(mask.rle)
        ys, xs = np.nonzero(bits)
        assert mask.area == len(xs)
        box = (xs.min(), ys.min(), np.ptp(xs), np.ptp(ys))
        assert mask.bbox_xywh == box
        assert mask.level in (0, 1, 2)
        assert mask.crop_box_xywh == (0, 0, image.shape[1], image.shape[0])
        assert mask.predicted_iou > 0.2
        assert mask.stability_score >= 0.2


@pytest.mark.parametrize("photo", ["coffee", "camera"])
def test_the_plain_way_gives_the_same_masks(small_nano, small_photos, photo, monkeypatch):
    config = _config({"points_per_side": 6, "crop_n_layers": 1})
    fast = MaskGenerator(small_nano, config).generate(small_photos[photo]).to_annotations()
    monkeypatch.setattr(small_nano, "plain", True)
    plain = MaskGenerator(small_nano, config).generate(small_photos[photo]).to_annotations()
    report = compare_annotations(plain, fast)
    assert report.exact, report
    assert len(fast) > 5


def test_an_environment_variable_asks_for_the_plain_way(monkeypatch):
    monkeypatch.delenv("AMG_PLAIN", raising=False)
    assert not our_sam().plain
    monkeypatch.setenv("AMG_PLAIN", "1")
    assert our_sam().plain


def test_tiles_of_masks_do_not_change_them(small_nano, small_photos, monkeypatch):
    image = small_photos["cat"]
    config = _config({"points_per_side": 6})
    monkeypatch.setattr(small_nano, "plain", True)
    whole = MaskGenerator(small_nano, config).generate(image)
    three_masks = 3 * small_nano.imgsz**2  # larger than the photo, as masks are on their way
    monkeypatch.setattr("amg.generate.full_size._TILE_ELEMENTS", three_masks)
    assert MaskGenerator(small_nano, config).generate(image).masks == whole.masks
    assert len(whole.masks) >= 5


def test_threads_do_not_change_masks(small_nano, small_photos, set_threads):
    image, config = small_photos["coffee"], _config({"points_per_side": 8, "points_per_batch": 20})
    alone = MaskGenerator(small_nano, config).generate(image).to_annotations()
    set_threads(3)
    together = MaskGenerator(small_nano, config).generate(image).to_annotations()
    report = compare_annotations(alone, together)
    assert report.exact, report
    assert len(alone) >= 15


def test_a_score_at_its_threshold(small_nano, small_photos):
    """A predicted IoU has to be above its threshold; stability may be the threshold itself."""

    def prompts_of(values):
        config = _config({"points_per_side": 4, "keep_candidates": True, **values})
        candidates = MaskGenerator(small_nano, config).generate(small_photos["coffee"]).candidates
        return {(mask.point_xy, mask.level): mask for mask in candidates}

    every = prompts_of({"pred_iou_thresh": 0.1, "stability_score_thresh": 0.0})
    middle = sorted(mask.predicted_iou for mask in every.values())[len(every) // 2]
    kept = prompts_of({"pred_iou_thresh": middle, "stability_score_thresh": 0.0})
    assert kept.keys() == {at for at, mask in every.items() if mask.predicted_iou > middle}
    middle = sorted(mask.stability_score for mask in every.values())[len(every) // 2]
    kept = prompts_of({"pred_iou_thresh": 0.1, "stability_score_thresh": middle})
    assert kept.keys() == {at for at, mask in every.items() if mask.stability_score >= middle}
    assert 5 < len(kept) < len(every)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_what_is_no_image_is_refused(nano, image):
    generator = MaskGenerator(nano)
    with pytest.raises(ImageError, match=r"images\[0\]"):
        generator.generate(image)
    with pytest.raises(ImageError, match="image: expected"):
        generator.prepare(image)


BEYOND = {"points_per_side": 8, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}


@pytest.fixture(scope="module")
def plain(small_nano, small_photos):
    """What `BEYOND` gives without an option beyond the original."""
    return MaskGenerator(small_nano, _config(BEYOND)).generate(small_photos["coffee"])


def test_candidates_are_what_nms_chose_from(small_nano, small_photos, plain):
    image = small_photos["coffee"]
    result = MaskGenerator(small_nano, _config({**BEYOND, "keep_candidates": True})).generate(image)
    assert plain.candidates is None
    assert result.masks == plain.masks
    unfiltered = {"box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
    every = MaskGenerator(small_nano, _config({**BEYOND, **unfiltered})).generate(image).masks
    assert len(result.candidates) > len(result.masks)
    assert set(result.candidates) == set(every)
    # In the order of the crops, and in each in that of the points: row by row.
    crops = [(mask.crop_layer, mask.crop_box_xywh) for mask in result.candidates]
    assert len(set(crops)) > 1
    places = [
        (*crop[:1], crop[1][0], crop[1][1], *reversed(mask.point_xy), mask.level)
        for crop, mask in zip(crops, result.candidates, strict=True)
    ]
    assert places == sorted(places)


def test_candidates_are_the_same_however_few_may_wait(small_nano, small_photos):
    # As many points at once in both, since products of other shapes are rounded otherwise.
    config = _config({"points_per_side": 6, "points_per_batch": 36, "keep_candidates": True})
    whole = MaskGenerator(small_nano, config).generate(small_photos["cat"])
    narrow = MaskGenerator(small_nano, config.model_copy(update={"memory_budget": 1}))
    assert narrow.generate(small_photos["cat"]).candidates == whole.candidates
    assert len(whole.candidates) > 36


def test_crops_without_the_image(small_nano, small_photos, plain):
    crops = MaskGenerator(small_nano, _config({**BEYOND, "crop_skip_image": True}))
    layers = {mask.crop_layer for mask in crops.generate(small_photos["coffee"]).masks}
    assert {mask.crop_layer for mask in plain.masks} == {0, 1}
    assert layers == {1}


def test_points_that_follow_the_aspect_prompt_a_wide_photo(small_nano, small_photos):
    wide = np.ascontiguousarray(small_photos["coffee"][50:125])  # 75 x 300
    config = _config({"points_per_side": 8, "points_follow_aspect": True, "keep_candidates": True})
    points = {mask.point_xy for mask in MaskGenerator(small_nano, config).generate(wide).candidates}
    assert len({x for x, _ in points}) > 8
    assert len({y for _, y in points}) <= 4


def test_filters_beyond_the_original_on_a_photo(small_nano, small_photos, plain):
    image = small_photos["coffee"]
    n_pixels = image.shape[0] * image.shape[1]
    areas = sorted(mask.area for mask in plain.masks)
    least, most = areas[3], (areas[-3] + 0.5) / n_pixels
    options = {"min_area": least, "max_area_fraction": most, "find_parents": True}
    result = MaskGenerator(small_nano, _config({**BEYOND, **options})).generate(image).masks
    wanted = [mask for mask in plain.masks if least <= mask.area <= most * n_pixels]
    assert 5 < len(wanted) <= len(plain.masks) - 4
    assert [mask.rle for mask in result] == [mask.rle for mask in wanted]
    bits = [rle.decode(mask.rle) for mask in result]
    children = [(i, mask.parent) for i, mask in enumerate(result) if mask.parent is not None]
    assert children
    assert all((bits[i] & bits[j]).sum() >= 0.95 * bits[i].sum() for i, j in children)
