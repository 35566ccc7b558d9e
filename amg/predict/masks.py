"""From prompts on one image to records of their masks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from amg.config import GeneratorConfig
from amg.generate.crops import Crop
from amg.generate.full_size import encode_masks, measure_masks
from amg.generate.mask_batch import MaskBatch
from amg.models.interface import Candidates, Frame, PromptableModel, PromptDecoder
from amg.predict.prompts import group_alike, to_batch
from amg.records import Mask, Prompt

_EVERY_ONE = 0.0  # a threshold that is not positive keeps all candidates


def predict_masks(
    model: PromptableModel,
    decoder: PromptDecoder,
    frame: Frame,
    prompts: Sequence[Prompt],
    config: GeneratorConfig,
    prompts_per_batch: int,
    *,
    multimask_output: bool = False,
    heartbeat: Callable[[], None] = lambda: None,
) -> list[tuple[Mask, ...]]:
    """For each prompt its masks: of three the one of the highest predicted IoU, or all three.

    decoder: the model's, of a whole image's features; frame: how that image lies in the model's
    input. Of the config the mask's threshold and the stability's offset count; nothing is filtered,
    so that a mask may be empty. Prompts have to be such that `check_prompts` passes.
    """
    answers: list[tuple[Mask, ...]] = [()] * len(prompts)
    for group in group_alike(prompts):
        for first in range(0, len(group), prompts_per_batch):
            some = group[first : first + prompts_per_batch]
            asked = [prompts[index] for index in some]
            embedded = model.embed_prompts(to_batch(asked, model, frame), frame)
            found = decoder.candidates(
                embedded.sparse,
                embedded.masks,
                _EVERY_ONE,
                True,
                best_only=not multimask_output,
            )
            heartbeat()
            masks = _to_records(model, found, frame, config)
            owners = found.prompt_index.tolist()
            for mask, owner in zip(masks, owners, strict=True):
                prompt = asked[owner]
                point_xy = _single_point(prompt)
                answers[some[owner]] += (replace(mask, prompt=prompt, point_xy=point_xy),)
            heartbeat()
    return answers


def _to_records(
    model: PromptableModel, found: Candidates, frame: Frame, config: GeneratorConfig
) -> list[Mask]:
    """Records of candidates on a whole image; their points are still to come."""
    height, width = frame.size_hw
    crop = Crop((0, 0, width, height), 0)
    threshold, offset = config.mask_threshold, config.stability_score_offset
    stability, boxes_xyxy = measure_masks(model, found.logits, frame, threshold, offset)
    encoded = encode_masks(model, found.logits, frame, crop, frame.size_hw, threshold)
    batch = MaskBatch(
        boxes_xyxy=boxes_xyxy,
        predicted_iou=found.predicted_iou,
        stability_score=stability,
        points_xy=torch.full((len(encoded), 2), np.nan),
        level=found.level,
        object_score=found.object_score,
    )
    return batch.to_records(encoded, crop)


def _single_point(prompt: Prompt) -> tuple[float, float] | None:
    """The point of a prompt that is nothing else."""
    is_point = len(prompt.points_xy) == 1 and prompt.box_xyxy is None and prompt.mask is None
    return prompt.points_xy[0] if is_point else None
