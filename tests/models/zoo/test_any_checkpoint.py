"""Files and folders of other sizes and wrappings than the registry's: what they are, and outputs.

Oracles make them, with random weights: `segment_anything`, `transformers` and `timm`.
"""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.tiny_vit import TinyVit
from transformers import Sam2Config, Sam2Model, SamImageProcessor, SamProcessor

from amg.errors import CheckpointError
from amg.models.families.build import build_nano
from amg.models.zoo import hub
from amg.models.zoo.load import build_model, load_model
from amg.models.zoo.locate import find_own
from amg.models.zoo.registry import MODELS, locate_weights
from tests.models import oracles
from tests.models.parity import assert_close, from_timm, random, randomise

POINTS = torch.tensor([[[10.0, 20.0]], [[33.0, 60.0]]])
LABELS = torch.ones(2, 1)


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory, monkeypatch):
    """An empty cache of the hub, and no network."""
    root = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setenv("AMG_OFFLINE", "1")
    return root


@pytest.fixture(scope="module")
def original():
    return randomise(oracles.original_sam())


@pytest.fixture(scope="module")
def slim_sam():
    """As SlimSAM: of odd widths, which no whole ratio gives."""
    return randomise(oracles.transformers_sam(hidden_size=21, mlp_dim=87, num_attention_heads=3))


def prompted(model):
    """Logits and predicted IoU of our model's or the original's, for an image and two points."""
    pixels = random(1, 3, oracles.SIZE_PX, oracles.SIZE_PX)
    embedding = model.image_encoder(pixels)
    sparse, dense = model.prompt_encoder((POINTS, LABELS), None, None)
    pe = model.prompt_encoder.get_dense_pe()
    return model.mask_decoder(embedding, pe, sparse, dense[:1], multimask_output=True)


def prompted_by_transformers(model):
    pixels = random(1, 3, oracles.SIZE_PX, oracles.SIZE_PX)
    found = model(pixel_values=pixels, input_points=POINTS[None], input_labels=LABELS[None].long())
    return found.pred_masks[0], found.iou_scores[0]


def assert_same_answers(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other)


def prefixed(state, prefix):
    return {prefix + key: tensor for key, tensor in state.items()}


# --- wrappers ------------------------------------------------------------------------------------

TRAINER = {"optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}, "epoch": 7}
WRAPPED = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, **TRAINER},
    "state_dict, of a DataParallel": lambda state: {
        "epoch": 7,
        "state_dict": prefixed(state, "module."),
    },
    "model_state_dict, compiled": lambda state: {
        "model_state_dict": prefixed(state, "module._orig_mod.")
    },
    "micro-sam": lambda state: {
        "model_state": prefixed(state, "sam."),
        "decoder_state": {"base.weight": torch.zeros(2)},
    },
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_trainers_file_is_loaded_as_what_it_is(tmp_path, original, wrapping, caplog):
    path = tmp_path / "fine_tuned.pth"
    torch.save(WRAPPED[wrapping](original.state_dict()), path)
    caplog.set_level("INFO")
    model = load_model(checkpoint=path, device="cpu")
    assert_same_answers(prompted(model), prompted(original))
    assert model.info.name == "fine_tuned"
    assert model.imgsz == oracles.SIZE_PX
    if wrapping == "micro-sam":
        assert "model_state is read; not decoder_state" in caplog.text


def test_what_surrounds_no_weights_is_not_taken_for_them(tmp_path):
    torch.save({"epoch": 3, "decoder_state": {"a": torch.zeros(1)}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"2 values are no plain tensors \(epoch, dec"):
        load_model(checkpoint=tmp_path / "w.pt")


# --- other sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_size", ["5GB", "100KB"], ids=["whole", "sharded"])
def test_a_pruned_sam_of_transformers_gives_its_outputs(tmp_path, slim_sam, shard_size):
    slim_sam.save_pretrained(folder := tmp_path / "slim-0.5", max_shard_size=shard_size)
    assert (folder / "model.safetensors.index.json").exists() == (shard_size == "100KB")
    model = load_model(checkpoint=folder, device="cpu")
    assert_same_answers(prompted(model), prompted_by_transformers(slim_sam))
    assert model.info.name == "slim-0.5"
    spec, _ = locate_weights(None, folder)
    assert (spec.sizes.embed_dim, spec.sizes.mlp_dim, spec.sizes.num_heads) == (21, 87, 3)


def test_a_file_alone_tells_its_sizes(tmp_path, slim_sam):
    slim_sam.save_pretrained(tmp_path)
    model = load_model(checkpoint=tmp_path / "model.safetensors", device="cpu")
    assert_same_answers(prompted(model), prompted_by_transformers(slim_sam))


def test_windows_may_be_larger_than_a_small_input(tmp_path):
    theirs = randomise(oracles.transformers_sam(window_size=6))
    theirs.save_pretrained(tmp_path)
    model = load_model(checkpoint=tmp_path / "model.safetensors", device="cpu")
    assert_same_answers(prompted(model), prompted_by_transformers(theirs))


def test_heads_without_relative_positions_need_the_configuration(tmp_path):
    theirs = randomise(oracles.transformers_sam(use_rel_pos=False))
    theirs.save_pretrained(tmp_path)
    model = load_model(checkpoint=tmp_path, device="cpu")
    assert_same_answers(prompted(model), prompted_by_transformers(theirs))
    with pytest.raises(CheckpointError, match=r"do not tell num_attention_heads: give a folder"):
        load_model(checkpoint=tmp_path / "model.safetensors")


@pytest.fixture(scope="module")
def tiny_sam():
    """TinyViT as MobileSAM and TinySAM change it, with other widths; the original's other parts."""
    trunk = TinyVit(
        num_classes=3,
        embed_dims=(8, 16, 24, 320),
        depths=(1, 2, 1, 1),
        num_heads=(1, 2, 3, 4),
        window_sizes=(7, 7, 4, 2),
        mlp_ratio=3.5,
        mbconv_expand_ratio=2.5,
    )
    trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
    sam = oracles.original_sam()
    sam.image_encoder = torch.nn.Module()
    sam.image_encoder.neck = oracles.original_neck(320)
    return randomise(trunk.eval(), 1), randomise(sam.eval())


def test_a_tiny_vit_of_other_sizes_gives_timms_outputs(tmp_path, tiny_sam):
    trunk, sam = tiny_sam
    state = prefixed(from_timm(trunk.state_dict()), "image_encoder.") | sam.state_dict()
    torch.save(state, tmp_path / "tiny.pth")
    model = load_model(checkpoint=tmp_path / "tiny.pth", device="cpu", imgsz=oracles.SIZE_PX)
    pixels = random(1, 3, oracles.SIZE_PX, oracles.SIZE_PX)
    embedding = sam.image_encoder.neck(trunk.forward_features(pixels))
    assert_close(model.encode(pixels), embedding)
    spec, _ = locate_weights(None, tmp_path / "tiny.pth")
    assert spec.sizes.img_size == 1024
    assert spec.description.startswith("mobile_sam with embed_dims (8, 16, 24, 320) for (64, ")


def test_a_sam2_of_transformers_with_other_sizes_gives_its_outputs(tmp_path):
    imgsz = 64
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "image_size": [imgsz, imgsz],
        "blocks_per_stage": [1, 2, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 2, 2],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [5, 5],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[imgsz // n] * 2 for n in (4, 8, 16)],
    }
    config = Sam2Config(vision_config=vision, prompt_encoder_config={"image_size": imgsz})
    theirs = randomise(Sam2Model(config).eval())
    positions = theirs.shared_image_embedding.positional_embedding
    theirs.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)
    theirs.save_pretrained(tmp_path)
    SamImageProcessor(do_normalize=False).save_pretrained(tmp_path)
    model = load_model(checkpoint=tmp_path, device="cpu")
    assert model.pixel_std.flatten().tolist() == [1.0, 1.0, 1.0]  # of values from 0 to 1
    pixels = random(1, 3, imgsz, imgsz)
    features = model.encode(pixels)[0]
    assert model.imgsz == imgsz
    for mine, other in zip(
        (*features.high_res, features.embedding), theirs.get_image_embeddings(pixels), strict=True
    ):
        assert_close(mine, other[0])
    assert model.info.generator_defaults == {"pred_iou_thresh": 0.8}
    with pytest.raises(CheckpointError, match=r"width 8 and stages \(1, 2, 2, 1\) is none of the"):
        load_model(checkpoint=tmp_path / "model.safetensors")


# --- normalisation -------------------------------------------------------------------------------

PHOTO = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)


@pytest.mark.parametrize("save", [lambda p: p, SamProcessor], ids=["alone", "with a processor"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "rescale_factor": 0.01},
    ],
    ids=["as SAM", "0 to 1", "0 to 255", "its own"],
)
def test_pixels_are_normalised_as_the_folder_says(tmp_path, original, options, save):
    sides = {"pad_size": {"height": 64, "width": 64}, "size": {"longest_edge": 64}}
    processor = SamImageProcessor(**sides, **options)
    save(processor).save_pretrained(tmp_path)
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    model = load_model(checkpoint=tmp_path, device="cpu")
    ours, _ = model.preprocess([PHOTO])
    assert_close(ours, processor(PHOTO, return_tensors="pt")["pixel_values"].float())
    if not options:
        assert torch.equal(model.pixel_mean.flatten(), torch.tensor([123.675, 116.28, 103.53]))


def test_medsam_is_known_to_want_pixels_from_0_to_1(monkeypatch, tmp_path):
    spec = MODELS["medsam"]
    small = oracles.our_sam()
    monkeypatch.setattr("amg.models.zoo.load.FAMILIES", {"sam_vit": Builds(small)})
    model = build_model(spec)
    pixels, _ = model.preprocess([np.full((64, 64, 3), 255, np.uint8)])
    assert torch.equal(pixels, torch.ones(1, 3, 64, 64))


class Builds:
    """A family whose models are all one."""

    def __init__(self, model):
        self.build = lambda sizes: model


# --- refusals ------------------------------------------------------------------------------------


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        load_model(checkpoint=path, device="cpu")
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < 800
    return message


def test_a_file_that_nearly_fits_says_what_differs(tmp_path, original):
    more = {f"mask_decoder.hf_mlp.layers.{i}.weight": torch.zeros(3) for i in range(5)}
    torch.save({**original.state_dict(), **more}, tmp_path / "hq.pth")
    message = refusal(tmp_path / "hq.pth")
    assert "5 keys unexpected (mask_decoder.hf_mlp.layers.0.weight, " in message
    assert "it fits sam_vit_b with embed_dim 24 for 768" in message


def test_an_unknown_encoder_is_told_with_what_fits(tmp_path, original):
    state = {
        key: tensor
        for key, tensor in build_nano().state_dict().items()
        if not key.startswith("image_encoder.")
    }
    state["image_encoder.stem.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "edge.pth")
    message = refusal(tmp_path / "edge.pth")
    assert "no known model; it fits " in message
    assert f"best, in {len(state) - 1} of " in message
    assert "1 of its own are none of that (image_encoder.stem.weight)" in message
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    assert "none of its 1 keys is one's (conv.weight)" in refusal(tmp_path / "resnet.pth")


def test_a_configuration_of_nonsense_is_refused(tmp_path):
    randomise(oracles.transformers_sam(use_rel_pos=False)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"vision_config": {"num_attention_heads": "two", "global_attn_indexes": 3}}'
    )
    assert "config.json beside it is damaged (TypeError: " in refusal(tmp_path)


def test_a_file_that_lacks_what_tells_its_size_is_named(tmp_path, original):
    key = "mask_decoder.mask_tokens.weight"
    state = {k: t for k, t in original.state_dict().items() if k != key}
    torch.save(state, tmp_path / "w.pth")
    assert f"{key} is missing" in refusal(tmp_path / "w.pth")


def test_a_pickled_model_is_refused(tmp_path, original):
    torch.save(original, tmp_path / "SlimSAM-77.pth")
    message = refusal(tmp_path / "SlimSAM-77.pth")
    assert "refused, and not run: it calls segment_anything.modeling.sam.Sam" in message
    assert "ask for its state_dict() or for safetensors" in message


def test_a_named_model_takes_no_other_file(tmp_path, original):
    torch.save(original.state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"looks like sam_vit_b with .* the model is nano: a c"
    ):
        load_model("nano", checkpoint=tmp_path / "w.pth", device="cpu")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"has no model\.safetensors$"),
        ({"sam.pth": ""}, r"has no model\.safetensors; give one of its files: sam\.pth$"),
        ({"model.safetensors.index.json": "{}"}, "has no weight_map"),
        ({"model.safetensors.index.json": "["}, "cannot be read"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "../b"}}'}, "not in its folder"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "b"}}'}, "which does not exist"),
    ],
)
def test_folders_without_weights_are_refused(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=said):
        locate_weights(None, tmp_path)


# --- the sum of a folder, the hub ----------------------------------------------------------------


def test_a_folders_sum_is_of_what_decides_the_model(tmp_path, slim_sam):
    slim_sam.save_pretrained(folder := tmp_path / "a", max_shard_size="100KB")
    before = find_own(folder).sha256
    shutil.copytree(folder, moved := tmp_path / "b")
    (moved / "README.md").write_text("a card")
    (moved / "model-00099-of-00099.safetensors").write_text("a part that no index names")
    assert find_own(moved).sha256 == before
    SamImageProcessor(do_normalize=False).save_pretrained(moved)
    assert find_own(moved).sha256 != before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vision_config": {}}))
    assert find_own(folder).sha256 != before


def put_on_hub(cache, name, folder, revision="0" * 40):
    """Lay a folder out as the hub's client caches it."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    shutil.copytree(folder, root / "snapshots" / revision)


def test_a_name_on_the_hub_is_found_in_its_cache(tmp_path, hub_cache, slim_sam):
    slim_sam.save_pretrained(tmp_path)
    put_on_hub(hub_cache, "someone/slim", tmp_path)
    model = load_model(checkpoint="hf:someone/slim", device="cpu")
    assert_same_answers(prompted(model), prompted_by_transformers(slim_sam))
    assert model.info.name == "someone/slim"
    assert model.info.weights_sha256 == find_own(tmp_path).sha256
    assert find_own(f"hf:someone/slim@{'0' * 40}").sha256 == model.info.weights_sha256


def test_a_registered_models_place_on_the_hub_is_that_model(tmp_path, hub_cache, slim_sam):
    slim_sam.save_pretrained(tmp_path)
    put_on_hub(hub_cache, "wanglab/medsam-vit-base", tmp_path)
    spec, _ = locate_weights(None, "hf:wanglab/medsam-vit-base")
    assert spec == MODELS["medsam"] == locate_weights("medsam")[0]


def test_what_the_hub_lacks_or_nobody_may_ask_for_is_told(hub_cache, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"hf:a/b is not on this machine, .* forbids the net"):
        locate_weights(None, "hf:a/b")
    with pytest.raises(CheckpointError, match=r"'hf:a' is no name on the hub: hf:owner/name"):
        locate_weights(None, "hf:a")
    monkeypatch.delenv("AMG_OFFLINE")
    monkeypatch.setattr(hub, "answers", lambda url: False)
    with pytest.raises(CheckpointError, match=r"hf:a/b is not .*: no answer\. Fetch https://hugg"):
        locate_weights(None, "hf:a/b")


def test_a_part_that_the_cache_lacks_is_no_whole(tmp_path, hub_cache, slim_sam):
    slim_sam.save_pretrained(tmp_path, max_shard_size="100KB")
    next(tmp_path.glob("model-*.safetensors")).unlink()
    put_on_hub(hub_cache, "a/b", tmp_path)
    with pytest.raises(CheckpointError, match=r"hf:a/b is not on this machine"):
        locate_weights(None, "hf:a/b")
    with pytest.raises(CheckpointError, match=r"names model-0.*, which does not exist"):
        locate_weights(None, tmp_path)


def test_safe_weights_are_downloaded_alone(tmp_path, monkeypatch, slim_sam):
    slim_sam.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "later.safetensors")
    asked = []

    def snapshot_download(repo, revision, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise LookupError("not cached")
        asked.append((repo, revision, "pytorch_model.bin" in allow_patterns))
        if len(asked) == 2:
            torch.save(slim_sam.state_dict(), tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.delenv("AMG_OFFLINE")
    monkeypatch.setattr(hub, "answers", lambda url: True)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    _, weights = locate_weights(None, "hf:a/b@v1")
    assert weights.path == tmp_path
    assert asked == [("a/b", "v1", False), ("a/b", "v1", True)]
