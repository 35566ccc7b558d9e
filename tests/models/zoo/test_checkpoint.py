import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from amg.errors import CheckpointError
from amg.models.zoo import load
from amg.models.zoo.checkpoint import load_weights, save_weights
from amg.models.zoo.load import build_model
from amg.models.zoo.recognise import looks_like
from amg.models.zoo.registry import MODELS
from amg.models.zoo.transformers_keys import (
    is_transformers_layout,
    published_key,
    to_published_layout,
)
from tests.models import oracles
from tests.models.parity import assert_close, random, randomise

POINTS = torch.tensor([[[10.0, 20.0], [50.0, 7.0]], [[33.0, 60.0], [1.0, 2.0]]])
LABELS = torch.tensor([[1, 0], [0, 1]])
BOXES = torch.tensor([[5.0, 6.0, 40.0, 50.0], [0.0, 9.0, 63.0, 30.0]])
MASKS = random(2, 1, 4 * oracles.GRID, 4 * oracles.GRID, seed=3)
POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
ABSENT = "image_encoder.neck.0.weight"


@pytest.fixture(scope="session")
def original():
    return randomise(oracles.original_sam())


@pytest.fixture(scope="session")
def published_state(original):
    return original.state_dict()


@pytest.fixture
def saved(tmp_path):
    """Write anything with torch.save, or tensors as safetensors; gives the path."""

    def save(content, name="weights.pth", **options):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path, **options)
        return path

    return save


def refusal(path, model=None):
    """The message with which a file is refused; the model must stay as it was."""
    model = model or oracles.our_sam()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 900
    return message.removeprefix(f"{path}: ")


# --- published layouts ---------------------------------------------------------------------------


def decode(sam, embedding, with_box_and_mask):
    """Logits and predicted IoU of the prompts: three masks each, through either implementation."""
    boxes, masks = (BOXES, MASKS) if with_box_and_mask else (None, None)
    sparse, dense = sam.prompt_encoder((POINTS, LABELS), boxes, masks)
    return sam.mask_decoder(
        embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
    )


@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": state}], ids=["plain", "model"])
@pytest.mark.parametrize("name", ["sam.pth", "sam.pt", "sam.safetensors"])
def test_published_layout_gives_the_originals_outputs(saved, original, name, wrap):
    if name.endswith("safetensors") and wrap is not dict:
        pytest.skip("safetensors cannot nest")
    sam = oracles.our_sam()
    load_weights(sam, saved(wrap(original.state_dict()), name))
    pixels = random(1, 3, oracles.SIZE_PX, oracles.SIZE_PX)
    embedding = original.image_encoder(pixels)
    assert_close(sam.encode(pixels), embedding)
    for with_box_and_mask in (False, True):
        ours = decode(sam, embedding, with_box_and_mask)
        for mine, theirs in zip(ours, decode(original, embedding, with_box_and_mask), strict=True):
            assert_close(mine, theirs)


def test_no_random_numbers_are_drawn_for_weights_that_are_loaded():
    """They take seconds of a large model's. What is not loaded would be found here too."""
    with load._NoRandomWeights():
        zeros = torch.empty(9).normal_()
        unseen = nn.init.uniform_(torch.full((9,), 7.0))
        nn.init.trunc_normal_(torch.empty(9))
    assert zeros.tolist() == [0] * 9
    assert unseen.tolist() == [7] * 9
    states = [load.load_model("nano", device="cpu").state_dict().values() for _ in range(2)]
    assert all(torch.equal(*tensors) for tensors in zip(*states, strict=True))


def test_old_serialisation_loads(saved, published_state):
    sam = oracles.our_sam()
    load_weights(sam, saved(published_state, _use_new_zipfile_serialization=False))
    assert_same_state(sam.state_dict(), published_state)


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(actual[key], tensor), key


@pytest.fixture(scope="module")
def hub_sam():
    return randomise(oracles.transformers_sam())


def test_transformers_layout_gives_its_outputs(tmp_path, hub_sam):
    hub_sam.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    assert is_transformers_layout(load_file(path))
    sam = oracles.our_sam()
    load_weights(sam, path)
    pixels = random(1, 3, oracles.SIZE_PX, oracles.SIZE_PX)
    embedding = hub_sam.get_image_embeddings(pixels)
    assert_close(sam.encode(pixels), embedding)
    for with_box_and_mask in (False, True):
        prompts = {"input_points": POINTS[None], "input_labels": LABELS[None]}
        if with_box_and_mask:
            prompts |= {"input_boxes": BOXES[None], "input_masks": MASKS[:1]}
        theirs = hub_sam(image_embeddings=embedding, **prompts)
        sparse, dense = sam.prompt_encoder(
            (POINTS, LABELS), *((BOXES, MASKS[:1]) if with_box_and_mask else (None, None))
        )
        pe = sam.prompt_encoder.get_dense_pe()
        logits, iou = sam.mask_decoder(embedding, pe, sparse, dense[:1], multimask_output=True)
        assert_close(logits, theirs.pred_masks[0])
        assert_close(iou, theirs.iou_scores[0])


def test_transformers_keys_are_all_renamed_to_ours(hub_sam):
    keys = [published_key(key) for key in hub_sam.state_dict()]
    assert set(keys) == set(oracles.our_sam().state_dict())
    assert len(keys) == len(set(keys)) + 1  # the positions, twice


def test_tied_positions_may_come_under_either_name_or_both(saved, hub_sam):
    state = {key: tensor.clone() for key, tensor in hub_sam.state_dict().items()}
    shared, tied = (key for key in state if key.endswith("positional_embedding"))
    for dropped in (shared, tied, None):
        some = {key: tensor for key, tensor in state.items() if key != dropped}
        assert torch.equal(to_published_layout(some)[POSITIONS], state[shared])
    state[tied][0, 0] += 1
    assert POSITIONS in refusal(saved(state, "model.safetensors"))
    state[tied] = state[shared].double()
    assert POSITIONS in refusal(saved(state, "model.safetensors"))


def test_published_layout_is_not_taken_for_transformers(published_state):
    assert not is_transformers_layout(published_state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_become_the_models_own(saved, published_state, dtype):
    stored = {key: tensor.to(dtype) for key, tensor in published_state.items()}
    sam = oracles.our_sam()
    load_weights(sam, saved(stored))
    assert {p.dtype for p in sam.parameters()} == {torch.float32}
    assert all(p.is_contiguous() and p.requires_grad for p in sam.parameters())
    assert_same_state(sam.state_dict(), {key: t.float() for key, t in stored.items()})


def test_a_loaded_model_does_not_depend_on_the_file(saved, published_state):
    path = saved(published_state)
    sam = oracles.our_sam()
    load_weights(sam, path)
    path.write_bytes(bytes(path.stat().st_size))
    assert_same_state(sam.state_dict(), published_state)


def test_derived_buffers_in_a_file_are_ignored(saved):
    model = randomise(oracles.our_mobile_sam())
    state = model.state_dict()
    derived = {k: b for k, b in model.named_buffers() if k.endswith("attention_bias_idxs")}
    assert len(derived) == 3
    assert not derived.keys() & state.keys()
    other = oracles.our_mobile_sam()
    load_weights(other, saved({**state, **derived}))
    assert_same_state(other.state_dict(), state)
    # Only where the model has them, and nothing else that it has.
    stray = {"image_encoder.elsewhere.attention_bias_idxs": torch.zeros(1)}
    assert "1 keys unexpected (image_encoder.elsewhere" in refusal(saved({**state, **stray}), other)
    extra = {"pixel_mean": torch.zeros(3, 1, 1)}
    assert "1 keys unexpected (pixel_mean)" in refusal(saved({**state, **extra}), other)


def test_integer_buffers_must_stay_integers(saved):
    model = oracles.our_mobile_sam()
    state = model.state_dict()
    counter = next(key for key in state if key.endswith("num_batches_tracked"))
    message = refusal(saved({**state, counter: torch.tensor(1.0)}), model)
    assert "1 tensors of an unusable type" in message
    assert counter in message


# --- refusals ------------------------------------------------------------------------------------


def test_wrong_keys_are_counted_and_named(saved, published_state):
    state = {k: t for k, t in published_state.items() if not k.startswith("image_encoder.neck.")}
    message = refusal(saved({**state, "extra.weight": torch.zeros(1)}))
    assert "6 keys missing (image_encoder.neck.0.weight, " in message
    assert "and 3 more); 1 keys unexpected (extra.weight)" in message
    assert "looks like" not in message  # it is the right model, incomplete


def test_wrong_shapes_are_named(saved, published_state):
    message = refusal(saved({**published_state, ABSENT: torch.zeros(32, 24)}))
    assert f"1 keys of another shape ({ABSENT} (32, 24) for (32, 24, 1, 1))" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_that_are_not_finite_are_refused(saved, published_state, value, dtype):
    broken = published_state[ABSENT].to(dtype, copy=True)
    broken[1, 2] = value
    message = refusal(saved({**published_state, ABSENT: broken}))
    assert f"1 tensors hold NaN or infinity ({ABSENT})" in message


def test_float64_that_overflows_is_refused(saved, published_state):
    broken = published_state[ABSENT].double()
    broken[0, 0] = 1e300
    assert "1 tensors hold NaN" in refusal(saved({**published_state, ABSENT: broken}))


@pytest.mark.parametrize(
    "value", [torch.int32, torch.complex64, torch.bool, torch.float8_e4m3fn], ids=str
)
def test_other_kinds_of_numbers_are_refused(saved, published_state, value):
    broken = torch.zeros(published_state[ABSENT].shape).to(value)
    message = refusal(saved({**published_state, ABSENT: broken}))
    assert f"1 tensors of an unusable type ({ABSENT} {value} for torch.float32)" in message


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "value",
    [3, [1.0], {"a": torch.zeros(1)}, torch.eye(3).to_sparse(), torch.zeros(2, device="meta")],
    ids=["int", "list", "dict", "sparse", "meta"],
)
def test_values_that_are_no_plain_tensors_are_refused(saved, published_state, value):
    message = refusal(saved({**published_state, "epoch": value}))
    assert "1 values are no plain tensors (epoch)" in message


@pytest.mark.parametrize("content", [[], {}, {"model": {}}, torch.zeros(3), 7], ids=repr)
def test_files_without_a_state_dict_are_refused(saved, content):
    assert refusal(saved(content)).startswith("no state dict")


def test_keys_cannot_forge_output(saved, published_state):
    message = refusal(saved({**published_state, "a\n\x1b[2J" + "b" * 5000: torch.zeros(1)}))
    assert r"a\n\x1b[2Jbbb" in message


def empty(name):
    """The tensors of a registered model, without values: a real file would be large."""
    with torch.device("meta"):
        return build_model(MODELS[name]).state_dict()


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_h", "mobile_sam", "nano", "slimsam_77"])
def test_registered_models_are_known_by_their_tensors(name):
    assert looks_like(empty(name)) == name


@pytest.mark.parametrize(
    "name", [f"sam{generation}_hiera_{size}" for generation in ("2", "2.1") for size in ("t", "b+")]
)
def test_generations_and_sizes_of_sam2_are_known_by_their_tensors(name):
    assert looks_like(empty(name)) == name


def test_another_models_file_is_recognised(saved):
    nano = {key: torch.zeros(tensor.shape) for key, tensor in empty("nano").items()}
    message = refusal(saved(nano))
    assert "; this looks like nano, and the model is sam_vit_b with embed_dim 24 for 768" in message
    assert message.endswith(": a checkpoint without a model's name is loaded as what it is")


def test_another_size_under_transformers_keys_is_recognised(saved, hub_sam):
    state = to_published_layout(hub_sam.state_dict())
    assert looks_like(state).startswith("sam_vit_b with embed_dim 24 for 768, depth 3 for 12 and ")
    path = saved({k: t.clone() for k, t in hub_sam.state_dict().items()}, "model.safetensors")
    message = refusal(path, oracles.our_mobile_sam())
    assert "looks like sam_vit_b with embed_dim 24 for 768" in message
    assert "the model is mobile_sam with " in message


def test_a_damaged_width_does_not_break_recognition(saved):
    state = {"image_encoder.patch_embed.proj.weight": torch.tensor(1.0)}
    assert "keys missing" in refusal(saved(state))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("share", [0.999, 0.5, 0.001])
def test_truncated_files_are_refused(saved, published_state, name, new, share):
    path = saved(published_state, name, _use_new_zipfile_serialization=new)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "no checkpoint, or a damaged one" in refusal(path)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "w"])
@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><title>404</title>\n" * 9,
        b"hello",
        b"\xff" * 100,
        bytes(100),
        b"PK\3\4" * 9,
    ],
    ids=["html", "text", "ones", "zeros", "zip start"],
)
def test_other_files_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert "no checkpoint, or a damaged one" in refusal(path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_absent_empty_and_no_files_are_refused(tmp_path, name):
    path = tmp_path / name
    assert refusal(path) == "there is no such file"
    path.touch()
    assert refusal(path) == "the file is empty"
    path.unlink()
    path.mkdir()
    assert refusal(path) == f"the folder {path} has no model.safetensors"


def test_archives_of_other_things_are_refused(tmp_path, saved, published_state):
    refused = saved(published_state, "program.pt2")
    assert "exported program" in refusal(refused)
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/code/__torch__.py", "evil")
    assert "an archive, but not of a state dict" in refusal(path)
    script = saved(published_state, "script.pt")
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("script/constants.pkl", b"")
    assert "an archive, but not of a state dict" in refusal(script)
    with zipfile.ZipFile(saved(published_state)) as plain, zipfile.ZipFile(path, "w", 8) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    assert "compressed" in refusal(path)


class Hostile:
    """Its unpickling would make a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("how", ["zip", "old", "raw"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pickle_never_runs(tmp_path, published_state, name, how, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "marker", tmp_path / name
    content = {**published_state, "evil": Hostile(marker)}
    if how == "raw":
        path.write_bytes(pickle.dumps(content["evil"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    message = refusal(path)
    assert not marker.exists()
    assert "weights_only" not in message  # torch advises to switch it off
    if how != "raw" and not name.endswith("safetensors"):
        assert message.startswith("refused, and not run: it calls posix.mkdir")
        torch.load(path, weights_only=False)
        assert marker.exists(), "the test's file is harmless, and shows nothing"


# --- saving --------------------------------------------------------------------------------------


def test_saved_weights_load_again(tmp_path, published_state):
    model, again = oracles.our_sam(), oracles.our_sam()
    model.load_state_dict(published_state)
    path = tmp_path / "w.safetensors"
    save_weights(model, path, {"made_by": "a test"})
    load_weights(again, path)
    assert_same_state(again.state_dict(), published_state)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        assert file.metadata() == {"made_by": "a test"}


def test_half_precision_halves_the_file_and_loads_again(tmp_path):
    model, again = randomise(oracles.our_mobile_sam()), oracles.our_mobile_sam()
    save_weights(model, tmp_path / "full.safetensors")
    save_weights(model, tmp_path / "half.safetensors", half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.65 * sizes[1]
    load_weights(again, tmp_path / "half.safetensors")
    for key, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(again.state_dict()[key], expected)


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    model, path = oracles.our_sam(), tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    model.mask_decoder.iou_token.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"w\.safetensors.*iou_token"):
        save_weights(model, path, half=True)
    assert path.read_bytes() == b"old"
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(model, tmp_path / "absent" / "w.safetensors")
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
