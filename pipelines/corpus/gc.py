"""Delete what no commit names: files of attempts that were lost, superseded or broken off."""

from amg.runs.folder import DATA, FAILURES, list_run_files, read_commits, require_plan
from amg.storage.patient import open_patiently
from pipelines.corpus.commit import forget_attempts
from pipelines.corpus.lease import hold_lease


def collect_garbage(run: str, *, dry_run: bool = False) -> dict[str, int]:
    """Delete files of data/ without a commit, half-written ones, and tracebacks of failures.

    Gives their names and bytes. Raises RunError for a folder without a plan or with a run at work.
    """
    storage = open_patiently(run)
    plan = require_plan(storage)  # before a lease leaves its file in a folder that is no run
    with hold_lease(storage.once):
        commits = read_commits(storage, plan)
        named = {commit.file for commit in commits.values()}
        garbage = {
            name: size
            for name, size in list_run_files(storage).items()
            if name.endswith(".partial")
            or name.startswith(f"{FAILURES}/")
            or (name.startswith(f"{DATA}/") and name not in named)
        }
        if not dry_run:
            storage.delete(garbage)
            forget_attempts(storage, commits)
    return garbage
