"""Parity with SAM 2's own generator, on real photos, with the same weights."""

import inspect

import numpy as np
import pytest

from amg import GeneratorConfig, MaskGenerator
from amg.errors import ConfigError
from amg.evaluate.parity import compare_annotations
from amg.models.zoo.registry import MODELS

pytest.importorskip("benchmarks.original_sam2")
from benchmarks.original_sam2 import original_generator, original_predictor
from tests.models.small_sam2 import prompted_twins

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
# Random masks are large: with the published box_nms_thresh one or two would be left to compare.
LOOSE = {
    "points_per_side": 6,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.5,
    "box_nms_thresh": 0.95,
}
ALL_BOXES = {"box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
CROPS = {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2}
CASES = {
    "plain": {},
    "every box": ALL_BOXES,
    "m2m": {"use_m2m": True},
    "m2m, every box": {"use_m2m": True, **ALL_BOXES},
    "one mask a point": {"multimask_output": False, **ALL_BOXES},
    "one mask a point, m2m": {"multimask_output": False, "use_m2m": True, **ALL_BOXES},
    "crops": {**CROPS, **ALL_BOXES},
    "crops, m2m": {**CROPS, **ALL_BOXES, "use_m2m": True},
    "crops, one mask a point": {**CROPS, **ALL_BOXES, "multimask_output": False},
    "threshold": {"mask_threshold": -15.0, **ALL_BOXES},
    "threshold, crops, m2m": {"mask_threshold": 5.0, **CROPS, **ALL_BOXES, "use_m2m": True},
    "no filter": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 3},
    "no filter, m2m": {"pred_iou_thresh": 0.0, "use_m2m": True, "points_per_side": 3},
    "uneven chunks": {"points_per_batch": 7, "use_m2m": True, **ALL_BOXES},
    "explicit grid": {"point_grids": [[(0.1, 0.9), (0.5, 0.5), (1.0, 0.0)]], **ALL_BOXES},
}
SHAPES = {"wide": np.s_[:135, :240], "tall": np.s_[:, :125], "square": np.s_[:128, 50:178]}


@pytest.fixture(scope="module")
def photos(photos):
    """Every second pixel: what is to be shown has no size."""
    return {name: photo[::2, ::2] for name, photo in photos.items()}


@pytest.fixture(scope="module")
def models():
    """Ours and the original; tests leave them as they are."""
    return prompted_twins()


def config(values):
    loose = {**LOOSE, **values}
    if "point_grids" in values:
        del loose["points_per_side"]
    return GeneratorConfig(**loose)


@pytest.mark.parametrize("case", CASES)
def test_masks_are_the_originals_in_every_mode(models, photos, case):
    ours, theirs = models
    image = np.ascontiguousarray(photos["astronaut"][SHAPES["tall"]])
    reference = original_generator(theirs, config(CASES[case])).generate(image)
    result = MaskGenerator(ours, config(CASES[case])).generate(image)
    report = compare_annotations(reference, result.to_annotations())
    assert report.exact, report
    assert report.n_ours >= 3
    if "crops" in case:
        assert {mask.crop_layer for mask in result.masks} == {0, 1}


@pytest.mark.parametrize("use_m2m", [True, False])
@pytest.mark.parametrize(
    ("photo", "shape"),
    [("astronaut", "wide"), ("coffee", "tall"), ("camera", "square"), ("cat", "wide")],
)
def test_masks_are_the_originals_on_photos(models, photos, photo, shape, use_m2m):
    ours, theirs = models
    image = np.ascontiguousarray(photos[photo][SHAPES[shape]])
    some = config({"use_m2m": use_m2m, "points_per_side": 4, **ALL_BOXES})
    reference = original_generator(theirs, some).generate(image)
    report = compare_annotations(
        reference, MaskGenerator(ours, some).generate(image).to_annotations()
    )
    assert report.exact, report
    assert report.n_ours >= 3


@pytest.mark.parametrize("size_hw", [(270, 480), (480, 270)])
def test_prompts_cover_the_whole_image(models, photos, size_hw):
    """One popular pipeline misses the bottom 44 % of 960 x 540, twice these."""
    ours, theirs = models
    image = np.ascontiguousarray(np.tile(photos["coffee"], (3, 2, 1))[: size_hw[0], : size_hw[1]])
    everything = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, **ALL_BOXES}
    some = config({"points_per_side": 4, **everything})
    result = MaskGenerator(ours, some).generate(image)
    points = np.unique([mask.point_xy for mask in result.masks], axis=0)
    expected = [
        (x * size_hw[1] / 8, y * size_hw[0] / 8) for x in (1, 3, 5, 7) for y in (1, 3, 5, 7)
    ]
    np.testing.assert_allclose(points, sorted(expected))
    reference = original_generator(theirs, some).generate(image)
    assert compare_annotations(reference, result.to_annotations()).exact


def test_the_defaults_are_the_originals():
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    original = inspect.signature(SAM2AutomaticMaskGenerator).parameters
    known = GeneratorConfig.model_fields.keys() & original.keys() - {"points_per_batch"}
    assert {"pred_iou_thresh", "mask_threshold", "multimask_output", "use_m2m"} <= known
    for name, spec in MODELS.items():
        if spec.architecture == "sam2":
            ours = GeneratorConfig().for_model(spec.generator_defaults)
            for key in known:
                assert getattr(ours, key) == original[key].default, (name, key)


@pytest.mark.parametrize("use_m2m", [False, True])
def test_masks_have_the_originals_object_scores(models, photos, use_m2m):
    """A point's score is that of its prompt, or of its second look; a threshold filters by it."""
    ours, theirs = models
    image = np.ascontiguousarray(photos["astronaut"][SHAPES["tall"]])
    some = config({"use_m2m": use_m2m, "points_per_side": 4, **ALL_BOXES})
    scores = []
    hook = theirs.sam_mask_decoder.register_forward_hook(
        # A second look gives one mask a prompt, the first gives three.
        lambda *call: scores.extend(
            call[2][3].flatten().tolist() if call[2][0].shape[1] == (1 if use_m2m else 3) else ()
        )
    )
    original_generator(theirs, some).generate(image)
    hook.remove()
    every = MaskGenerator(ours, some).generate(image).masks
    found = np.array([mask.object_score for mask in every])
    assert np.abs(found[:, None] - np.array(scores)).min(axis=1).max() < 1e-4
    assert len(set(found.round(4))) > 3
    middle = float(np.median(found))
    kept = MaskGenerator(ours, some.model_copy(update={"object_score_thresh": middle}))
    assert kept.generate(image).masks == tuple(m for m in every if m.object_score >= middle)


def test_the_object_score_of_a_point_is_its_own(models, photos):
    ours, theirs = models
    image = np.ascontiguousarray(photos["cat"])
    predictor = original_predictor(theirs)
    predictor.set_image(image)
    found = MaskGenerator(ours, config({"points_per_side": 3, **ALL_BOXES})).generate(image).masks
    assert len(found) >= 3
    for mask in found:
        expected = []
        hook = theirs.sam_mask_decoder.register_forward_hook(
            lambda *call: expected.append(call[2][3].item())  # noqa: B023
        )
        predictor.predict(np.array([mask.point_xy]), np.array([1]))
        hook.remove()
        assert mask.object_score == pytest.approx(expected[0], abs=1e-4)


def test_models_without_an_object_score_cannot_filter_by_it(nano, models):
    asked = GeneratorConfig(object_score_thresh=0.0)
    with pytest.raises(ConfigError, match="object_score_thresh: nano gives no object score"):
        MaskGenerator(nano, asked)
    MaskGenerator(models[0], asked)


@pytest.mark.parametrize("case", ["every box", "m2m, every box", "crops, one mask a point"])
def test_the_plain_way_gives_the_same_masks(models, photos, case, monkeypatch):
    ours, _ = models
    image = np.ascontiguousarray(photos["coffee"][SHAPES["wide"]])
    fast = MaskGenerator(ours, config(CASES[case])).generate(image).to_annotations()
    monkeypatch.setattr(ours, "plain", True)
    plain = MaskGenerator(ours, config(CASES[case])).generate(image).to_annotations()
    report = compare_annotations(plain, fast)
    assert report.exact, report
    assert len(fast) >= 3


def test_images_may_share_a_batch(models, photos):
    ours, _ = models
    images = [photos["astronaut"][:100], photos["coffee"][:, :90], photos["cat"][25:, 20:]]
    some = config({**CROPS, "points_per_side": 4, "encoder_batch_size": 3, **ALL_BOXES})
    generator = MaskGenerator(ours, some)
    for image, together in zip(images, generator.generate_batch(images), strict=True):
        alone = generator.generate(image).to_annotations()
        report = compare_annotations(alone, together.to_annotations())
        assert report.exact, report


def test_what_no_mask_survives_is_an_empty_result(models, photos):
    """The original fails on crops without a mask."""
    ours, _ = models
    for extra in ({}, {"use_m2m": True}, {"multimask_output": False}):
        some = config({"pred_iou_thresh": 1.0, "crop_n_layers": 1, **extra})
        assert MaskGenerator(ours, some).generate(photos["cat"]).masks == ()


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (7, 5), (1, 1)])
def test_slivers_are_the_originals(models, photos, shape):
    ours, theirs = models
    image = np.ascontiguousarray(photos["coffee"][: shape[0], : shape[1]])
    some = config({"points_per_side": 3, "pred_iou_thresh": 0, "stability_score_thresh": 0})
    reference = original_generator(theirs, some).generate(image)
    report = compare_annotations(
        reference, MaskGenerator(ours, some).generate(image).to_annotations()
    )
    assert report.exact, report
