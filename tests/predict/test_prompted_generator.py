"""Prompts of many images: what a run's worker uses, beside the predictor."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from amg import GeneratorConfig, MaskPredictor, Prompt
from amg.ops import rle
from amg.predict.prompted_generator import PromptedGenerator
from amg.records import ImageResult

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def prompts_for(photo, n, seed):
    """Boxes, and a point, with names."""
    rng = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    corners = rng.uniform(0, 0.5, (n, 2)) * (width, height)
    far = corners + rng.uniform(0.2, 0.5, (n, 2)) * (width, height)
    boxes = np.concatenate([corners, far], axis=1).tolist()
    asked = [Prompt(box_xyxy=tuple(box), prompt_id=f"{seed}-{i}") for i, box in enumerate(boxes)]
    return [*asked, Prompt(points_xy=((width / 2, height / 3),), labels=(1,), prompt_id="point")]


@pytest.mark.parametrize("multimask_output", [False, True])
def test_each_image_gets_the_answers_to_its_own_prompts(pair, twelve_photos, multimask_output):
    model, _ = pair
    beats = []
    generator = PromptedGenerator(
        model,
        GeneratorConfig(encoder_batch_size=2),
        multimask_output=multimask_output,
        heartbeat=lambda: beats.append(1),
    )
    photos = twelve_photos[:4]
    asked = [prompts_for(photo, i, i) if i != 2 else [] for i, photo in enumerate(photos)]
    with ThreadPoolExecutor(2) as pool:
        prepared = list(pool.map(generator.prepare, photos, asked))
    results = generator.generate_batch(prepared)
    assert results[2] == ImageResult(photos[2].shape[:2], ())  # nobody asked: it is not encoded
    assert len(beats) >= 3
    for photo, prompts, result in zip(photos, asked, results, strict=True):
        predictor = MaskPredictor(model)
        predictor.set_image(photo)
        expected = predictor.predict_batch(prompts, multimask_output=multimask_output)
        flat = [mask for masks in expected for mask in masks]
        assert result.size_hw == photo.shape[:2]
        assert [m.prompt for m in result.masks] == [mask.prompt for mask in flat]
        for ours, theirs in zip(result.masks, flat, strict=True):
            assert ours.level == theirs.level
            assert (rle.decode(ours.rle) != rle.decode(theirs.rle)).mean() <= 1e-4
        if prompts:
            assert result.seconds.encode > 0 and result.seconds.masks > 0


def test_less_memory_gives_the_same_masks(small_nano, twelve_photos):
    generator = PromptedGenerator(small_nano, GeneratorConfig(points_per_batch=4))
    prompts = prompts_for(twelve_photos[0], 6, 0)
    prepared = generator.prepare(twelve_photos[0], prompts)
    assert prepared.nbytes == prepared.fitted.pixels.nbytes > 0
    (expected,) = generator.generate_batch([prepared])
    smaller = generator.with_smaller_batches()
    assert smaller.allowance.points_per_batch == 1
    (found,) = smaller.generate_batch([prepared])
    assert [m.prompt_id for m in found.masks] == [m.prompt_id for m in expected.masks]
    for ours, theirs in zip(found.masks, expected.masks, strict=True):
        assert (rle.decode(ours.rle) != rle.decode(theirs.rle)).mean() <= 1e-4
    assert smaller.with_smaller_batches() is None


def test_what_cannot_be_asked_is_found_before_the_device_works(small_nano, twelve_photos):
    bad = Prompt(box_xyxy=(5, 5, 1, 1), prompt_id="a7")
    with pytest.raises(ValueError, match=r"prompts\[0\] \(a7\): box \(5, 5, 1, 1\) is upside"):
        PromptedGenerator(small_nano).prepare(twelve_photos[0], [bad])
