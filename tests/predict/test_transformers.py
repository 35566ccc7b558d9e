"""The predictor beside `SamModel` of `transformers`, asked as its documentation shows."""

import pytest
import torch
from PIL import Image
from transformers import SamProcessor

from amg import MaskPredictor
from benchmarks.transformers_pipeline import image_processor, transformers_sam
from tests.predict.test_predictor import assert_same

FIRST, SECOND = [90.0, 61.5], [12.25, 100.0]
BOX, OTHER = [20.5, 30.0, 180.0, 120.25], [20.5, 30.0, 180.0, 90.0]


def points(*labels, at=(FIRST, SECOND)):
    """Arguments of ours: as many points as labels."""
    return {"point_coords": list(at[: len(labels)]), "point_labels": list(labels)}


# For two images: its processor's arguments, and ours for each image's prompts.
CASES = {
    "a point": (
        {"input_points": [[[FIRST]], [[SECOND]]]},
        [[points(1)], [points(1, at=[SECOND])]],
    ),
    "a box": ({"input_boxes": [[BOX], [OTHER]]}, [[{"box": BOX}], [{"box": OTHER}]]),
    "a box with a point off it": (
        {"input_boxes": [[BOX]] * 2, "input_points": [[[FIRST]]] * 2, "input_labels": [[[0]]] * 2},
        [[{"box": BOX, **points(0)}]] * 2,
    ),
    "several points of one object": (
        {"input_points": [[[FIRST, SECOND]]] * 2, "input_labels": [[[1, 0]], [[0, 1]]]},
        [[points(1, 0)], [points(0, 1)]],
    ),
    "several objects": (
        {"input_points": [[[FIRST], [SECOND]]] * 2, "input_boxes": [[BOX, OTHER]] * 2},
        [[{"box": BOX, **points(1)}, {"box": OTHER, **points(1, at=[SECOND])}]] * 2,
    ),
    "images with unequal numbers of points": (
        {"input_points": [[FIRST], [FIRST, SECOND]], "input_labels": [[1], [1, 0]]},
        [[points(1, -10, at=[FIRST, [-10, -10]])], [points(1, 0)]],
    ),
}


@pytest.fixture(scope="module")
def theirs(small_nano):
    """The model with our weights, and what prepares its inputs."""
    return transformers_sam(small_nano), SamProcessor(image_processor(small_nano))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_transformers(small_nano, theirs, twelve_photos, case):
    (model, processor), (prompts, asked) = theirs, CASES[case]
    photos = twelve_photos[:2]
    predictor = MaskPredictor(small_nano)
    predictor.set_images(photos)
    inputs = processor([Image.fromarray(photo) for photo in photos], return_tensors="pt", **prompts)
    names = ("input_points", "input_labels", "input_boxes")
    for i, photo in enumerate(photos):
        pixels, _ = small_nano.preprocess([photo])  # torchvision resizes otherwise than Pillow
        output = model(
            image_embeddings=model.get_image_embeddings(pixels),
            **{name: inputs[name][i : i + 1] for name in names if name in inputs},
        )
        masks = processor.image_processor.post_process_masks(
            output.pred_masks,
            inputs["original_sizes"][i : i + 1].tolist(),
            inputs["reshaped_input_sizes"][i : i + 1].tolist(),
            binarize=False,
        )[0]
        parts = masks, output.iou_scores[0], output.pred_masks[0]
        assert len(masks) == len(asked[i])
        for j, arguments in enumerate(asked[i]):
            ours = predictor.predict(**arguments, image=i)
            assert_same(ours, [part[j].numpy() for part in parts])
