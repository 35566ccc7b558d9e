"""Delete what no commit names: files of attempts that were lost, superseded or broken off."""

from amg.io.run_folder import COMMITS, DATA, read_commits, require_plan
from amg.io.storage import LocalStorage, Storage, open_storage
from pipelines.commit import forget_attempts
from pipelines.lease import hold_lease


def collect_garbage(out: str, *, dry_run: bool = False) -> dict[str, int]:
    """Delete files without a commit; give their names and bytes.

    Raises RunError for a folder without a plan or with a run at work.
    """
    storage = open_storage(out)
    plan = require_plan(storage)  # before a lease leaves its file in a folder that is no run
    with hold_lease(storage):
        commits = read_commits(storage, plan)
        named = {commit.file for commit in commits.values()}
        garbage = {
            f"{DATA}/{name}": size
            for name, size in storage.list(DATA).items()
            if f"{DATA}/{name}" not in named
        }
        garbage |= _partials(storage)
        if not dry_run:
            storage.delete(garbage)
            forget_attempts(storage, commits)
    return garbage


def _partials(storage: Storage) -> dict[str, int]:
    """What processes that were killed in the middle of writing have left."""
    if not isinstance(storage, LocalStorage):
        return {}
    return {
        f"{folder}/{name}".lstrip("/"): size
        for folder in ("", COMMITS, "attempts")
        for name, size in storage.list(folder).items()
        if name.startswith(".") and name.endswith(".partial")
    }
