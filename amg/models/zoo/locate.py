"""Find the checkpoint of a model on this machine, or get it.

A file is looked for where the caller says, then in the cache folder (`$AMG_CACHE`, else
`$XDG_CACHE_HOME/amg`, else `~/.cache/amg`; there in `checkpoints`), then in the Hugging Face hub's
cache, then on the network: the published place, then the hub.

Files of the cache folder are hashed once: `<file>.sha256` remembers the sum, with the size and
time of change it belongs to. It saves every worker's start the reading of up to 2.6 GB, and guards
against damage, not against someone who can write to the folder. All other files are hashed at
every start.
"""

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

from amg.errors import CheckpointError
from amg.models.zoo.download import (
    PublishedFile,
    UnreachableError,
    answers,
    download,
    exclusive,
    sha256_of,
)
from amg.models.zoo.folders import folder_sha256
from amg.models.zoo.hub import find_on_hub, is_hub_name, is_offline

logger = logging.getLogger(__name__)

_HUB_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class LocatedWeights:
    """A checkpoint on this machine, and the sha256 of its bytes in hexadecimal.

    `path` may be a folder: its sum is `folder_sha256`.
    """

    path: Path
    sha256: str


def find_checkpoint(
    name: str, weights: PublishedFile | Path | str, checkpoint: str | Path | None
) -> LocatedWeights:
    """Find the weights of the model `name`, downloading them if they are nowhere else.

    weights: a published file, the path of a built-in one, or a name on the hub. checkpoint: the
    caller's own file, folder or `hf:owner/name`, which comes before all else. `AMG_OFFLINE=1` or
    `HF_HUB_OFFLINE=1` forbid the network. Several processes may call this at once: one downloads,
    the others wait for it.

    Raises CheckpointError: a missing or unreadable file, a wrong sum, no network, a full disk.
    """
    try:
        if checkpoint is not None:
            return find_own(checkpoint)
        if isinstance(weights, Path):
            return _hashed(weights)
        if isinstance(weights, str):
            return find_own(weights)
        return _find_cached(name, weights) or _fetch(name, weights)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise CheckpointError(f"the checkpoint of {name}: {error}") from error


def find_own(checkpoint: str | Path) -> LocatedWeights:
    """A file, a folder or `hf:owner/name`. Raises CheckpointError if it is not there."""
    try:
        if is_hub_name(checkpoint):
            path = find_on_hub(str(checkpoint))
        else:
            path = Path(checkpoint).expanduser()
        return LocatedWeights(path, folder_sha256(path)) if path.is_dir() else _hashed(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise CheckpointError(f"the checkpoint {checkpoint}: {error}") from error


def _hashed(path: Path) -> LocatedWeights:
    _require_file(path)
    return LocatedWeights(path, sha256_of(path))


def _require_file(path: Path) -> None:
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise CheckpointError(f"the checkpoint {path} {what}")


def _cache_folder() -> Path:
    chosen, shared = os.environ.get("AMG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    root = Path(chosen) if chosen else Path(shared or "~/.cache") / "amg"
    return root.expanduser().absolute() / "checkpoints"


def _find_cached(name: str, published: PublishedFile) -> LocatedWeights | None:
    """The weights in the cache folder, as published or as `<name>.safetensors`, or the hub's."""
    path = _cache_folder() / published.file_name
    if path.is_file():
        actual = _remembered_sha256(path)
        if actual != published.sha256:
            raise CheckpointError(
                f"{path} has sha256 {actual}, but the published file has {published.sha256}; "
                "delete it to have it downloaded again"
            )
        return LocatedWeights(path, actual)
    path = path.with_name(f"{name}.safetensors")
    if path.is_file():
        return LocatedWeights(path, _remembered_sha256(path))
    if published.hub_repo is not None:
        in_hub_cache = try_to_load_from_cache(published.hub_repo, _HUB_FILE)
        if isinstance(in_hub_cache, str):
            return _hashed(Path(in_hub_cache))
    return None


def _remembered_sha256(path: Path) -> str:
    """The sha256 of a file of the cache folder, read from beside it while the file is the same."""
    status = path.stat()
    note = path.with_name(path.name + ".sha256")
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    with suppress(OSError, UnicodeDecodeError):
        if re.fullmatch(f"[0-9a-f]{{64}} {stamp}", text := note.read_text()):
            return text.split()[0]
    sha256 = sha256_of(path)
    with suppress(OSError):  # a folder that cannot be written only costs the hashing
        note.write_text(f"{sha256} {stamp}")
    return sha256


def _fetch(name: str, published: PublishedFile) -> LocatedWeights:
    """Download a published file into the cache folder, one process at a time."""
    target = _cache_folder() / published.file_name
    if is_offline():
        reason = "AMG_OFFLINE or HF_HUB_OFFLINE forbids the network"
        raise CheckpointError(_by_hand(name, published, target, reason))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(target.with_name(target.name + ".lock")):
            # Whoever held the lock before may have brought it.
            return _find_cached(name, published) or _download(name, published, target)
    except OSError as error:
        reason = f"{target.parent} cannot be written ({error.strerror or error})"
        raise CheckpointError(_by_hand(name, published, target, reason)) from error


def _download(name: str, published: PublishedFile, target: Path) -> LocatedWeights:
    try:
        download(published, target)
    except UnreachableError as error:
        if published.hub_repo is None:
            raise CheckpointError(_by_hand(name, published, target, str(error))) from error
        logger.warning("%s; trying %s on the Hugging Face hub", error, published.hub_repo)
        return _hashed(_download_from_hub(name, published, target, str(error)))
    return LocatedWeights(target, _remembered_sha256(target))


def _download_from_hub(name: str, published: PublishedFile, target: Path, reason: str) -> Path:
    """The hub's file in the hub's own cache. `reason`: why the published place failed."""
    assert published.hub_repo is not None
    try:
        # The hub's own client tries for half a minute, and says so in many lines.
        if not answers(hf_hub_url(published.hub_repo, _HUB_FILE)):
            raise ConnectionError("no answer")
        return Path(hf_hub_download(published.hub_repo, _HUB_FILE))
    except Exception as error:  # its HTTP library, and so what it raises, differs by version
        first_line = str(error).strip().partition("\n")[0]
        reason = f"{reason}; {published.hub_repo} on the hub: {first_line}"
        raise CheckpointError(_by_hand(name, published, target, reason)) from error


def _by_hand(name: str, published: PublishedFile, target: Path, reason: str) -> str:
    """A message that tells how to do without the download."""
    other = (
        f", or {_HUB_FILE} of https://huggingface.co/{published.hub_repo} at "
        f"{target.with_name(name + '.safetensors')}"
        if published.hub_repo
        else ""
    )
    return (
        f"the checkpoint of {name} is not on this machine, and cannot be downloaded: "
        f"{reason.rstrip('.')}. Fetch {published.url} (sha256 {published.sha256}) elsewhere "
        f"and put it at {target}{other}; or give the path of a file with --checkpoint PATH"
    )
