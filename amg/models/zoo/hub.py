"""Folders of the Hugging Face hub, `hf:owner/name`: its cache first, then the network."""

import logging
import os
import re
from pathlib import Path

from huggingface_hub import hf_hub_url, snapshot_download

from amg.errors import CheckpointError
from amg.models.zoo.download import answers
from amg.models.zoo.folders import CONFIG, PROCESSORS, has_weights

logger = logging.getLogger(__name__)

PREFIX = "hf:"
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_CONFIGS = [CONFIG, *PROCESSORS]
# One kind after the other: many repositories hold the same weights in several.
_WEIGHTS = (
    ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"],
)


def is_hub_name(checkpoint: str | Path) -> bool:
    """Whether a checkpoint is named by its place on the hub."""
    return str(checkpoint).startswith(PREFIX)


def find_on_hub(checkpoint: str) -> Path:
    """The folder of `hf:owner/name` or `hf:owner/name@revision`, downloaded if it is not cached.

    What is in the hub's cache is taken as it is: every worker of a run has the same files, and
    nobody is asked. Raises CheckpointError for a name that is none, or a folder that cannot be had.
    """
    match = _NAME.fullmatch(checkpoint)
    if match is None:
        raise CheckpointError(
            f"the checkpoint {checkpoint!r} is no name on the hub: hf:owner/name, or with @revision"
        )
    repo, revision = match[1], match[2]
    cached = _cached(repo, revision)
    return _fetch(repo, revision) if cached is None else cached


def is_offline() -> bool:
    """Whether the network is forbidden."""
    values = (os.environ.get(key, "") for key in ("AMG_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() in ("1", "on", "yes", "true") for value in values)


def _cached(repo: str, revision: str | None) -> Path | None:
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except Exception:  # its kinds differ by version, and all mean that it is not there
        return None
    return folder if has_weights(folder) else None


def _fetch(repo: str, revision: str | None) -> Path:
    if is_offline():
        raise CheckpointError(_by_hand(repo, "AMG_OFFLINE or HF_HUB_OFFLINE forbids the network"))
    logger.info("downloading %s from the Hugging Face hub", repo)
    try:
        # The hub's own client tries for half a minute, and says so in many lines.
        if not answers(hf_hub_url(repo, CONFIG)):
            raise ConnectionError("no answer")
        for weights in _WEIGHTS:
            wanted = [*_CONFIGS, *weights]
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
            if has_weights(folder):
                return folder
    except Exception as error:  # its HTTP library, and so what it raises, differs by version
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(_by_hand(repo, reason)) from error
    raise CheckpointError(f"{repo} on the hub has no model.safetensors")


def _by_hand(repo: str, reason: str) -> str:
    return (
        f"{PREFIX}{repo} is not on this machine, and cannot be downloaded: {reason.rstrip('.')}. "
        f"Fetch https://huggingface.co/{repo} elsewhere, and give its folder with --checkpoint PATH"
    )
