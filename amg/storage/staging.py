"""Files of this machine appear whole or not at all: built under another name, then moved.

`reached` hears of the steps, for failpoints: begun, half_written, synced, renamed.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
OnStep = Callable[[str], None]


@contextmanager
def staging(staged: Path) -> Iterator[Path]:
    """A path to build a file at: what is not moved from there is deleted at the end."""
    try:
        yield staged
    finally:
        with suppress(OSError):  # who sweeps the folder finds it
            staged.unlink(missing_ok=True)


def fill(staged: Path, data: bytes, reached: OnStep = lambda step: None) -> None:
    """Write a file. Raises OSError."""
    with staged.open("wb") as file:
        reached("begun")
        file.write(data[: len(data) // 2])
        file.flush()
        reached("half_written")
        file.write(data[len(data) // 2 :])


def move(
    staged: Path, target: Path, reached: OnStep = lambda step: None, *, durable: bool = True
) -> None:
    """Give a finished file its name; its folder is made if there is none. Raises OSError.

    It may be called again when it has failed. durable: file and name are on the disk then; without
    it that is for the caller to see to, for many files at once.
    """
    if staged.exists() or not target.exists():  # else it was moved, and the rest failed
        if durable:
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            reached("synced")
        try:
            staged.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
    if durable:
        _sync_folder(target.parent)
        reached("renamed")


def link(staged: Path, target: Path, reached: OnStep = lambda step: None) -> bool:
    """Give a finished file a name that no other has yet, durably; False if one has. Raises OSError.

    Some mounted file systems have no links. There two who try at once may both be told True.
    """
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    reached("synced")
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            return False
        staged.replace(target)
    _sync_folder(target.parent)
    reached("renamed")
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
