"""Many prompts of all kinds at once, on one image: what each gets is what it gets alone."""

import numpy as np
import pytest
import torch

from amg import MaskPredictor, Prompt
from amg.ops import rle
from amg.ops.full_size_plain import mask_boxes, stability_score

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
SIZE_HW = (134, 200)


def blob():
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[30:90, 50:120] = True
    return mask


PROMPTS = (
    Prompt(box_xyxy=(20.5, 30, 150, 120.25), prompt_id="7", category="cup", score=0.5),
    Prompt(points_xy=((90.0, 61.5),), labels=(1,)),
    Prompt(points_xy=((90, 61), (12, 100), (1, 1)), labels=(1, 0, 0)),
    Prompt(box_xyxy=(1, 1, 60, 50)),
    Prompt(box_xyxy=(1, 1, 160, 100), points_xy=((90, 61), (12, 100)), labels=(1, 0)),
    Prompt(mask=rle.encode_masks(blob()[None])[0], box_xyxy=(45, 25, 125, 95)),
    Prompt(points_xy=((30, 30),), labels=(1,)),
)


def as_arrays(prompt, model, frame):
    """A prompt as `predict` takes it."""
    asked = {} if prompt.box_xyxy is None else {"box": prompt.box_xyxy}
    if prompt.points_xy:
        asked |= {"point_coords": prompt.points_xy, "point_labels": prompt.labels}
    if prompt.mask is not None:
        asked |= {"mask_input": model.mask_prompt(rle.decode(prompt.mask), frame)}
    return asked


@pytest.fixture
def predictor(pair, twelve_photos):
    assert twelve_photos[2].shape[:2] == SIZE_HW
    predictor = MaskPredictor(pair[0])
    predictor.set_image(twelve_photos[2])
    return predictor


@pytest.mark.parametrize("multimask_output", [False, True])
def test_each_prompt_gets_what_it_gets_alone(predictor, multimask_output):
    """All three masks, or of the three the one of the highest predicted IoU; with its numbers."""
    answers = predictor.predict_batch(PROMPTS, multimask_output=multimask_output)
    threshold, offset = predictor.config.mask_threshold, predictor.config.stability_score_offset
    for prompt, masks in zip(PROMPTS, answers, strict=True):
        asked = as_arrays(prompt, predictor.model, predictor.images[0].frame)
        logits, ious, _ = predictor.predict(**asked, return_logits=True)
        levels = [0, 1, 2] if multimask_output else [int(ious.argmax())]
        assert [mask.level for mask in masks] == levels
        for mask in masks:
            expected = torch.from_numpy(logits[mask.level : mask.level + 1])
            bits = rle.decode(mask.rle)
            assert (bits != (expected[0] > threshold).numpy()).mean() <= 1e-4
            assert mask.area == bits.sum()
            x, y, w, h = mask.bbox_xywh
            boxes_xyxy = mask_boxes(torch.from_numpy(bits)[None])
            assert (x, y, x + w, y + h) == tuple(boxes_xyxy[0].tolist())
            assert mask.predicted_iou == pytest.approx(ious[mask.level], abs=1e-5)
            stability = float(stability_score(expected, threshold, offset))
            assert mask.stability_score == pytest.approx(stability, abs=1e-3, nan_ok=True)


def test_what_was_asked_is_kept(predictor):
    for prompt, (mask,) in zip(PROMPTS, predictor.predict_batch(PROMPTS), strict=True):
        assert mask.prompt is prompt
        is_point = prompt in (PROMPTS[1], PROMPTS[6])
        assert mask.point_xy == (prompt.points_xy[0] if is_point else None)
        assert (mask.crop_box_xywh, mask.crop_layer) == ((0, 0, *SIZE_HW[::-1]), 0)
        assert (mask.object_score is not None) == predictor.model.has_object_score
    (mask,) = predictor.predict_batch(PROMPTS[:1])[0]
    assert (mask.prompt_id, mask.category, mask.score) == ("7", "cup", 0.5)
    assert predictor.predict_batch([]) == []


def test_small_batches_change_nothing(predictor, monkeypatch):
    many = [PROMPTS[i % len(PROMPTS)] for i in range(20)]
    expected = predictor.predict_batch(many)
    small = MaskPredictor(
        predictor.model, predictor.config.model_copy(update={"points_per_batch": 2})
    )
    small.images = predictor.images
    for ours, theirs in zip(small.predict_batch(many), expected, strict=True):
        assert ours[0].prompt is theirs[0].prompt
        differing = rle.decode(ours[0].rle) != rle.decode(theirs[0].rle)
        assert differing.mean() <= 1e-4


@pytest.mark.parametrize("side", [(134, 200), (50, 77)])
def test_a_mask_as_a_prompt_lies_where_it_was(pair, side):
    """Its logits, brought to the image's size as a model's own are, are the mask again."""
    model, _ = pair
    mask = np.zeros(side, np.bool_)
    mask[side[0] // 4 : side[0] // 2, side[1] // 3 :] = True
    frame = model.fit(np.zeros((*side, 3), np.uint8)).frame
    logits = model.mask_prompt(mask, frame)
    assert (logits.shape, logits.dtype) == ((1, *model.low_res_hw), np.float32)
    assert (logits.min(), logits.max()) == (-10, 10)
    back = (model.upsample(torch.from_numpy(logits), frame)[0] > 0).numpy()
    ys, xs = (np.flatnonzero((back | mask).any(axis=axis)) for axis in (1, 0))
    cell = max(side) / min(model.low_res_hw)  # of a low-res mask, in pixels
    assert abs(ys[0] - side[0] // 4) <= cell and abs(ys[-1] + 1 - side[0] // 2) <= cell
    assert abs(xs[0] - side[1] // 3) <= cell and xs[-1] == side[1] - 1
    assert (back & mask).sum() >= 0.75 * (back | mask).sum()


REFUSED = {
    r"prompts\[1\] \(7\): box .* is upside down": Prompt(box_xyxy=(9, 2, 3, 4), prompt_id="7"),
    r"prompts\[1\]: neither box nor points nor mask": Prompt(category="cup"),
    "2 labels for 1 points": Prompt(points_xy=((1, 2),), labels=(1, 0)),
    "1 labels for 0 points": Prompt(box_xyxy=(1, 2, 3, 4), labels=(1,)),
    r"point \(300, 2\) is outside": Prompt(points_xy=((300, 2),), labels=(1,)),
    "mask of 4 x 4, its image has 200 x 134": Prompt(mask=rle.encode_masks(np.eye(4)[None] > 0)[0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_asked_is_named(small_nano, twelve_photos, message):
    predictor = MaskPredictor(small_nano)
    predictor.set_image(twelve_photos[2])
    with pytest.raises(ValueError, match=message):
        predictor.predict_batch([PROMPTS[0], REFUSED[message]])
