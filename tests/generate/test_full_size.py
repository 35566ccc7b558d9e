"""Which of the ways to full-size masks is taken."""

import logging
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

import amg
import amg.ops
from amg.evaluate.parity import compare_annotations
from amg.generate import full_size
from amg.ops import full_size_numba

GPU = torch.device("cuda", 0)


@pytest.fixture
def way(nano, monkeypatch):
    monkeypatch.setattr(full_size, "_triton_twin", lambda _: "triton")

    def which(device, dtype, plain=False):
        monkeypatch.setattr(nano, "plain", plain)
        return full_size._twin(nano, SimpleNamespace(device=torch.device(device), dtype=dtype))

    return which


def test_each_device_has_its_way(way):
    assert way("cpu", torch.float32) is full_size_numba
    assert way("cpu", torch.bfloat16) is None
    assert way("cuda", torch.float32) == way("cuda:1", torch.bfloat16) == "triton"
    assert way("mps", torch.float32) is None


def test_the_plain_way_and_doubles_are_upsampled(way):
    assert way("cpu", torch.float32, plain=True) is way("cuda", torch.float32, plain=True) is None
    assert way("cpu", torch.float64) is way("cuda", torch.float64) is None


@pytest.fixture
def not_asked_yet():
    full_size._triton_twin.cache_clear()
    yield
    full_size._triton_twin.cache_clear()


def test_without_triton_masks_are_upsampled_and_that_is_said_once(
    not_asked_yet, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "amg.ops.full_size_triton", raising=False)
    monkeypatch.delattr(amg.ops, "full_size_triton", raising=False)
    assert full_size._triton_twin(GPU) is full_size._triton_twin(GPU) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "triton" in record.getMessage()


def test_where_a_kernel_cannot_be_launched_masks_are_upsampled(not_asked_yet, monkeypatch, caplog):
    full_size_triton = pytest.importorskip("amg.ops.full_size_triton", exc_type=ImportError)
    monkeypatch.setattr(full_size_triton, "measure_masks", Mock(side_effect=RuntimeError("no gcc")))
    assert full_size._triton_twin(torch.device("cpu")) is None
    assert "no gcc" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_masks_are_those_of_upsampling(not_asked_yet, photos, monkeypatch):
    assert full_size._triton_twin(GPU) is not None
    model = amg.load_model("nano", device="cuda")
    config = amg.GeneratorConfig(
        points_per_side=8, crop_n_layers=1, pred_iou_thresh=0.2, stability_score_thresh=0.2
    )
    ours = amg.MaskGenerator(model, config).generate(photos["coffee"]).to_annotations()
    monkeypatch.setattr(full_size, "_twin", lambda *_: None)
    upsampled = amg.MaskGenerator(model, config).generate(photos["coffee"]).to_annotations()
    report = compare_annotations(upsampled, ours)
    assert report.exact, report
    assert len(ours) > 5
