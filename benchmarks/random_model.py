"""A published model's shape with random weights: for time, where its weights are not at hand."""

import numpy as np
import torch

from amg.config import GeneratorConfig
from amg.generate.crops import Crop
from amg.generate.points import crop_points
from amg.models.families.sam import SAMModel
from amg.models.zoo.load import build_model
from amg.models.zoo.registry import get_spec

PASSING_SCORE = 0.5
_SEED = 0
_POINTS_PER_BATCH = 64


def random_model(name: str, imgsz: int | None, device: str) -> SAMModel:
    """A registered model with the values that torch gives new layers, the same at each call.

    Raises ConfigError for an unknown name, ValueError for a size that the model cannot take.
    """
    torch.manual_seed(_SEED)
    model = build_model(get_spec(name))
    if imgsz is not None:
        model.set_imgsz(imgsz)
    return model.eval().requires_grad_(False).to(device)


@torch.no_grad()
def let_half_pass(model: SAMModel, image: np.ndarray, config: GeneratorConfig) -> GeneratorConfig:
    """Bias the scores so that half of an image's candidates pass; give the filters to go with it.

    Random weights score anyhow, and how many candidates pass decides how much there is to do.
    Stability filters nothing.
    """
    points_xy = crop_points(Crop((0, 0, *image.shape[1::-1]), 0), config)
    pixels, (frame,) = model.preprocess([image])
    features = model.encode(pixels)[0]
    batches = model.decode(features, frame, points_xy, 0.0, _POINTS_PER_BATCH)
    scores = [batch.predicted_iou for batch in batches]
    # Ordered by prompt, then by mask; of a prompt's masks the first is not asked for.
    n_masks = model.mask_decoder.num_mask_tokens - 1
    medians = torch.cat(scores).unflatten(0, (-1, n_masks)).median(dim=0).values
    last = model.mask_decoder.iou_prediction_head.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    last.bias[1:] += PASSING_SCORE - medians
    filters = {"pred_iou_thresh": PASSING_SCORE, "stability_score_thresh": 0.0}
    return config.model_copy(update=filters)
