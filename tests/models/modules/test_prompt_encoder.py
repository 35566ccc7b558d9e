import pytest
import torch
from segment_anything.modeling import PromptEncoder as OriginalPromptEncoder
from torch import nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamPromptEncoder

from amg.models.modules.prompt_encoder import PositionEmbeddingRandom, PromptEncoder
from tests.models.parity import (
    BOTH_DTYPES,
    assert_close,
    from_transformers,
    layout,
    random,
    randomise,
    twins,
)

N = 3  # objects
SIZE = {"embed_dim": 16, "image_embedding_size": (8, 4), "input_image_size": (128, 64)}
SQUARE = {"embed_dim": 16, "image_embedding_size": (8, 8), "input_image_size": (128, 128)}


def test_what_the_original_says_of_itself_is_said_of_any_size():
    ours, theirs = (
        make(32, (4, 4), (64, 64), 16) for make in (PromptEncoder, OriginalPromptEncoder)
    )
    for name in ("num_point_embeddings", "mask_input_size"):
        assert getattr(ours, name) == getattr(theirs, name)
    ours.set_imgsz((96, 96))
    assert ours.mask_input_size == (24, 24)


def original(dtype, **config):
    """The original. It rounds coordinates to float32, whatever its weights are: undone here."""
    encoder = OriginalPromptEncoder(**config)
    encode = encoder.pe_layer._pe_encoding
    encoder.pe_layer._pe_encoding = lambda coords: encode(coords.to(dtype))
    return encoder


def pixels(*shape, dtype):
    """Coordinates in eighths of a pixel from -4 to 132: exact in float32, on and off the image."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-32, 1056, shape, generator=generator).to(dtype) / 8


def points(dtype, n_points=4):
    labels = torch.tensor([[1, 0, -1, 1], [0, 1, 1, -1], [-1, -1, 0, 1]])[:, :n_points]
    return pixels(N, n_points, 2, dtype=dtype), labels


def prompts(dtype, *kinds):
    """Points, boxes and masks, None for those that are not among `kinds`."""
    return (
        points(dtype) if "points" in kinds else None,
        pixels(N, 4, dtype=dtype) if "boxes" in kinds else None,
        random(N, 1, 32, 16, dtype=dtype) if "masks" in kinds else None,
    )


KINDS = [
    (),
    ("points",),
    ("boxes",),
    ("masks",),
    ("points", "boxes"),
    ("points", "masks"),
    ("boxes", "masks"),
    ("points", "boxes", "masks"),
]


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_equals_the_original(kinds, dtype):
    config = SIZE | {"mask_in_chans": 8}
    ours, theirs = twins(PromptEncoder(**config), original(dtype, **config), dtype)
    assert layout(ours) == layout(theirs)
    given = prompts(dtype, *kinds)
    for mine, expected in zip(ours(*given), theirs(*given), strict=True):
        assert_close(mine.to(dtype), expected.to(dtype))


def test_activation():
    config = SIZE | {"mask_in_chans": 8, "activation": nn.ReLU}
    ours, theirs = twins(PromptEncoder(**config), original(torch.float64, **config), torch.float64)
    given = prompts(torch.float64, "masks")
    assert_close(ours(*given)[1], theirs(*given)[1])


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("size_hw", [(4, 4), (8, 4), (5, 7)], ids=str)
def test_dense_positions_equal_the_original(size_hw, dtype):
    config = SIZE | {"image_embedding_size": size_hw, "mask_in_chans": 8}
    ours, theirs = twins(PromptEncoder(**config), original(dtype, **config), dtype)
    # The original's grid is float32, which holds sevenths but roughly.
    tolerance = 1e-6 if size_hw == (5, 7) else None
    assert_close(ours.get_dense_pe(), theirs.get_dense_pe(), tolerance)


@pytest.fixture(params=BOTH_DTYPES, ids=str)
def transformers_twins(request):
    config = SamConfig(
        vision_config={"num_pos_feats": 8, "hidden_size": 16},
        prompt_encoder_config={"hidden_size": 16, "image_size": 128, "mask_input_channels": 8},
    )
    ours = PromptEncoder(**SQUARE, mask_in_chans=8)
    rename = from_transformers("prompt_encoder")
    return *twins(ours, SamPromptEncoder(config), request.param, rename), request.param


@pytest.mark.parametrize("with_box", [False, True])
@pytest.mark.parametrize("n_points", [0, 1, 4])
def test_equals_transformers(transformers_twins, n_points, with_box):
    """Its prompts have one axis more, the image's, and one box an object at most."""
    ours, theirs, dtype = transformers_twins
    coords, labels = points(dtype, n_points)
    boxes = pixels(N, 4, dtype=dtype) if with_box else None
    sparse, dense = ours((coords, labels) if n_points else None, boxes, None)
    expected_sparse, expected_dense = theirs(
        coords.unsqueeze(0) if n_points else None,
        labels.unsqueeze(0) if n_points else None,
        boxes.unsqueeze(0) if with_box else None,
        None,
    )
    if n_points or with_box:
        assert_close(sparse, expected_sparse[0])
    else:
        assert expected_sparse is None
        assert sparse.shape == (1, 0, 16)
    assert_close(dense, expected_dense.expand_as(dense))


def test_masks_equal_transformers(transformers_twins):
    ours, theirs, dtype = transformers_twins
    masks = random(N, 1, 32, 32, dtype=dtype)
    assert_close(ours(None, None, masks)[1], theirs(None, None, None, masks)[1])


@pytest.mark.parametrize("n_points", [0, 2])
def test_boxes_may_be_corners_and_several(n_points):
    """(N, M, 4) and (N, M, 2, 2) are the same boxes, and each box has the tokens it has alone."""
    encoder = randomise(PromptEncoder(**SIZE, mask_in_chans=8))
    given = points(torch.float32, n_points) if n_points else None
    boxes = pixels(N, 3, 4, dtype=torch.float32)
    sparse, dense = encoder(given, boxes, None)
    assert sparse.shape == (N, n_points + 6, 16)
    assert dense.shape == (N, 16, 8, 4)
    assert torch.equal(encoder(given, boxes.unflatten(-1, (2, 2)), None)[0], sparse)
    for i in range(3):
        alone = encoder(given, boxes[:, i], None)[0]
        tokens = [*range(n_points), n_points + 2 * i, n_points + 2 * i + 1]
        torch.testing.assert_close(sparse[:, tokens], alone)


def test_the_padding_point_counts_whatever_its_coordinates():
    encoder = randomise(PromptEncoder(**SIZE, mask_in_chans=8))
    coords, labels = points(torch.float32)
    sparse, _ = encoder((coords, labels), None, None)
    assert sparse.shape == (N, 5, 16)
    not_a_point = encoder.not_a_point_embed.weight[0]
    for i in range(N):
        assert torch.equal(sparse[i, -1], not_a_point)
        assert torch.all(sparse[i, :4][labels[i] == -1] == not_a_point)
        assert not torch.any(torch.all(sparse[i, :4][labels[i] != -1] == not_a_point, dim=-1))


def test_float64_coordinates_are_rounded_after_their_division_as_in_the_original():
    """Thirds of a pixel differ in float32 before and after it: bits must be the original's."""
    config = SIZE | {"input_image_size": (100, 75), "mask_in_chans": 8}
    ours, theirs = twins(PromptEncoder(**config), OriginalPromptEncoder(**config))
    coords = torch.rand(64, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = (coords * 100, torch.ones(64, 1))
    assert torch.equal(ours(given, None, None)[0], theirs(given, None, None)[0])


def test_no_mask_dense_is_what_all_prompts_share():
    encoder = randomise(PromptEncoder(**SIZE, mask_in_chans=8))
    shared = encoder.no_mask_dense()
    assert shared.shape == (1, 16, 8, 4)
    _, dense = encoder(points(torch.float32), None, None)
    assert torch.equal(dense, shared.expand(N, -1, -1, -1))
    assert torch.equal(shared[0, :, 3, 2], encoder.no_mask_embed.weight[0])


@pytest.mark.parametrize("scale", [None, 3.0, -1.0])
def test_scale_of_the_random_positions(scale):
    """A scale that is not positive counts as none, as in the original."""
    torch.manual_seed(0)
    matrix = PositionEmbeddingRandom(2000, scale).positional_encoding_gaussian_matrix
    assert float(matrix.std()) == pytest.approx(3 if scale == 3.0 else 1, rel=0.05)


def test_set_imgsz_equals_an_original_of_that_size():
    ours, _ = twins(
        PromptEncoder(**SIZE, mask_in_chans=8), original(torch.float32, **SIZE, mask_in_chans=8)
    )
    state = ours.state_dict()
    other = {"image_embedding_size": (16, 4), "input_image_size": (256, 64)}
    theirs = original(torch.float32, **SIZE | other, mask_in_chans=8)
    theirs.load_state_dict(state)
    before = ours(points(torch.float32), None, None)[0]
    ours.set_imgsz((256, 64))
    assert list(ours.state_dict()) == list(state)
    given = (points(torch.float32), pixels(N, 4, dtype=torch.float32), None)
    for mine, expected in zip(ours(*given), theirs(*given), strict=True):
        assert_close(mine, expected)
    assert_close(ours.get_dense_pe(), theirs.get_dense_pe())
    ours.set_imgsz((128, 64))
    assert torch.equal(ours(points(torch.float32), None, None)[0], before)


def test_shapes_of_the_specification():
    encoder = PromptEncoder(256, (64, 64), (1024, 1024), 16)
    five = (torch.rand(1, 5, 2) * 1024, torch.ones(1, 5))
    for box in (torch.rand(1, 1, 2, 2) * 1024, torch.rand(1, 1, 4) * 1024):
        sparse, dense = encoder(five, box, None)
        assert sparse.shape == (1, 7, 256)
        assert dense.shape == (1, 256, 64, 64)
    sparse, dense = encoder(five, None, torch.zeros(1, 1, 256, 256))
    assert sparse.shape == (1, 6, 256)
    assert dense.shape == (1, 256, 64, 64)
    assert encoder.get_dense_pe().shape == (1, 256, 64, 64)
