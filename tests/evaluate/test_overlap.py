import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from amg.evaluate.overlap import pairwise_iou
from amg.ops import rle


def _batches(h, w):
    return arrays(np.bool_, st.tuples(st.integers(0, 4), st.just(h), st.just(w)))


@given(st.data(), st.integers(1, 6), st.integers(1, 6))
def test_iou_is_that_of_the_pixels(data, h, w):
    first, second = data.draw(_batches(h, w)), data.draw(_batches(h, w))
    ious = pairwise_iou(rle.encode_masks(first), rle.encode_masks(second))
    assert ious.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            union = (a | b).sum()
            assert ious[i, j] == ((a & b).sum() / union if union else 1.0)


def test_large_masks_as_pycocotools():
    rng = np.random.default_rng(0)
    noise = rng.random((5, 300, 500)) < np.array([0.1, 0.5, 0.9, 0.0, 1.0])[:, None, None]
    masks = rle.encode_masks(noise)
    theirs = [rle.to_coco(mask) for mask in masks]
    expected = coco.iou(theirs, theirs, [0] * len(theirs))
    np.fill_diagonal(expected, 1.0)  # pycocotools gives the empty mask 0 with itself
    np.testing.assert_allclose(pairwise_iou(masks, masks), expected, rtol=1e-12)
