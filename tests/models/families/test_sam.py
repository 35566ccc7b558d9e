import numpy as np
import pytest
import segment_anything
import torch
import torch.nn.functional as F
from segment_anything import modeling as original
from torch import nn

from amg.models.families.sam import SAMModel
from amg.models.interface import Frame
from amg.models.modules.image_encoder_vit import ImageEncoderViT
from amg.models.modules.mask_decoder import MaskDecoder
from amg.models.modules.prompt_encoder import PromptEncoder
from amg.models.modules.two_way_transformer import TwoWayTransformer
from amg.models.zoo.load import build_model
from amg.models.zoo.registry import MODELS
from tests.models.parity import BOTH_DTYPES, assert_close, decode_all, layout, random, twins

IMGSZ, DIM, N_POINTS = 128, 32, 24
SIZES_HW = [(128, 128), (127, 63), (64, 64), (34, 201), (301, 202), (80, 513), (500, 3), (1, 1)]
OTHER_NORMALISATION = {"pixel_mean": [10.0, 20.0, 30.0], "pixel_std": [3.0, 5.0, 7.0]}


def build(model, encoder, prompt_encoder, decoder, transformer, **normalisation):
    return model(
        encoder(
            img_size=IMGSZ,
            embed_dim=24,
            depth=2,
            num_heads=2,
            out_chans=DIM,
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        prompt_encoder(DIM, (IMGSZ // 16, IMGSZ // 16), (IMGSZ, IMGSZ), 16),
        decoder(
            transformer_dim=DIM,
            transformer=transformer(depth=2, embedding_dim=DIM, num_heads=4, mlp_dim=64),
        ),
        **normalisation,
    )


def sam_twins(dtype=torch.float32, **normalisation):
    ours = build(
        SAMModel, ImageEncoderViT, PromptEncoder, MaskDecoder, TwoWayTransformer, **normalisation
    )
    parts = (
        original.ImageEncoderViT,
        original.PromptEncoder,
        original.MaskDecoder,
        original.TwoWayTransformer,
    )
    return twins(ours, build(original.Sam, *parts, **normalisation), dtype)


@pytest.fixture(scope="module")
def models():
    """Ours and the original; tests leave them as they are."""
    return sam_twins()


def make_image(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def make_points(size_hw, seed=0):
    return np.random.default_rng(seed).random((N_POINTS, 2)) * size_hw[::-1]


def original_predictor(model, image):
    """The original's predictor with the image set, and the input that its encoder got."""
    predictor = segment_anything.SamPredictor(model)
    inputs = []
    hook = model.image_encoder.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    predictor.set_image(image)
    hook.remove()
    return predictor, inputs[0]


def original_result(model, image, points_xy, mask_input=None, multimask_output=True):
    """The original's input, features, masks as logits, IoUs and low-res logits."""
    predictor, pixels = original_predictor(model, image)
    coords = predictor.transform.apply_coords(points_xy, image.shape[:2])
    coords = torch.as_tensor(coords).unsqueeze(1)
    labels = torch.ones(coords.shape[:2], dtype=torch.int)
    masks = predictor.predict_torch(
        coords, labels, None, mask_input, multimask_output, return_logits=True
    )
    return pixels, predictor.features, *masks


# --- images in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalisation", [{}, OTHER_NORMALISATION], ids=["default", "other"])
def test_preprocess_gives_the_originals_pixels(normalisation):
    ours, theirs = sam_twins(**normalisation)
    images = [make_image(size_hw, i) for i, size_hw in enumerate(SIZES_HW) if size_hw != (500, 3)]
    pixels, frames = ours.preprocess(images)
    assert pixels.shape == (len(images), 3, IMGSZ, IMGSZ)
    for image, ours_, frame in zip(images, pixels, frames, strict=True):
        _, expected = original_predictor(theirs, image)
        assert torch.equal(ours_, expected[0])
        h, w = frame.resized_hw
        assert frame.size_hw == image.shape[:2]
        assert max(frame.resized_hw) == IMGSZ
        assert torch.all(ours_[:, h:] == 0)
        assert torch.all(ours_[:, :, w:] == 0)


def test_preprocess_of_a_crop_equals_that_of_its_copy(models):
    image = make_image((90, 110))
    views = [image[10:80, 5:77], image[:, ::-1], image[::2]]
    for ours, copied in zip(
        models[0].preprocess(views)[0],
        models[0].preprocess([view.copy() for view in views])[0],
        strict=True,
    ):
        assert torch.equal(ours, copied)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_encoding_a_batch_equals_encoding_each(dtype):
    ours, theirs = sam_twins(dtype)
    x = random(3, 3, IMGSZ, IMGSZ, dtype=dtype)
    features = ours.encode(x)
    assert features.shape == (3, DIM, 8, 8)
    assert_close(features, theirs.image_encoder(x))
    for one, row in zip(x, features, strict=True):
        assert_close(row, theirs.image_encoder(one.unsqueeze(0))[0])


@pytest.mark.parametrize("size_hw", [(1, 500), (500, 1), (2, 2000), (3, 500)], ids=str)
def test_slivers_do_not_fail(models, size_hw):
    """The original rounds their short side to no pixels, and fails."""
    model = models[0]
    pixels, (frame,) = model.preprocess([make_image(size_hw)])
    assert sorted(frame.resized_hw) == [1, IMGSZ]
    features = model.encode(pixels)
    assert features.isfinite().all()
    candidates = decode_all(model, features[0], frame, make_points(size_hw), 0.0)
    masks = model.upsample(candidates.logits, frame)
    assert masks.shape == (3 * N_POINTS, *size_hw)
    assert masks.isfinite().all()


# --- masks out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_upsample_equals_the_originals_postprocessing(models, size_hw):
    ours, theirs = models
    _, (frame,) = ours.preprocess([make_image(size_hw)])
    logits = random(5, 32, 32)
    expected = theirs.postprocess_masks(logits.unsqueeze(1), frame.resized_hw, size_hw)
    assert_close(ours.upsample(logits, frame), expected[:, 0])


@pytest.mark.parametrize("size_hw", [(127, 63), (34, 201), (301, 202)], ids=str)
@pytest.mark.parametrize("share_dropped", [0.5, 0.9])
def test_decode_equals_the_originals_prediction(models, size_hw, share_dropped):
    ours, theirs = models
    image, points_xy = make_image(size_hw), make_points(size_hw)
    _, features, masks, predicted_iou, low_res = original_result(theirs, image, points_xy)
    threshold = between(predicted_iou[predicted_iou > 0], share_dropped)
    keep = predicted_iou > threshold
    assert {int(n) for n in keep.sum(dim=1)} & {1, 2}, "no prompt keeps some of its masks"

    _, (frame,) = ours.preprocess([image])
    candidates = decode_all(ours, features[0], frame, points_xy, threshold)
    prompt_index, level = keep.nonzero(as_tuple=True)
    assert torch.equal(candidates.prompt_index, prompt_index)
    assert torch.equal(candidates.level, level)
    assert_close(candidates.predicted_iou, predicted_iou[keep])
    assert_close(candidates.logits, low_res[keep])
    assert_close(ours.upsample(candidates.logits, frame), masks[keep])


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("use_m2m", [True, False])
@pytest.mark.parametrize("multimask_output", [True, False])
def test_one_mask_a_point_and_a_second_look(multimask_output, use_m2m, plain):
    ours, theirs = sam_twins()
    ours.plain = plain
    for model in (ours, theirs):  # else random weights promise less than nothing of one mask
        model.mask_decoder.iou_prediction_head.layers[-1].bias += 2
    image, points_xy = make_image((60, 128)), make_points((60, 128))
    options = {"multimask_output": multimask_output}
    _, features, _, predicted_iou, low_res = original_result(theirs, image, points_xy, **options)
    n_masks = predicted_iou.shape[1]
    if use_m2m:
        again = points_xy.repeat(n_masks, axis=0), low_res.flatten(0, 1).unsqueeze(1), False
        *_, predicted_iou, low_res = original_result(theirs, image, *again)
    predicted_iou, low_res = predicted_iou.flatten(), low_res.flatten(0, 1)
    threshold = between(predicted_iou[predicted_iou > 0], 0.5)

    frame = Frame((60, 128), (60, 128), (128, 128))
    options["use_m2m"] = use_m2m
    candidates = decode_all(ours, features[0], frame, points_xy, threshold, **options)
    (kept,) = (predicted_iou > threshold).nonzero(as_tuple=True)
    assert 0 < len(kept) < len(predicted_iou)
    assert torch.equal(candidates.prompt_index, kept // n_masks)
    assert torch.equal(candidates.level, kept % n_masks)
    assert_close(candidates.predicted_iou, predicted_iou[kept])
    assert_close(candidates.logits, low_res[kept])


def between(values, share):
    """A threshold with that share of the values below it, and none near."""
    ordered = values.sort().values
    i = int(share * len(ordered))
    return float(ordered[i - 1 : i + 1].mean())


@pytest.mark.parametrize("threshold", [0.0, -0.1])
def test_a_threshold_that_is_not_positive_keeps_all(models, threshold):
    """Masks of negative predicted IoU too, as the original does."""
    ours, theirs = models
    image, points_xy = make_image((60, 128)), make_points((60, 128))
    _, features, _, predicted_iou, low_res = original_result(theirs, image, points_xy)
    assert predicted_iou.min() < -0.1 < 0 < predicted_iou.max()
    candidates = decode_all(
        ours, features[0], Frame((60, 128), (60, 128), (128, 128)), points_xy, threshold
    )
    assert candidates.prompt_index.tolist() == [i for i in range(N_POINTS) for _ in range(3)]
    assert candidates.level.tolist() == [0, 1, 2] * N_POINTS
    assert_close(candidates.predicted_iou, predicted_iou.flatten())
    assert_close(candidates.logits, low_res.flatten(0, 1))


def test_masks_at_the_threshold_are_dropped(models):
    model, frame, points_xy = (
        models[0],
        Frame((128, 128), (128, 128), (128, 128)),
        make_points((128, 128)),
    )
    features = random(DIM, 8, 8)
    every = decode_all(model, features, frame, points_xy, 0.0).predicted_iou
    threshold = float(every.max())
    assert len(decode_all(model, features, frame, points_xy, threshold).predicted_iou) == 0
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    assert len(decode_all(model, features, frame, points_xy, below).predicted_iou) == 1


def test_no_candidates(models):
    model, frame = models[0], Frame((50, 100), (64, 128), (128, 128))
    none = decode_all(model, random(DIM, 8, 8), frame, make_points((50, 100)), 1e6)
    assert none.logits.shape == (0, 32, 32)
    assert none.predicted_iou.shape == none.prompt_index.shape == none.level.shape == (0,)
    assert model.upsample(none.logits, frame).shape == (0, 50, 100)
    assert list(model.decode(random(DIM, 8, 8), frame, np.zeros((0, 2)), 0.0, 64)) == []


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("points_per_batch", [1, 4, 100])
def test_batches_of_points_change_nothing(models, plain, points_per_batch, monkeypatch):
    model, frame = models[0], Frame((50, 100), (64, 128), (128, 128))
    monkeypatch.setattr(model, "plain", plain)
    points_xy, features = make_points((50, 100)), random(DIM, 8, 8)
    whole = decode_all(model, features, frame, points_xy, 0.0)
    threshold = between(whole.predicted_iou, 0.5)
    whole = decode_all(model, features, frame, points_xy, threshold)
    batches = list(model.decode(features, frame, points_xy, threshold, points_per_batch))
    assert len(batches) == -(-N_POINTS // points_per_batch)
    for name in ("prompt_index", "level"):
        joined = torch.cat([getattr(batch, name) for batch in batches])
        assert torch.equal(joined, getattr(whole, name))
    for name in ("logits", "predicted_iou"):
        assert_close(torch.cat([getattr(batch, name) for batch in batches]), getattr(whole, name))


# --- the size of the input ------------------------------------------------------------------------


@pytest.mark.parametrize("imgsz", [64, (192, 192)], ids=str)
def test_set_imgsz_equals_the_original_of_that_size(imgsz):
    ours, theirs = sam_twins()
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    image, points_xy = make_image((100, 71)), make_points((100, 71))
    before = ours.encode(ours.preprocess([image])[0])
    ours.set_imgsz(imgsz)
    side = imgsz if isinstance(imgsz, int) else imgsz[0]
    assert ours.imgsz == side

    encoder, prompt_encoder = theirs.image_encoder, theirs.prompt_encoder
    encoder.img_size = side
    grid = (side // 16, side // 16)
    positions = F.interpolate(encoder.pos_embed.permute(0, 3, 1, 2), grid, mode="bicubic")
    encoder.pos_embed = nn.Parameter(positions.permute(0, 2, 3, 1))
    prompt_encoder.image_embedding_size, prompt_encoder.input_image_size = grid, (side, side)
    expected = original_result(theirs, image, points_xy)

    pixels, (frame,) = ours.preprocess([image])
    features = ours.encode(pixels)
    candidates = decode_all(ours, features[0], frame, points_xy, 0.0)
    masks = ours.upsample(candidates.logits, frame)
    results = (pixels, features, masks, candidates.predicted_iou, candidates.logits)
    for mine, their in zip(results, expected, strict=True):
        assert_close(mine, their.reshape(mine.shape))

    ours.set_imgsz(IMGSZ)
    assert ours.imgsz == IMGSZ
    assert torch.equal(ours.encode(ours.preprocess([image])[0]), before)
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("imgsz", "reason"), [((128, 64), "square"), (100, "multiples of 16"), (0, "multiples of 16")]
)
def test_set_imgsz_refuses(imgsz, reason):
    model, _ = sam_twins()
    with pytest.raises(ValueError, match=rf"imgsz=.*{reason}"):
        model.set_imgsz(imgsz)
    assert model.imgsz == IMGSZ
    assert model.image_encoder.img_size == IMGSZ


# --- the published models -------------------------------------------------------------------------


def test_constants_are_the_originals(models):
    ours, theirs = models
    assert ours.mask_threshold == theirs.mask_threshold == 0.0
    assert torch.equal(ours.pixel_mean, theirs.pixel_mean)
    assert torch.equal(ours.pixel_std, theirs.pixel_std)


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)],
)
def test_published_sizes_have_the_originals_layout(name, n_parameters):
    with torch.device("meta"):
        ours = build_model(MODELS[f"sam_{name}"])
        theirs = segment_anything.sam_model_registry[name]()
    assert layout(ours) == layout(theirs)
    assert sum(p.numel() for p in ours.parameters()) == n_parameters
    window_sizes = [block.window_size for block in ours.image_encoder.blocks]
    assert window_sizes == [block.window_size for block in theirs.image_encoder.blocks]
    assert epsilons(ours) == epsilons(theirs)


def epsilons(model):
    return {name: m.eps for name, m in model.named_modules() if hasattr(m, "eps")}
