"""One driver a folder: the second is refused while the first lives.

Local folders: a lock of the operating system (flock), gone with the process that holds it; on
network file systems as good as their locks are. Object stores: a file that is renewed and runs
out, by clocks that agree within a minute; it is advisory where the store cannot create a file only
if there is none. Drivers of disjoint slices (1/4, 2/4, ...) do not exclude each other.

If two drivers ever work on one folder, shards are done twice, but each row is still there once: a
shard has one commit, and the last one written counts.
"""

import contextlib
import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from amg.errors import AmgError, InterruptedRunError, RunInUseError, StorageError
from amg.storage.access import is_passing
from amg.storage.locks import LockTakenError, require_free, signature, take_lock
from amg.storage.retry import with_backoff
from amg.storage.stores import Storage

logger = logging.getLogger(__name__)
_PLANNING = "planning"
_WAIT_S = 0.5
LEASE_S = 60.0
"""A lease on an object store that was not renewed for so long is free."""


@contextmanager
def hold_lease(storage: Storage, slice_: tuple[int, int] = (0, 1)) -> Iterator["Lease"]:
    """Be the only driver of a folder, or of the slice `index, count` of it.

    Raises InterruptedRunError naming who holds it.
    """
    with _held(storage, f"{slice_[0]}-of-{slice_[1]}") as lease:
        yield lease


@contextmanager
def hold_planning_lease(storage: Storage) -> Iterator[None]:
    """Be the only one to make the plan of a folder; wait for who is at it."""
    while True:
        try:
            with _held(storage, _PLANNING):
                yield
                return
        except RunInUseError:
            time.sleep(_WAIT_S)


@contextmanager
def _held(storage: Storage, name: str) -> Iterator["Lease"]:
    folder = storage.local_folder
    lease = _ObjectLease(storage) if folder is None else _FileLease(storage, folder)
    with_backoff(lambda: lease.acquire(name))
    try:
        yield lease
    finally:
        lease.release()


class Lease:
    """A held lease."""

    @property
    def is_held(self) -> bool:
        """Whether nobody else may be at work now.

        It may become true again: who cannot renew a lease waits, and commits nothing meanwhile.
        """
        return True

    def check(self) -> None:
        """Raise InterruptedRunError if it was lost: another driver is at work."""


def _conflicts(mine: str, other: str) -> bool:
    """Slices of the same count are disjoint, other slices overlap; planning is no slice."""
    if _PLANNING in (mine, other):
        return mine == other
    return mine == other or mine.partition("-of-")[2] != other.partition("-of-")[2]


def _refuse(storage: Storage, holder: str) -> RunInUseError:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        values = json.loads(holder)
        holder = f"process {values['pid']} on {values['host']}"
    return RunInUseError(
        f"{storage.url()} is in use: another run is at work on it ({holder or '?'})"
    )


class _FileLease(Lease):
    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage = storage
        self._folder = folder / ".leases"
        self._file: IO[bytes] | None = None

    def acquire(self, name: str) -> None:
        at = self._folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = take_lock(self._folder / f"{name}.lock")
            for at in self._folder.glob("*.lock"):
                if at.stem != name and _conflicts(name, at.stem):
                    require_free(at)
        except LockTakenError as error:
            self.release()
            raise _refuse(self._storage, error.holder) from None
        except OSError as error:
            self.release()
            text = f"cannot lock {at}: {error.strerror}"
            raise StorageError(text, passing=is_passing(error)) from error

    def release(self) -> None:
        if self._file is not None:
            self._file.close()


class _ObjectLease(Lease):
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._owner = uuid.uuid4().hex
        self._signature = json.loads(signature())
        self._name = ""
        self._renewed_at = -math.inf
        self._is_lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, name: str) -> None:
        self._name = f"leases/{name}.json"
        # A store that loses its answer says to the second try that there is one: ours.
        if not self._storage.create(self._name, self._content()) and not self._is_mine():
            self._take_over_if_expired(self._name)
        try:
            self._refuse_if_others_are_live(name)
        except AmgError:
            self._give_back()
            raise
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _refuse_if_others_are_live(self, name: str) -> None:
        for file in self._storage.list("leases"):
            other = file.removesuffix(".json")
            if other != name and _conflicts(name, other) and self._is_live(f"leases/{file}"):
                raise _refuse(self._storage, (self._storage.read(f"leases/{file}") or b"").decode())

    def _take_over_if_expired(self, name: str) -> None:
        if self._is_live(name):
            raise _refuse(self._storage, (self._storage.read(name) or b"").decode())
        self._storage.delete([name])
        if not self._storage.create(name, self._content()) and not self._is_mine():
            raise _refuse(self._storage, (self._storage.read(name) or b"").decode())

    def _is_live(self, name: str) -> bool:
        data = self._storage.read(name)
        if data is None:
            return False
        try:
            return time.time() < float(json.loads(data)["until"])
        except (ValueError, KeyError, TypeError):
            return True  # not understood: not ours to break

    def _content(self) -> bytes:
        values = {**self._signature, "owner": self._owner, "until": time.time() + LEASE_S}
        return json.dumps(values).encode()

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_S / 4):
            try:
                if not self._is_mine():
                    logger.error("the lease on %s was taken over", self._storage.url())
                    self._is_lost = True
                    return
                self._storage.write(self._name, self._content())
                self._renewed_at = time.monotonic()
            except StorageError as error:
                logger.warning("the lease could not be renewed: %s", error)

    def _is_mine(self) -> bool:
        data = self._storage.read(self._name) or b"{}"
        with contextlib.suppress(ValueError, AttributeError):  # damaged: not ours
            return json.loads(data).get("owner") == self._owner
        return False

    @property
    def is_held(self) -> bool:
        return not self._is_lost and time.monotonic() - self._renewed_at < LEASE_S

    def check(self) -> None:
        if self._is_lost:
            raise InterruptedRunError(
                f"the lease on {self._storage.url()} was lost; run again to go on"
            )

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._give_back()

    def _give_back(self) -> None:
        with contextlib.suppress(StorageError):
            if self._is_mine():
                self._storage.delete([self._name])
