"""Embeddings that were kept, in place of images: what is asked of them has the same answers."""

from dataclasses import replace

import numpy as np
import pytest

from amg import ConfigError, Embedding, GeneratorConfig, MaskGenerator, MaskPredictor, Prompt
from amg.generate.embedder import Embedder
from amg.generate.kept import embedding_bytes
from amg.models.interface import ModelInfo
from amg.ops import rle
from amg.predict.prompted_generator import PromptedGenerator

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
BOX = [20, 30, 110, 100]
PROMPTS = [Prompt(box_xyxy=(20, 30, 110, 100)), Prompt(points_xy=((60, 60), (9, 9)), labels=(1, 0))]
FEW = GeneratorConfig(
    points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
)


def _as_read(embedding):
    """As a file has it: read-only."""
    arrays = {}
    for name, array in embedding.arrays.items():
        arrays[name] = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
    return replace(embedding, arrays=arrays)


def _kept(model, photos, dtype):
    results = Embedder(model, dtype=dtype).generate_batch(photos)
    assert [result.size_hw for result in results] == [photo.shape[:2] for photo in photos]
    return [_as_read(result.embedding) for result in results]


def _said(answers):
    """With what is no number, the stability of an empty mask, to be compared."""
    return repr(list(answers))


def test_masks_are_equal_with_float32(pair, twelve_photos):
    model, _ = pair
    photos = twelve_photos[:2]
    kept = _kept(model, photos, "float32")
    shapes = {name: array.shape for name, array in kept[0].arrays.items()}
    assert shapes == dict(model.packed_shapes)
    assert kept[0].nbytes == embedding_bytes(model.packed_shapes, "float32")
    fresh, other = MaskPredictor(model), MaskPredictor(model)
    for photo, embedding in zip(photos, kept, strict=True):
        fresh.set_image(photo)
        other.set_embedding(embedding)
        for expected, found in zip(fresh.predict(box=BOX), other.predict(box=BOX), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert _said(other.predict_batch(PROMPTS)) == _said(fresh.predict_batch(PROMPTS))
        again = other.embedding("float32")
        for name, array in embedding.arrays.items():
            np.testing.assert_array_equal(again.arrays[name], array)
    generator = MaskGenerator(model, FEW)
    results = generator.generate_batch(photos)
    assert all(result.masks for result in results)
    for some in (kept, [kept[0], photos[1]]):
        found = generator.generate_batch(some)
        assert _said(r.masks for r in found) == _said(r.masks for r in results)
    prompted = PromptedGenerator(model)
    images, embeddings = (
        prompted.generate_batch([prompted.prepare(each, PROMPTS) for each in some])
        for some in (photos, kept)
    )
    assert _said(r.masks for r in embeddings) == _said(r.masks for r in images)


def test_masks_hardly_change_with_float16(pair, twelve_photos):
    model, _ = pair
    (kept,) = _kept(model, twelve_photos[:1], "float16")
    assert kept.nbytes == embedding_bytes(model.packed_shapes, "float16")
    fresh, other = MaskPredictor(model), MaskPredictor(model)
    fresh.set_image(twelve_photos[0])
    other.set_embedding(kept)
    for expected, found in zip(
        fresh.predict_batch(PROMPTS), other.predict_batch(PROMPTS), strict=True
    ):
        bits = [rle.decode(mask.rle) for mask in (*expected, *found)]
        assert (bits[0] != bits[1]).mean() < 0.01
        assert abs(expected[0].predicted_iou - found[0].predicted_iou) < 0.01


def test_several_embeddings_are_asked_one_by_one(small_nano, twelve_photos):
    kept = _kept(small_nano, twelve_photos[:3], "float32")
    predictor, alone = MaskPredictor(small_nano), MaskPredictor(small_nano)
    predictor.set_embeddings(kept)
    alone.set_image(twelve_photos[2])
    (found, _, _), (expected, _, _) = predictor.predict(box=BOX, image=2), alone.predict(box=BOX)
    np.testing.assert_array_equal(found, expected)
    assert predictor.embedding(image=2).size_hw == twelve_photos[2].shape[:2]


def test_embeddings_of_others_are_refused(small_nano, twelve_photos):
    (kept,) = _kept(small_nano, twelve_photos[:1], "float16")
    assert (kept.model, kept.weights_sha256) == ("nano", small_nano.info.weights_sha256)
    predictor = MaskPredictor(small_nano)
    with pytest.raises(ConfigError, match=r"of nano, weights ffff.*the model is nano, weights "):
        predictor.set_embedding(replace(kept, weights_sha256="f" * 64))
    predictor.set_embedding(replace(kept, weights_sha256=None))
    arrays = {**kept.arrays, "embedding": kept.arrays["embedding"][:, :9]}
    for bad in (arrays, {"embedding": kept.arrays["embedding"]}):
        with pytest.raises(ConfigError, match=r"an embedding of .* nano has .* at its imgsz"):
            predictor.set_embedding(Embedding(kept.size_hw, bad))
    with pytest.raises(ConfigError, match="crop_n_layers: an embedding is of a whole image"):
        MaskGenerator(small_nano, GeneratorConfig(crop_n_layers=1)).generate(kept)
    with pytest.raises(ConfigError, match="dtype 'int8': expected one of float16, float32"):
        predictor.embedding("int8")


class Loud:
    """A model whose features are large."""

    def __init__(self, model):
        self.model, self.info = model, ModelInfo()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode(self, pixels):
        return [type(f)(*(1e6 * maps for maps in f)) for f in self.model.encode(pixels)]


def test_what_float16_cannot_hold_is_an_error(small_nano, twelve_photos):
    with pytest.raises(ValueError, match="values too large for float16: take float32"):
        Embedder(Loud(small_nano)).generate_batch(twelve_photos[:1])
    assert Embedder(Loud(small_nano), dtype="float32").generate_batch(twelve_photos[:1])


def test_less_memory_gives_the_same_embeddings(small_nano, twelve_photos):
    embedder = Embedder(small_nano, GeneratorConfig(encoder_batch_size=4))
    prepared = [embedder.prepare(photo) for photo in twelve_photos[:3]]
    smaller = embedder.with_smaller_batches()
    assert smaller.allowance.encoder_batch_size == 1
    assert smaller.with_smaller_batches() is None
    for one, other in zip(
        embedder.generate_batch(prepared), smaller.generate_batch(prepared), strict=True
    ):
        for name, array in one.embedding.arrays.items():
            np.testing.assert_allclose(
                array, other.embedding.arrays[name], atol=2e-3 * abs(array).max()
            )
