"""The files for Slurm, run by bash with stand-ins for all commands that they call."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.pipelines.helpers import wait_until

CLUSTER = Path(__file__).parents[1] / "configs/cluster"
JOBS = {"slurm-ray.sbatch": "requeue 7", "slurm-array.sbatch": "requeue 5_2"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_PER_TASK": "1",
    "SLURM_ARRAY_JOB_ID": "5",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_ARRAY_TASK_COUNT": "4",
}
COMMANDS = {
    "amg": 'trap "exit $CODE" TERM; echo "$@" > called\n'
    "while [[ -n $WAITS ]]; do sleep 0.02; done; exit $CODE",
    "srun": "exec sleep 60",
    "ray": "exit 0",
    "scontrol": 'echo "$@" > requeued',
}


@pytest.fixture(params=sorted(JOBS))
def job(request, tmp_path):
    """A job's file that finds the stand-ins, and nothing of a cluster."""
    for name, text in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    (tmp_path / "activate").touch()
    text = (CLUSTER / request.param).read_text()
    job = tmp_path / request.param
    job.write_text(text.replace("/shared/venvs/amg/bin/activate", str(tmp_path / "activate")))
    return job


def _start(job, code, **values):
    path = f"{job.parent / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, **SLURM, "CODE": str(code), "WAITS": "", "PATH": path, **values}
    return subprocess.Popen(
        ["bash", job], cwd=job.parent, env=environment, stderr=subprocess.DEVNULL
    )


def _requeued(job):
    path = job.parent / "requeued"
    return path.read_text().strip() if path.exists() else None


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 6])
def test_a_job_that_nobody_interrupted_ends_with_the_code_and_is_not_requeued(job, code):
    process = _start(job, code)
    process.wait(timeout=60)
    assert process.returncode == code
    assert _requeued(job) is None
    assert "--accept-failures 0.05" in (job.parent / "called").read_text()


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (3, False), (4, True), (5, False), (6, False), (143, True)]
)
def test_an_interrupted_job_is_requeued_if_the_same_command_goes_on(job, code, requeued):
    process = _start(job, code, WAITS="1")
    wait_until((job.parent / "called").exists)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert process.returncode == (0 if requeued else code)
    assert _requeued(job) == (JOBS[job.name] if requeued else None)


def test_a_job_is_not_requeued_for_ever(job):
    process = _start(job, 4, WAITS="1", SLURM_RESTART_COUNT="50")
    wait_until((job.parent / "called").exists)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert (process.returncode, _requeued(job)) == (4, None)
