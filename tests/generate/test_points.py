import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils import amg as original

from amg import GeneratorConfig
from amg.generate.crops import Crop
from amg.generate.points import crop_points, even_counts, point_grid


def _unit(config, layer):
    """The points of a crop of one pixel."""
    return crop_points(Crop((3, 4, 4, 5), layer), config)


@given(st.integers(1, 64))
def test_point_grid_is_the_originals(side):
    np.testing.assert_array_equal(point_grid(side, side), original.build_point_grid(side))


@pytest.mark.parametrize(
    ("side", "layers", "scale"), [(32, 2, 2), (32, 3, 1), (9, 2, 3), (10, 1, 4)]
)
@pytest.mark.parametrize("follow", [False, True])
def test_layer_grids_shrink_as_the_originals(side, layers, scale, follow):
    config = GeneratorConfig(
        points_per_side=side,
        crop_n_layers=layers,
        crop_n_points_downscale_factor=scale,
        points_follow_aspect=follow,
    )
    expected = original.build_all_layer_point_grids(side, layers, scale)
    for layer, theirs in enumerate(expected):
        np.testing.assert_array_equal(_unit(config, layer), theirs)


def test_a_grid_that_shrinks_to_nothing_is_empty():
    config = GeneratorConfig(points_per_side=2, crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert [len(_unit(config, layer)) for layer in range(3)] == [4, 1, 0]


def test_explicit_grids_are_taken_as_they_are():
    grid = np.array([[0.25, 0.5], [1.0, 0.0]])
    points = crop_points(Crop((10, 10, 110, 30), 0), GeneratorConfig(point_grids=[grid]))
    np.testing.assert_array_equal(points, [[25, 10], [100, 0]])


@given(st.integers(1, 64), st.integers(1, 3000), st.integers(1, 3000))
def test_points_that_follow_the_aspect_are_as_many_and_evenly_apart(side, height, width):
    columns, rows = even_counts(side, (height, width))
    short = min(columns, rows)
    assert abs(columns * rows - side**2) <= short / 2
    assert (columns >= rows) == (width >= height) or columns == rows
    wanted = side * math.sqrt(min(height, width) / max(height, width))
    if wanted >= 2:
        along_x, along_y = width / columns, height / rows
        assert max(along_x, along_y) / min(along_x, along_y) <= 1.8


def test_points_that_follow_the_aspect_lie_as_far_from_the_edges_as_halfway_apart():
    config = GeneratorConfig(points_per_side=6, points_follow_aspect=True)
    points = crop_points(Crop((0, 0, 90, 40), 0), config)
    assert sorted(set(points[:, 0])) == pytest.approx([5, 15, 25, 35, 45, 55, 65, 75, 85])
    assert sorted(set(points[:, 1])) == pytest.approx([5, 15, 25, 35])
