"""The assembled model against the original's image predictor, and against transformers."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from tests.models.parity import assert_close, decode_all, layout, random

pytest.importorskip("benchmarks.original_sam2")
from amg.models.families.sam2 import SAM2Model
from amg.models.interface import Frame
from amg.models.tracking.memories import TrackingOptions
from amg.models.zoo.load import build_model
from amg.models.zoo.registry import MODELS
from benchmarks.original_sam2 import instantiate, original_predictor, published_config
from tests.models.small_sam2 import (
    DIM,
    IMGSZ,
    instantiate_ours,
    prompted_twins,
    sam2_twins,
    small_config,
)

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
OPTIONS = {"compile_image_encoder": True, "add_all_frames_to_correct_as_cond": True}
SAM2_NAMES = [name for name, spec in MODELS.items() if spec.architecture == "sam2"]
SIZES_HW = [(128, 128), (127, 63), (34, 201), (301, 202), (80, 513), (500, 3), (1, 1), (768, 640)]
N_POINTS = 10


@pytest.fixture(scope="module")
def models():
    """Ours and the original; tests leave them as they are."""
    return prompted_twins()


def make_image(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def make_points(size_hw, seed=0):
    return np.random.default_rng(seed).random((N_POINTS, 2)) * size_hw[::-1]


def original_result(model, image, points_xy, masks=None, multimask_output=True):
    """The original's masks as logits, IoUs and low-res logits."""
    predictor = original_predictor(model)
    predictor.set_image(image)
    points = torch.as_tensor(points_xy, dtype=torch.float32)
    coords = predictor._transforms.transform_coords(
        points, normalize=True, orig_hw=image.shape[:2]
    ).unsqueeze(1)
    labels = torch.ones(coords.shape[:2], dtype=torch.int)
    return predictor._predict(
        coords, labels, None, masks, multimask_output=multimask_output, return_logits=True
    )


# --- what it is made of ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAM2_NAMES)
def test_published_sizes_are_the_originals(name, monkeypatch):
    """Every key and shape, and every number of the architecture that has no shape."""
    # The original reads numbers from this while it is built.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    config = published_config(name)
    with torch.device("meta"):
        ours = build_model(MODELS[name])
        again, theirs = instantiate_ours(config), instantiate(config)
    assert layout(ours) == layout(theirs)
    trunk, original = ours.image_encoder.trunk, theirs.image_encoder.trunk
    for mine, their in zip(trunk.blocks, original.blocks, strict=True):
        assert mine.window_size == their.window_size
        assert mine.attn.num_heads == their.attn.num_heads
        assert mine.stride == (their.q_stride or (1,))[0]
    assert trunk.stage_ends == original.stage_ends
    # What the published configuration makes of our classes is what the registry makes of them.
    for module, twin in zip(ours.modules(), again.modules(), strict=True):
        assert type(module) is type(twin)
        assert plain_values(module) == plain_values(twin)


def plain_values(module):
    """A module's own numbers and options."""
    kinds = (bool, int, float, str, tuple, list, TrackingOptions)
    return {
        name: list(value) if isinstance(value, tuple | range) else value
        for name, value in vars(module).items()
        if isinstance(value, (*kinds, range)) and name != "training"
    }


def test_all_options_of_the_published_model_are_taken():
    from sam2.modeling.sam2_base import SAM2Base

    published = inspect.signature(SAM2Base).parameters
    ours = inspect.signature(SAM2Model).parameters
    tracking = inspect.signature(TrackingOptions).parameters
    of_videos = {"tracking", "add_all_frames_to_correct_as_cond"}
    assert published.keys() == (ours.keys() | tracking.keys()) - of_videos
    for name in published:
        assert (ours.get(name) or tracking[name]).default == published[name].default, name


CHANGES = {
    "memories of the features' width": {"memory_encoder": {"out_dim": DIM}},
    "no pointers": {"use_obj_ptrs_in_encoder": False, "fixed_no_obj_ptr": False},
    "linear pointers": {"use_mlp_for_obj_ptr_proj": False, "proj_tpos_enc_in_obj_ptrs": False},
    "no object score": {"pred_obj_scores": False, "fixed_no_obj_ptr": False},
    "no spatial embedding": {"no_obj_embed_spatial": False},
    "fewer memories": {"num_maskmem": 3},
}


@pytest.mark.parametrize("without", ["use_obj_ptrs_in_encoder", "pred_obj_scores"])
def test_options_that_need_others(without):
    with pytest.raises(ValueError, match="fixed_no_obj_ptr=True needs"):
        instantiate_ours(small_config(**{without: False}))


@pytest.mark.parametrize("part", ["memory_attention", "memory_encoder"])
def test_half_a_memory_is_refused(part):
    with pytest.raises(ValueError, match="both, or neither"):
        instantiate_ours(small_config(**{part: None}))


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_options_give_the_originals_parameters(changes):
    config = small_config()
    config["memory_encoder"] |= changes.get("memory_encoder", {})
    config |= {name: value for name, value in changes.items() if name != "memory_encoder"}
    assert layout(instantiate_ours(config)) == layout(instantiate(config))


# --- images in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_preprocess_gives_the_originals_pixels(models, size_hw):
    ours, theirs = models
    image = make_image(size_hw)
    pixels, frames = ours.preprocess([image])
    assert torch.equal(pixels[0], original_predictor(theirs)._transforms(image))
    assert frames == [Frame(size_hw, (IMGSZ, IMGSZ), (IMGSZ, IMGSZ))]


def test_a_fitted_image_keeps_nothing_of_the_array(models):
    image = make_image((90, 120))
    fitted = models[0].fit(image[10:])
    pixels = models[0].collate([fitted])
    image[:] = 0
    assert torch.equal(models[0].collate([fitted]), pixels)
    assert fitted.frame.size_hw == (80, 120)


@pytest.mark.filterwarnings("error")
def test_preprocess_takes_any_array(models):
    """BGR turned around, and bytes that belong to someone else."""
    ours, _ = models
    image = make_image((90, 120))
    borrowed = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    pixels, _ = ours.preprocess([image, borrowed, flipped])
    assert torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])


def test_images_of_a_batch_do_not_touch(models):
    ours, _ = models
    images = [make_image(size, seed) for seed, size in enumerate(SIZES_HW[:3])]
    pixels, _ = ours.preprocess(images)
    features = list(ours.encode(pixels))
    assert len(features) == 3
    for i, image in enumerate(images):
        alone, _ = ours.preprocess([image])
        assert torch.equal(pixels[i : i + 1], alone)
        (expected,) = ours.encode(alone)
        assert_close(features[i].embedding, expected.embedding)
        for mine, their in zip(features[i].high_res, expected.high_res, strict=True):
            assert_close(mine, their)


@pytest.mark.parametrize("high_res", [True, False])
@pytest.mark.parametrize("directly", [True, False])
def test_features_are_the_originals(high_res, directly):
    ours, theirs = sam2_twins(
        use_high_res_features_in_sam=high_res, directly_add_no_mem_embed=directly
    )
    image = make_image((90, 120))
    predictor = original_predictor(theirs)
    if not high_res:
        predictor._bb_feat_sizes = predictor._bb_feat_sizes[-1:]
    predictor.set_image(image)
    (features,) = ours.encode(ours.preprocess([image])[0])
    assert_close(features.embedding, predictor._features["image_embed"][0])
    expected = predictor._features["high_res_feats"]
    for mine, their in zip(features.high_res, expected, strict=True):
        assert_close(mine, their[0])


@pytest.mark.parametrize("high_res", [True, False])
def test_forward_image_is_the_originals(high_res):
    ours, theirs = sam2_twins(use_high_res_features_in_sam=high_res)
    x = random(2, 3, IMGSZ, IMGSZ)
    result, expected = ours.forward_image(x), theirs.forward_image(x)
    assert result.keys() == expected.keys()
    for name in ("backbone_fpn", "vision_pos_enc"):
        for mine, their in zip(result[name], expected[name], strict=True):
            assert_close(mine, their)
    assert_close(result["vision_features"], expected["vision_features"])


# --- masks out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("size_hw", SIZES_HW[:4], ids=str)
def test_candidates_are_the_originals(models, size_hw, multimask_output):
    ours, theirs = models
    image, points_xy = make_image(size_hw), make_points(size_hw)
    masks, ious, low_res = original_result(
        theirs, image, points_xy, multimask_output=multimask_output
    )
    pixels, (frame,) = ours.preprocess([image])
    (features,) = ours.encode(pixels)
    every = decode_all(ours, features, frame, points_xy, 0.0, multimask_output=multimask_output)
    assert_close(every.predicted_iou, ious.flatten())
    assert_close(every.logits.clamp(-32, 32), low_res.flatten(0, 1))
    assert_close(ours.upsample(every.logits, frame), masks.flatten(0, 1))
    n_masks = ious.shape[1]
    assert every.prompt_index.tolist() == [i for i in range(N_POINTS) for _ in range(n_masks)]
    assert every.level.tolist() == list(range(n_masks)) * N_POINTS
    assert len(every.logits.flatten(1).unique(dim=0)) > N_POINTS // 2


@pytest.mark.parametrize("multimask_output", [True, False])
def test_a_threshold_leaves_the_better_candidates(models, multimask_output):
    ours, _ = models
    image, points_xy = make_image((90, 120)), make_points((90, 120))
    pixels, (frame,) = ours.preprocess([image])
    (features,) = ours.encode(pixels)
    options = {"multimask_output": multimask_output}
    every = decode_all(ours, features, frame, points_xy, 0.0, **options)
    threshold = float(every.predicted_iou.median())
    some = decode_all(ours, features, frame, points_xy, threshold, **options)
    kept = every.predicted_iou > threshold
    assert 0 < int(kept.sum()) < len(kept)
    assert_close(some.logits, every.logits[kept])
    assert_close(some.predicted_iou, every.predicted_iou[kept])
    assert torch.equal(some.prompt_index, every.prompt_index[kept])
    assert torch.equal(some.level, every.level[kept])
    assert len(decode_all(ours, features, frame, points_xy, 1.0, **options).level) == 0


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_m2m_draws_every_candidate_again(models, threshold, multimask_output):
    """As `refine_with_m2m`: its own low-res logits, within bounds, are each candidate's prompt."""
    ours, theirs = models
    image, points_xy = make_image((90, 120)), make_points((90, 120))
    _, ious, low_res = original_result(theirs, image, points_xy, multimask_output=multimask_output)
    n_masks = ious.shape[1]
    _, refined_ious, refined = original_result(
        theirs,
        image,
        points_xy.repeat(n_masks, axis=0),
        low_res.flatten(0, 1).unsqueeze(1),
        multimask_output=False,
    )
    pixels, (frame,) = ours.preprocess([image])
    (features,) = ours.encode(pixels)
    candidates = decode_all(
        ours, features, frame, points_xy, threshold, multimask_output=multimask_output, use_m2m=True
    )
    kept = (refined_ious[:, 0] > threshold).nonzero().squeeze(1)
    assert len(kept) > 1
    assert_close(candidates.predicted_iou, refined_ious[kept, 0])
    assert_close(candidates.logits.clamp(-32, 32), refined[kept, 0])
    assert candidates.prompt_index.tolist() == (kept // n_masks).tolist()
    assert candidates.level.tolist() == (kept % n_masks).tolist()
    assert float(candidates.logits.abs().max()) > 32  # else the bounds would not matter


@pytest.mark.parametrize("use_m2m", [True, False])
@pytest.mark.parametrize("multimask_output", [True, False])
def test_no_points_and_no_survivors(models, multimask_output, use_m2m):
    ours, _ = models
    pixels, (frame,) = ours.preprocess([make_image((90, 120))])
    (features,) = ours.encode(pixels)
    options = {"multimask_output": multimask_output, "use_m2m": use_m2m}
    none = decode_all(ours, features, frame, make_points((90, 120)), 1.0, **options)
    assert none.logits.shape == (0, IMGSZ // 4, IMGSZ // 4)
    assert len(none.predicted_iou) == len(none.prompt_index) == len(none.level) == 0
    assert list(ours.decode(features, frame, np.zeros((0, 2)), 0.0, 64, **options)) == []


@pytest.mark.parametrize("use_m2m", [True, False])
@pytest.mark.parametrize("multimask_output", [True, False])
def test_the_fast_way_gives_the_plain_way_s(models, multimask_output, use_m2m, monkeypatch):
    ours, _ = models
    pixels, (frame,) = ours.preprocess([make_image((90, 120))])
    (features,) = ours.encode(pixels)
    options = {"multimask_output": multimask_output, "use_m2m": use_m2m}
    found = []
    for plain in (True, False):
        monkeypatch.setattr(ours, "plain", plain)
        found.append(decode_all(ours, features, frame, make_points((90, 120)), 0.0, **options))
    plain, fast = found
    assert len(features.high_res) == 2
    assert torch.equal(fast.prompt_index, plain.prompt_index)
    assert torch.equal(fast.level, plain.level)
    assert_close(fast.predicted_iou, plain.predicted_iou)
    assert_close(fast.logits, plain.logits)


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_resampling_does_what_upsample_does(models, size_hw):
    """Crops larger and smaller than the low-res masks."""
    ours, _ = models
    _, (frame,) = ours.preprocess([make_image(size_hw)])
    resampling = ours.resampling(frame)
    logits = random(3, IMGSZ // 4, IMGSZ // 4)
    along_rows = apply_taps(logits.transpose(1, 2), resampling.rows).transpose(1, 2)
    assert_close(apply_taps(along_rows, resampling.columns), ours.upsample(logits, frame))


def apply_taps(values, taps):
    """(..., n_low) to (..., size)."""
    index = torch.from_numpy(taps.starts)[:, None] + torch.arange(taps.weights.shape[1])
    return (values[..., index] * torch.from_numpy(taps.weights)).sum(-1)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("imgsz", [96, (160, 160)])
def test_set_imgsz_equals_an_original_of_that_size(imgsz):
    side = imgsz if isinstance(imgsz, int) else imgsz[0]
    ours, _ = sam2_twins()
    theirs = instantiate(small_config(image_size=side)).eval()
    theirs.load_state_dict(ours.state_dict())
    ours.set_imgsz(imgsz)
    assert ours.imgsz == side
    image, points_xy = make_image((90, 120)), make_points((90, 120))
    masks, ious, _ = original_result(theirs, image, points_xy)
    pixels, (frame,) = ours.preprocess([image])
    assert pixels.shape == (1, 3, side, side)
    (features,) = ours.encode(pixels)
    candidates = decode_all(ours, features, frame, points_xy, 0.0)
    assert_close(candidates.predicted_iou, ious.flatten())
    assert_close(ours.upsample(candidates.logits, frame), masks.flatten(0, 1))


@pytest.mark.parametrize("imgsz", [0, -32, 100, 48, (64, 96)])
def test_sizes_that_cannot_be(models, imgsz):
    ours, _ = models
    with pytest.raises(ValueError, match="imgsz"):
        ours.set_imgsz(imgsz)
    assert ours.imgsz == IMGSZ


# --- without a memory -----------------------------------------------------------------------------


def test_a_model_of_images_needs_no_memory(models):
    ours, _ = models
    config = small_config(memory_attention=None, memory_encoder=None)
    bare = instantiate_ours(config).eval()
    state = {name: t for name, t in ours.state_dict().items() if name in bare.state_dict()}
    assert not any(name.startswith("memory_") for name in bare.state_dict())
    bare.load_state_dict(state, strict=True)
    image, points_xy = make_image((90, 120)), make_points((90, 120))
    pixels, (frame,) = ours.preprocess([image])
    candidates = [
        decode_all(model, next(iter(model.encode(pixels))), frame, points_xy, 0.0)
        for model in (ours, bare)
    ]
    assert torch.equal(candidates[0].logits, candidates[1].logits)


def test_options_for_compiling_and_for_corrected_frames_are_taken():
    plain, model = (instantiate_ours(small_config(**some)) for some in ({}, OPTIONS))
    assert model.add_all_frames_to_correct_as_cond
    assert not plain.add_all_frames_to_correct_as_cond
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert model.image_encoder._compiled_call_impl is not None
    assert plain.image_encoder._compiled_call_impl is None
