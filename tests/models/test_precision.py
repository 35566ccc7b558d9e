import threading
from typing import get_args

import pytest
import torch

import amg
from amg import ConfigError, GeneratorConfig, MaskGenerator
from amg.config import ModelConfig
from amg.evaluate.parity import compare_annotations, count_found
from amg.models.precision import PRECISIONS, products_in, widest_float
from amg.models.zoo import load
from tests.models.oracles import SIZE_PX, our_sam
from tests.models.parity import assert_close, random, randomise

CONFIG = GeneratorConfig(points_per_side=8, pred_iou_thresh=0.3, stability_score_thresh=0.3)


def our_sam2():
    pytest.importorskip("benchmarks.original_sam2")
    from tests.models.small_sam2 import sam2_twins

    return sam2_twins()[0]


def test_the_configuration_knows_the_same_precisions():
    """It is read where torch is not imported, and so has its own list."""
    assert get_args(ModelConfig.model_fields["precision"].annotation) == PRECISIONS


BACKENDS = torch.backends
FLAGS = (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)


def products():
    """How products are computed now, and what else `cudnn.flags` would change."""
    cudnn = BACKENDS.cudnn
    others = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    return [flag.fp32_precision for flag in FLAGS], others


@pytest.fixture
def settings():
    """Torch's settings are put back, also where old and new names of them do not agree."""
    flags, (_, benchmark, deterministic) = products()
    by_old_name = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(by_old_name)
    for flag, value in zip(FLAGS, flags, strict=True):
        flag.fp32_precision = value
    BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic = benchmark, deterministic


def by_old_names():
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cudnn.allow_tf32 = False


def by_new_names():
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


@pytest.mark.parametrize("set_before", [lambda: None, by_old_names, by_new_names])
def test_products_are_in_full_unless_asked_for(settings, set_before):
    """Nothing else is touched, and after it all is as it was."""
    BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic = True, True
    set_before()
    before = products()
    for precision, value in (("float32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")):
        with products_in(precision), products_in(precision):
            flags, others = products()
            assert flags == [value] * 4
            assert others == before[1]
        assert products() == before


def test_threads_that_want_other_products_wait():
    order = []

    def want(precision):
        with products_in(precision):
            order.append((precision, products()[0][0]))

    with products_in("float32"):
        same, other = (threading.Thread(target=want, args=[p]) for p in ("float32", "tf32"))
        for thread in (other, same):
            thread.start()
        same.join()
        assert order == [("float32", "ieee")]
    other.join()
    assert order[1:] == [("tf32", "tf32")]


def test_bf16_changes_masks_a_little(nano, photos):
    rough = amg.load_model("nano", device="cpu", precision="bf16")
    pixels, _ = nano.preprocess([photos["astronaut"]])
    features = [model.encode(pixels)[0] for model in (nano, rough)]
    for exact, found in zip(*features, strict=True):
        assert found.dtype == torch.float32
        assert 1e-3 < (exact - found).norm() / exact.norm() < 5e-2

    exact, found = (
        MaskGenerator(model, CONFIG).generate(photos["astronaut"]).to_annotations()
        for model in (nano, rough)
    )
    assert not compare_annotations(exact, found).exact
    assert count_found(exact, found) >= 0.8 * len(exact) > 4


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        ("float16", "none of float32, tf32, bf16, fp16"),
        ("tf32", "tf32 is a GPU's; on cpu there are float32 and bf16"),
        ("fp16", "fp16 is a GPU's; on cpu there are float32 and bf16"),
    ],
)
def test_precisions_that_are_refused(precision, said):
    with pytest.raises(ConfigError, match=said):
        amg.load_model("nano", device="cpu", precision=precision)


def test_fp16_rounds_more_finely_than_bf16_and_tells_where_it_overflows(nano, photos):
    """A CPU computes it too, if slowly: what a GPU without bfloat16 is given."""
    exact = nano.encode(pixels := nano.preprocess([photos["astronaut"]])[0])[0].embedding
    changes = {}
    rough = amg.load_model("nano", device="cpu")
    for rough.precision in ("bf16", "fp16"):
        found = rough.encode(pixels)[0].embedding
        changes[rough.precision] = float((found - exact).norm() / exact.norm())
    assert 1e-5 < changes["fp16"] < changes["bf16"] / 3
    rough.image_encoder.neck[1].weight.mul_(1e6)
    rough.image_encoder.neck[2].weight.mul_(1e3)
    with pytest.raises(ConfigError, match="too large for fp16; take bf16 or float32"):
        rough.encode(pixels)


def test_a_mac_is_allowed_and_said_to_be_untested(monkeypatch, caplog):
    with pytest.raises(ConfigError, match="'mps' asked for, but torch sees none here"):
        load._resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert load._resolve_device("mps").type == "mps"
    assert "device mps is untested" in caplog.text
    assert widest_float(torch.device("mps")) == torch.float32
    for precision in ("tf32", "bf16"):
        with pytest.raises(ConfigError, match=r"on mps there are float32 and fp16"):
            load._check_precision(precision, torch.device("mps"))


def test_a_compiled_encoder_gives_the_same():
    model = randomise(our_sam())
    pixels, keys = random(2, 3, SIZE_PX, SIZE_PX), list(model.state_dict())
    expected = model.encode(pixels)
    try:
        load._compile_encoder(model)
    except ConfigError as error:
        pytest.skip(str(error))
    assert_close(model.encode(pixels), expected)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("make", [our_sam, our_sam2], ids=["sam", "sam2"])
def test_images_go_through_what_is_compiled(make):
    model, graphs = make(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model.image_encoder.compile(backend=backend)
    model.encode(random(1, 3, model.imgsz, model.imgsz))
    assert graphs


def test_an_encoder_is_compiled_once_for_batches_of_any_size(photos, monkeypatch):
    """Those that are too small are filled up, and nobody sees it."""
    model, graphs = amg.load_model("nano", device="cpu"), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    config = GeneratorConfig(points_per_side=3, encoder_batch_size=4, pred_iou_thresh=0.2)
    images = [photos["cat"]] * 4
    expected = MaskGenerator(model, config).generate_batch(images[:1])[0].to_annotations()
    compile_ = model.image_encoder.compile
    monkeypatch.setattr(model.image_encoder, "compile", lambda: compile_(backend=backend))
    try:
        load._compile_encoder(model)
    except ConfigError as error:
        pytest.skip(str(error))
    for n in (4, 3, 1):
        results = MaskGenerator(model, config).generate_batch(images[:n])
        assert len(results) == n
        assert compare_annotations(expected, results[-1].to_annotations()).exact
    assert len(graphs) == 1


def test_a_machine_that_cannot_compile_says_so_at_once(monkeypatch):
    def fail(function):
        raise RuntimeError("no working C++ compiler\nand a long trace")

    monkeypatch.setattr(load.torch, "compile", fail)
    with pytest.raises(ConfigError, match=r"compile: .* no working C\+\+ compiler$"):
        amg.load_model("nano", device="cpu", compile=True)
