import numpy as np
import pytest
from scipy.special import expit

from amg.errors import EvaluationError, StorageError
from amg.evaluate.edge_map import (
    across_ridges,
    edge_map,
    gradient_magnitude,
    normalise,
    outer_boundary,
    read_edge_map,
    suppress_beside_ridges,
    write_edge_map,
)
from amg.storage.failpoints import ENVIRONMENT
from tests.evaluate.shapes import box


def test_sobel_of_a_step_and_of_a_slope():
    step = np.zeros((5, 6), np.float32)
    step[:, 3:] = 1
    # 1 + 2 + 1 on both sides of the step, nothing at the image's border.
    assert gradient_magnitude(step).tolist() == [[0, 0, 4, 4, 0, 0]] * 5
    y, x = np.indices((6, 7), dtype=np.float32)
    inside = gradient_magnitude(3 * x + 4 * y)[1:-1, 1:-1]
    np.testing.assert_allclose(inside, 8 * 5)  # kernel's weight times the slope's length


def test_the_outer_boundary_is_the_ring_around_a_mask():
    size = (7, 8)
    mask = box(size, 2, 4, 3, 5)
    np.testing.assert_array_equal(outer_boundary(mask), box(size, 1, 5, 2, 6) & ~mask)
    at_corner = box(size, 0, 2, 0, 2)
    np.testing.assert_array_equal(outer_boundary(at_corner), box(size, 0, 3, 0, 3) & ~at_corner)
    assert not outer_boundary(np.ones(size, bool)).any()
    ring = box(size, 1, 6, 1, 6) & ~box(size, 3, 4, 3, 4)
    assert outer_boundary(ring)[3, 3]  # the hole's pixels touch the mask from outside too


def test_values_are_brought_to_the_unit_interval():
    assert normalise(np.array([[2.0, 3.0], [4.0, 2.0]])).tolist() == [[0, 0.5], [1, 0]]
    assert normalise(np.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120])
def test_the_direction_across_a_ridge(degrees):
    y, x = np.indices((41, 41)) - 20.0
    angle = np.deg2rad(degrees)
    ridge = np.exp(-((x * np.cos(angle) + y * np.sin(angle)) ** 2) / 8).astype(np.float32)
    off = across_ridges(ridge)[20, 20] - angle
    assert abs(np.sin(off)) < 0.02  # up to half a turn


def test_a_broad_ridge_becomes_a_line():
    profile = np.array([0, 0, 0, 0.2, 0.6, 1, 0.6, 0.2, 0, 0, 0], np.float32)
    ridge = np.tile(profile, (30, 1))
    expected = np.where(profile == 1, 1, 0)
    for image, line in ((ridge, expected[None, :]), (ridge.T, expected[:, None])):
        thinned = suppress_beside_ridges(np.ascontiguousarray(image))
        np.testing.assert_array_equal(thinned, np.broadcast_to(line, image.shape))


def test_masks_are_joined_by_their_strongest_edge():
    size = (40, 60)
    x = np.indices(size)[1].astype(np.float32)
    sharp = expit((20.5 - x) * 4)
    soft = expit((40.5 - x) / 2)
    edges = edge_map([(p.astype(np.float32), p > 0.5) for p in (sharp, soft)], size)
    # Only the pixels just outside of each mask can be edges: columns 21 and 41.
    assert set(np.flatnonzero(edges.any(axis=0))) == {21, 41}
    assert (edges[:, 21] == 1).all()
    # Sobel is the difference of two columns, twice apart.
    ratio = (soft[0, 40] - soft[0, 42]) / (sharp[0, 20] - sharp[0, 22])
    np.testing.assert_allclose(edges[:, 41], ratio, rtol=1e-4)


def test_no_masks_no_edges():
    assert not edge_map([], (4, 5)).any()


def test_edge_maps_are_kept_with_16_bits(tmp_path):
    edges = np.linspace(0, 1, 20).reshape(4, 5)
    write_edge_map(tmp_path / "a.png", edges)
    np.testing.assert_allclose(read_edge_map(tmp_path / "a.png"), edges, atol=1 / 65535)


def test_edge_maps_of_others_may_have_8_bits(tmp_path):
    from PIL import Image

    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_edge_map(tmp_path / "a.png").tolist() == [[0, 0.2, 1]]
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "rgb.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    for name in ("rgb.png", "bad.png", "none.png"):
        with pytest.raises(EvaluationError, match=name):
            read_edge_map(tmp_path / name)


def test_an_edge_map_is_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "a.half_written=full")
    with pytest.raises(StorageError, match=r"cannot write .*a\.png: No space left"):
        write_edge_map(tmp_path / "a.png", np.ones((3, 4)))
    assert list(tmp_path.iterdir()) == []
