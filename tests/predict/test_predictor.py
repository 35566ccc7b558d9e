"""The predictor beside the originals': `SamPredictor`, `SAM2ImagePredictor`, `SamModel`."""

import numpy as np
import pytest
import torch
from PIL import Image

import amg
from amg import ImageError, MaskPredictor
from tests.predict.kinds import KINDS

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def assert_same(ours, theirs):
    """Scores and logits to rounding; masks but for pixels whose logit is at the threshold, 0.

    theirs: with logits in place of masks.
    """
    for mine, their in zip(ours, theirs, strict=True):
        assert mine.shape == their.shape
        assert mine.dtype in (their.dtype, np.bool_)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)
    rounding = 1e-5 * np.abs(theirs[2]).max()
    assert np.abs(ours[2] - theirs[2]).max() <= rounding
    if ours[0].dtype == np.bool_:
        differing = ours[0] != (theirs[0] > 0)
        assert np.abs(theirs[0][differing]).max(initial=0) <= rounding
    else:
        assert np.abs(ours[0] - theirs[0]).max() <= rounding


def compare(pair, photos, kind, n_each, seed=0):
    """Some prompts of a kind on each photo, three masks and one in turn."""
    model, original = pair
    predictor, rng = MaskPredictor(model), np.random.default_rng(seed)
    for photo in photos:
        predictor.set_image(photo)
        original.set_image(photo)
        for i in range(n_each):
            asked = KINDS[kind](rng, photo.shape[:2], model.low_res_hw)
            asked["multimask_output"] = i % 2 == 0
            ours = predictor.predict(**asked, return_logits=i % 3 == 2)
            assert (ours[0].dtype == np.bool_) == (i % 3 != 2)
            assert_same(ours, original.predict(**asked, return_logits=True))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_originals(pair, twelve_photos, kind):
    compare(pair, twelve_photos[2:3], kind, 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_originals_on_many_photos(pair, twelve_photos, kind):
    """Two hundred and four prompts of a kind on twelve photos."""
    compare(pair, twelve_photos, kind, 17, seed=1)


def test_the_plain_way_gives_the_same(small_nano, twelve_photos, monkeypatch):
    predictor, rng = MaskPredictor(small_nano), np.random.default_rng(0)
    for kind in ("point", "box", "box, points"):
        asked = KINDS[kind](rng, twelve_photos[0].shape[:2], None)
        both = []
        for plain in (True, False):
            monkeypatch.setattr(small_nano, "plain", plain)
            predictor.set_image(twelve_photos[0])
            both.append(predictor.predict(**asked, return_logits=True))
        assert_same(*both)


def test_an_answer_refines_itself(small_nano, twelve_photos):
    """What `predict` gave comes back as `mask_input`, as people do it."""
    predictor = MaskPredictor(small_nano)
    predictor.set_image(twelve_photos[0])
    click = {"point_coords": np.array([[80, 70]]), "point_labels": np.array([1])}
    _, _, low_res = predictor.predict(**click)
    masks, _, _ = predictor.predict(**click, mask_input=low_res[:1], multimask_output=False)
    assert masks.shape == (1, *twelve_photos[0].shape[:2])


def test_several_prompts_at_once(pair, twelve_photos):
    """SAM 2's predictor takes boxes (N, 4); what it gives for each is what each gets alone."""
    model, _ = pair
    predictor, rng = MaskPredictor(model), np.random.default_rng(3)
    predictor.set_image(twelve_photos[1])
    size_hw = twelve_photos[1].shape[:2]
    asked = [KINDS["box, points"](rng, size_hw, None) for _ in range(3)]
    together = predictor.predict(**{k: np.stack([a[k] for a in asked]) for k in asked[0]})
    assert together[0].shape == (3, 3, *size_hw)
    for i, alone in enumerate(asked):
        expected = predictor.predict(**alone, return_logits=True)
        assert_same([part[i] for part in together], expected)


def test_images_of_a_batch_do_not_touch(pair, twelve_photos):
    model, original = pair
    predictor, click = MaskPredictor(model), {"point_coords": [[30, 40]], "point_labels": [1]}
    predictor.set_images(twelve_photos[:3])
    assert len(predictor.features) == 3
    for i in (2, 0):
        original.set_image(twelve_photos[i])
        arrays = {name: np.array(value) for name, value in click.items()}
        expected = original.predict(**arrays, return_logits=True)
        assert_same(predictor.predict(**click, image=i), expected)
    with pytest.raises(ValueError, match="image: which of the 3 that are set"):
        predictor.predict(**click)


def test_an_image_is_set_and_reset(small_nano, twelve_photos, tmp_path):
    """Arrays, Pillow's images and paths give the same features; nothing is left of the last."""
    predictor = MaskPredictor(small_nano)
    assert predictor.features is None
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.predict(box=np.array([1, 2, 30, 40]))
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.predict_batch([amg.Prompt(box_xyxy=(1, 2, 30, 40))])
    Image.fromarray(twelve_photos[0]).save(tmp_path / "photo.png")
    found = []
    for image in (
        twelve_photos[0],
        Image.fromarray(twelve_photos[0]),
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
    ):
        predictor.set_image(image)
        found.append(predictor.features)
    for features in found[1:]:
        for maps, first in zip(features, found[0], strict=True):
            assert torch.equal(maps, first)
    with pytest.raises(ImageError, match=r"images\[0\].*none.png"):
        predictor.set_image(tmp_path / "none.png")
    assert predictor.features is None
    predictor.set_image(twelve_photos[0])
    predictor.reset_image()
    assert predictor.features is None


REFUSED = {
    "nothing is asked": {},
    "point_coords, point_labels: both": {"point_coords": [[1, 2]]},
    r"point_coords: expected \(P, 2\), got \(3,\)": {
        "point_coords": [1, 2, 3],
        "point_labels": [1],
    },
    "1 labels for 2 points": {"point_coords": [[1, 2], [3, 4]], "point_labels": [1]},
    "label 7: expected 1, on the object; 0, off it; -1, no": {
        "point_coords": [[1, 2]],
        "point_labels": [7],
    },
    r"point \(-1, 2\) is outside its image": {"point_coords": [[-1, 2]], "point_labels": [1]},
    r"point \(nan, 2\) is not of finite numbers": {
        "point_coords": [[np.nan, 2]],
        "point_labels": [1],
    },
    r"box: expected \(4\), got \(3,\)": {"box": [1, 2, 3]},
    r"box \(9, 2, 3, 4\) is upside down": {"box": [9, 2, 3, 4]},
    r"box \(1, 2, nan, 4\) is not of finite numbers": {"box": [1, 2, np.nan, 4]},
    r"box \(900, 2, 903, 4\) is outside its image": {"box": [900, 2, 903, 4]},
    r"mask_input: expected \(1, 56, 56\), got \(1, 9, 9\)": {"mask_input": np.zeros((1, 9, 9))},
    "mask_input: a logit is no number": {"mask_input": np.full((1, 56, 56), np.inf)},
    "point_labels of 2 prompts, points of 1": {
        "point_coords": [[[1, 2]]],
        "point_labels": [[1], [1]],
    },
    r"of \[1, 2\] prompts: as many of each": {
        "box": [[1, 2, 30, 40]] * 2,
        "point_coords": [[1, 2]],
        "point_labels": [1],
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_asked_is_named(small_nano, twelve_photos, message):
    predictor = MaskPredictor(small_nano)
    predictor.set_image(twelve_photos[0])
    with pytest.raises(ValueError, match=message):
        predictor.predict(**REFUSED[message])
