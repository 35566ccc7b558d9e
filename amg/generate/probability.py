"""Masks before their threshold: for each pixel, how probable it is that the mask has it."""

from collections.abc import Iterator

import numpy as np
import torch

from amg.errors import ConfigError
from amg.generate.crops import crop_image
from amg.generate.filters import filter_candidates
from amg.generate.generator import MaskGenerator
from amg.generate.mask_batch import MaskBatch
from amg.generate.nms import suppress_duplicates
from amg.generate.points import layer_grids
from amg.models.interface import Frame
from amg.models.precision import products_in


def generate_soft(
    generator: MaskGenerator, image: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The masks that `generator.generate` gives for (H, W, 3) uint8 RGB, in its order, unfinished.

    For each its probabilities (H, W) float32 and its pixels (H, W) bool. All logits of masks that
    pass the filters wait for NMS, 256 KB each with most models, and masks are drawn one by one.

    Raises ConfigError for a generator with crops or with regions to clean: both work on finished
    masks.
    """
    config = generator.config
    if config.crop_n_layers or config.min_mask_region_area:
        raise ConfigError(
            "crop_n_layers, min_mask_region_area: must be 0 for masks with probabilities"
        )
    logits, frame = _surviving_logits(generator, image)
    for index in range(len(logits)):
        with torch.inference_mode():
            full = generator.model.upsample(logits[index : index + 1], frame)[0].float()
            pixels = full > config.mask_threshold
            yield full.sigmoid().cpu().numpy(), pixels.cpu().numpy()


@torch.inference_mode()
def _surviving_logits(generator: MaskGenerator, image: np.ndarray) -> tuple[torch.Tensor, Frame]:
    """Low-res logits (M, h, w) of the masks that are left after the filters and NMS."""
    model, config = generator.model, generator.config
    size_hw = image.shape[0], image.shape[1]
    (crop,) = crop_image(size_hw, 0, config.crop_overlap_ratio)
    points_xy = layer_grids(config)[0] * np.array(size_hw[::-1])
    prompts = torch.from_numpy(points_xy)
    with products_in(model.precision):
        pixels, (frame,) = model.preprocess([image])
        (features,) = model.encode(pixels)
        candidates = model.decode(
            features,
            frame,
            points_xy,
            config.pred_iou_thresh,
            generator.allowance.points_per_batch,
            multimask_output=config.multimask_output,
            use_m2m=config.use_m2m,
        )
        passed = [
            filter_candidates(
                batch, prompts.to(batch.level.device), model, frame, crop, size_hw, config
            )
            for batch in candidates
        ]
        masks = MaskBatch.concatenate([batch for batch, _ in passed])
        keep = suppress_duplicates(masks.boxes_xyxy, masks.predicted_iou, config.box_nms_thresh)
        return torch.cat([logits for _, logits in passed])[keep], frame
