"""Locks of the operating system on files (flock): gone with who holds them, however that ends.

On network file systems they are as good as those are. A lock belongs to an open file, which a child
has too until it has become another program: of a process that is killed while it starts one, the
lock stays for a moment, on a busy machine for tenths of a second. Who finds a lock taken looks who
signed it, and waits for that moment to pass if the signer is dead.
"""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_PATIENCE_S = 5.0
"""For the lock of a holder that is dead, or has not signed yet."""
_GLANCE_S = 0.25
"""For those who only look whether a lock is free: they have it for an instant."""
_LOOK_EVERY_S = 0.02


class LockTakenError(Exception):
    """Another holds the lock; `holder` is what it has signed with, "" if it has not yet."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.holder = holder


def take_lock(path: Path, *, wait: bool = False) -> IO[bytes]:
    """Lock a file of this name, and sign it; closing what is returned lets go.

    wait: for whoever has it, however long. Raises LockTakenError, OSError.
    """
    file = _locked(path, wait=wait)
    with suppress(OSError):  # who holds it is only for the others' message
        file.truncate(0)
        file.write(signature().encode())
    return file


def require_free(path: Path) -> None:
    """Raise LockTakenError if another holds the lock; OSError. Those who look exclude nobody."""
    _locked(path, fcntl.LOCK_SH).close()


def holder_of(path: Path) -> bytes | None:
    """What the holder of a lock has signed with, None if nobody holds it. Raises OSError.

    It needs no right to write, and shares the lock for an instant, as all do who look.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
    return None


def signature() -> str:
    """Who we are, as JSON."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})


def _locked(path: Path, kind: int = fcntl.LOCK_EX, *, wait: bool = False) -> IO[bytes]:
    file = path.open("ab", buffering=0)
    try:
        if wait:
            fcntl.flock(file, kind)
            return file
        began = time.monotonic()
        while not _try(file, kind):
            holder = path.read_text(errors="replace")
            patience_s = _PATIENCE_S if _may_be_gone(holder) else _GLANCE_S
            if time.monotonic() - began > patience_s:
                raise LockTakenError(path, holder)
            time.sleep(_LOOK_EVERY_S)
    except BaseException:
        file.close()
        raise
    return file


def _try(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _may_be_gone(holder: str) -> bool:
    """Whether the signer of a lock is dead, or another is about to sign.

    It decides on waiting alone: a lock that is held is never taken. So it does no harm that a
    number may be another process's by now, or one of another container's with our host's name.
    """
    try:
        values = json.loads(holder)
        host, pid = values["host"], int(values["pid"])
    except (ValueError, KeyError, TypeError):  # between its lock and its signature
        return True
    return host == socket.gethostname() and not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    with suppress(OSError, IndexError):  # Linux: killed, but not yet waited for
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True
