import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils import amg as original

from amg import GeneratorConfig
from amg.generate.points import layer_grids, point_grid


@given(st.integers(1, 64))
def test_point_grid_is_the_originals(side):
    np.testing.assert_array_equal(point_grid(side), original.build_point_grid(side))


@pytest.mark.parametrize(
    ("side", "layers", "scale"), [(32, 2, 2), (32, 3, 1), (9, 2, 3), (10, 1, 4)]
)
def test_layer_grids_shrink_as_the_originals(side, layers, scale):
    config = GeneratorConfig(
        points_per_side=side, crop_n_layers=layers, crop_n_points_downscale_factor=scale
    )
    expected = original.build_all_layer_point_grids(side, layers, scale)
    for ours, theirs in zip(layer_grids(config), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_grid_that_shrinks_to_nothing_is_empty():
    config = GeneratorConfig(points_per_side=2, crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert [len(grid) for grid in layer_grids(config)] == [4, 1, 0]


def test_explicit_grids_are_taken_as_they_are():
    grid = np.array([[0.25, 0.5], [1.0, 0.0]])
    (taken,) = layer_grids(GeneratorConfig(point_grids=[grid]))
    np.testing.assert_array_equal(taken, grid)
