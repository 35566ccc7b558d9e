"""What masks keep of each other when some of them go."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from amg.records import ImageResult, Mask, Prompt, Rle, keep_masks


def _mask(parent):
    return Mask(Rle((1, 1), "01"), 1, (0, 0, 0, 0), 0.9, 0.9, (0, 0), (0, 0, 1, 1), 0, 0, parent)


def _ancestors(masks, index):
    while (index := masks[index].parent) is not None:
        yield index


# Masks by falling size: a parent comes before its children.
families = st.lists(st.integers(-1, 1000), min_size=1, max_size=12).map(
    lambda draws: [_mask(None if i == 0 or d < 0 else d % i) for i, d in enumerate(draws)]
)


@given(families, st.data())
def test_parents_are_the_nearest_ancestors_that_are_kept(masks, data):
    kept = data.draw(st.lists(st.sampled_from(range(len(masks))), unique=True))
    found = keep_masks(masks, kept)
    for place, index in enumerate(kept):
        expected = next((a for a in _ancestors(masks, index) if a in kept), None)
        parent = found[place].parent
        assert (None if parent is None else kept[parent]) == expected


def test_parents_in_a_circle_end():
    circle = [_mask(1), _mask(0), _mask(0)]
    assert [mask.parent for mask in keep_masks(circle, [2])] == [None]


def test_a_mask_tells_all_points_that_were_asked_with():
    clicked = _mask(None)
    boxed = replace(clicked, point_xy=None, prompt=Prompt(box_xyxy=(0, 0, 1, 1), prompt_id="7"))
    points = ((1.0, 2.0), (3.0, 4.0))
    several = replace(boxed, prompt=Prompt(points_xy=points, labels=(1, 0), category="cat"))
    annotations = ImageResult((1, 1), (clicked, boxed, several)).to_annotations()
    found = [annotation["point_coords"] for annotation in annotations]
    assert found == [[[0, 0]], [], [[1.0, 2.0], [3.0, 4.0]]]
    assert (boxed.prompt_id, several.category, clicked.score) == ("7", "cat", None)
