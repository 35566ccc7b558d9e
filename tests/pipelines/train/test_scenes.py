import numpy as np
import pytest

from pipelines.train.scenes import Scene, make_scene, make_views


def scenes(size_px: int, count: int) -> list[Scene]:
    return [make_scene(np.random.default_rng([size_px, seed]), size_px) for seed in range(count)]


@pytest.mark.parametrize(("size_px", "count"), [(64, 12), (224, 12), (333, 4)])
def test_shapes_types_and_dense_nested_labels(size_px: int, count: int) -> None:
    for scene in scenes(size_px, count):
        assert scene.image.shape == (size_px, size_px, 3)
        assert scene.image.dtype == np.uint8
        assert scene.levels.shape == (3, size_px, size_px)
        assert scene.levels.dtype == np.int32
        for labels in scene.levels:
            used = np.unique(labels)
            np.testing.assert_array_equal(used, np.arange(len(used)))
        for fine, coarse in zip(scene.levels, scene.levels[1:], strict=False):
            pairs = np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1)
            assert pairs.shape[1] == fine.max() + 1


def test_same_generator_state_gives_the_same_scene() -> None:
    for seed in range(6):
        first, second = (make_scene(np.random.default_rng(seed), 96) for _ in range(2))
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.levels, second.levels)


def test_one_generator_yields_different_scenes() -> None:
    rng = np.random.default_rng(3)
    first, second = make_scene(rng, 64), make_scene(rng, 64)
    assert (first.image != second.image).mean() > 0.5


def test_scenes_are_neither_empty_nor_flat() -> None:
    made = scenes(128, 24)
    objects = [scene.levels[1].max() + 1 for scene in made]
    parts = [scene.levels[0].max() + 1 for scene in made]
    assert 5 < np.mean(objects) < 30
    assert np.mean(parts) > np.mean(objects)
    assert np.mean([scene.image.std() for scene in made]) > 25


@pytest.mark.parametrize("size_px", [0, 31, 2048])
def test_size_out_of_range_is_refused(size_px: int) -> None:
    with pytest.raises(ValueError, match="size_px"):
        make_scene(np.random.default_rng(0), size_px)


def test_views_are_one_scene_with_other_cameras_and_mirrored() -> None:
    first, second, third = make_views(np.random.default_rng(4), 96, 3)
    scene = make_scene(np.random.default_rng(4), 96)
    np.testing.assert_array_equal(first.image, scene.image)
    np.testing.assert_array_equal(first.levels, scene.levels)
    np.testing.assert_array_equal(second.levels, first.levels[:, :, ::-1])
    np.testing.assert_array_equal(third.levels, first.levels)
    assert (third.image != first.image).mean() > 0.1
    assert np.corrcoef(second.image[:, ::-1].ravel(), first.image.ravel())[0, 1] > 0.5
