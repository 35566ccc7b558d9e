import torch

from amg import GeneratorConfig
from amg.generate.crops import Crop
from amg.generate.points import crop_points
from benchmarks.random_model import let_half_pass, random_model


def test_half_of_the_candidates_pass_whatever_the_weights(photos):
    image = photos["coins"]
    model = random_model("mobile_sam", 128, "cpu")
    filters = let_half_pass(model, image, GeneratorConfig(points_per_side=5, points_per_batch=7))
    points_xy = crop_points(Crop((0, 0, *image.shape[1::-1]), 0), filters)
    with torch.no_grad():
        pixels, (frame,) = model.preprocess([image])
        threshold = filters.pred_iou_thresh
        (passed,) = model.decode(model.encode(pixels)[0], frame, points_xy, threshold, 25)
    assert filters.stability_score_thresh == 0
    n_each = torch.bincount(passed.level, minlength=3)
    assert (n_each - 12).abs().max() <= 1  # of 25, and no more than rounding beside the median
