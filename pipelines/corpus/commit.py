"""What makes a shard count: its commit, written by the driver alone."""

import json
from collections.abc import Iterable

from amg.errors import ShardError
from amg.runs.folder import (
    ATTEMPTS,
    DATA,
    REPORT,
    SUCCESS,
    Commit,
    Plan,
    attempt_file,
    commit_file,
    read_commit,
    to_json,
)
from amg.storage.stores import Storage, read_all
from pipelines.corpus.messages import Progress, ShardResult


def commit_shard(storage: Storage, plan: Plan, result: ShardResult, *, replaces: bool) -> Commit:
    """Make a published shard count; gives the commit that stands then.

    replaces: whether an earlier commit of the shard is written over. If not, the first commit wins
    where the storage can create a file only if there is none: another driver's may be there.

    Raises ShardError if the shard is not there as it was sent, StorageError.
    """
    found = storage.size(result.file)
    if found != result.n_bytes:
        raise ShardError(f"{storage.url(result.file)}: {result.n_bytes} bytes sent, found {found}")
    commit = Commit(
        shard=result.shard,
        file=result.file,
        n_bytes=result.n_bytes,
        sha256=result.sha256,
        tally=result.tally,
        attempt=result.attempt,
        fingerprint=plan.fingerprint,
    )
    name = commit_file(result.shard)
    if replaces:
        storage.write(name, to_json(commit))
    elif not storage.create(name, to_json(commit)):
        # Ours, whose answer was lost, or another driver's: either way it holds the shard's rows.
        return read_commit(storage, plan, name) or commit
    return commit


def finish(storage: Storage, report: object, *, complete: bool) -> None:
    """Write the report, and after it the sign that nothing is missing."""
    storage.write(REPORT, to_json(report))
    if complete:
        storage.write(SUCCESS, b"")


def mark_attempt(storage: Storage, shard: int, attempt: str, progress: Progress | None) -> None:
    """Write down which images were in flight when an attempt was lost."""
    storage.write(attempt_file(shard, attempt), to_json(progress or Progress(attempt)))


def forget_attempts(storage: Storage, shards: Iterable[int]) -> None:
    """Remove the marks of attempts at shards."""
    done = set(shards)
    names = storage.list(ATTEMPTS)
    storage.delete(f"{ATTEMPTS}/{name}" for name in names if _shard_of(name) in done)


def sweep_partials(storage: Storage, attempts: Iterable[str]) -> None:
    """Remove the half-written files of attempts whose workers were killed."""
    dead = set(attempts)
    for folder in (DATA, ATTEMPTS) if dead else ():
        names = [name for name in storage.list(folder) if name.startswith(".")]
        # `.part-00042.<attempt>.parquet.<random>.partial`, `.00042.<attempt>.json.<random>.partial`
        storage.delete(f"{folder}/{name}" for name in names if dead.intersection(name.split(".")))


def lost_attempts(storage: Storage, shards: Iterable[int]) -> dict[int, list[Progress]]:
    """Attempts at these shards that were begun, and not committed: nobody is at work now."""
    wanted = set(shards)
    names = sorted(name for name in storage.list(ATTEMPTS) if _shard_of(name) in wanted)
    lost: dict[int, list[Progress]] = {}
    paths = [f"{ATTEMPTS}/{name}" for name in names]
    for name, data in zip(names, read_all(storage, paths), strict=True):
        shard = _shard_of(name)
        if shard is not None and data is not None:
            lost.setdefault(shard, []).append(_read_mark(data))
    return lost


def _shard_of(name: str) -> int | None:
    number = name.partition(".")[0]
    return int(number) if number.isdigit() and name.endswith(".json") else None


def _read_mark(data: bytes) -> Progress:
    try:
        values = json.loads(data)
        return Progress(values["attempt"], tuple(int(i) for i in values["in_flight"]))
    except (ValueError, KeyError, TypeError):
        return Progress("")
