"""A model and its oracle with the same random weights, and how close their outputs must be."""

import re
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch

from amg.models.zoo.transformers_keys import to_published_layout

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
BOTH_DTYPES = (torch.float64, torch.float32)

# Tables whose entries are looked up, not summed over: scaling them by their width would hide them.
_LOOKED_UP = re.compile(
    r"pos_embed|attention_biases|iou_token|mask_tokens|point_embed|no_mask_embed|not_a_point|positional_"
)


def randomise(module, seed=0):
    """Fill all parameters and stored buffers: none stays at its trivial initial value."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(_random_like(name, tensor, generator))
    return module


def _random_like(name, tensor, generator):
    noise = torch.randn(tensor.shape, generator=generator)
    if name.endswith("running_var"):
        return 0.5 + noise.square()
    if _LOOKED_UP.search(name) or not tensor.numel():
        return noise
    if tensor.ndim == 1:
        return 0.3 * noise + name.endswith("weight")
    return noise / tensor[0].numel() ** 0.5


def random(*shape, dtype=torch.float32, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def twins(ours, theirs, dtype=torch.float32, rename=dict):
    """Randomise the oracle, and load its state dict, `rename`d, strictly into ours."""
    randomise(theirs)
    ours.load_state_dict(rename(theirs.state_dict()), strict=True)
    ours.to(dtype).eval(), theirs.to(dtype).eval()
    return ours, theirs


@contextmanager
def oracle_in_float64():
    """Let an oracle compute in float64 where it asks for float32: positions, angles, rotations."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
            mock.patch.multiple(torch, float32=torch.float64, float=torch.float64),
        ):
            yield
    finally:
        torch.set_default_dtype(default)


def precision(dtype):
    """Where to build and to run an oracle whose inputs are of that type."""
    return oracle_in_float64() if dtype == torch.float64 else nullcontext()


def relative_error(ours, theirs):
    """The largest difference, in units of the oracle's largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_close(ours, theirs, tolerance=None):
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    tolerance = TOLERANCE[ours.dtype] if tolerance is None else tolerance
    if theirs.numel():
        error = relative_error(ours, theirs)
        assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"


def layout(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


# --- the oracles' key names ----------------------------------------------------------------------


def from_transformers(part, sam2=False):
    """How to rename a state dict, of a part of a `transformers` model, to the published names."""

    def rename(state):
        whole = {f"{part}.{name}": t for name, t in state.items()}
        mark = {"vision_encoder.backbone.": torch.empty(0)} if sam2 else {}
        published = to_published_layout(whole | mark)
        return {
            name.partition(".")[2]: tensor for name, tensor in published.items() if tensor.numel()
        }

    return rename


_FROM_TIMM = (
    (r"^stages\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample."),
    (r"^stages\.", "layers."),
    (r"^patch_embed\.conv1\.", "patch_embed.seq.0."),
    (r"^patch_embed\.conv2\.", "patch_embed.seq.2."),
    (r"\.conv\.weight$", ".c.weight"),
    (r"^head\.norm\.", "norm_head."),
    (r"^head\.fc\.", "head."),
)


def from_timm(state):
    """TinyVit of `timm` to MobileSAM's names.

    timm merges patches at the start of a stage, MobileSAM at the end of the one before.
    """
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _FROM_TIMM:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed


def decode_all(model, features, frame, points_xy, threshold, **options):
    """The candidates of all points in one batch."""
    n_points = len(points_xy)
    (candidates,) = model.decode(features, frame, points_xy, threshold, n_points, **options)
    return candidates
