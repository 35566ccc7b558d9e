"""Masks before their threshold: for each pixel, how probable it is that the mask has it."""

from collections.abc import Iterator

import numpy as np
import torch

from amg.config import GeneratorConfig
from amg.errors import ConfigError
from amg.generate.encoding import encode_in_batches
from amg.generate.generator import CropTask, MaskGenerator
from amg.generate.mask_batch import MaskBatch
from amg.generate.nms import suppress_duplicates
from amg.models.precision import products_in

_OF_FINISHED_MASKS = (
    "crop_n_layers",
    "min_mask_region_area",
    "mask_nms_thresh",
    "min_area",
    "max_area",
    "max_area_fraction",
)


def generate_soft(
    generator: MaskGenerator, image: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The masks that `generator.generate` gives for (H, W, 3) uint8 RGB, in its order, unfinished.

    For each its probabilities (H, W) float32 and its pixels (H, W) bool. All logits of masks that
    pass the filters wait for NMS, 256 KB each with most models, and masks are upsampled one by one.

    Raises ConfigError for a generator that goes on with finished masks: with crops, cleaning, or
    filters of what NMS has left.
    """
    config = generator.config
    for name in _OF_FINISHED_MASKS:
        default = GeneratorConfig.model_fields[name].default
        if getattr(config, name) != default:
            raise ConfigError(f"{name}: must be {default} for masks with probabilities")
    for task in generator.crop_tasks(image):  # the image itself, if it has prompts
        logits, frame = _surviving_logits(generator, task), task.fitted.frame
        for index in range(len(logits)):
            with torch.inference_mode():  # not around the yield: it would be the caller's mode
                full = generator.model.upsample(logits[index : index + 1], frame)[0].float()
                soft, pixels = full.sigmoid(), full > config.mask_threshold
            yield soft.cpu().numpy(), pixels.cpu().numpy()


@torch.inference_mode()
def _surviving_logits(generator: MaskGenerator, task: CropTask) -> torch.Tensor:
    """Low-res logits (M, h, w) of the masks that are left after the filters and NMS."""
    model = generator.model
    with products_in(model.precision):
        ((_, features, _),) = encode_in_batches(model, iter([(task.fitted, None)]), 1)
        passed = list(generator.good_masks(task, features))
    masks = MaskBatch.concatenate([batch for batch, _ in passed])
    threshold = generator.config.box_nms_thresh
    keep = suppress_duplicates(masks.boxes_xyxy, masks.predicted_iou, threshold)
    return torch.cat([logits for _, logits in passed])[keep]
