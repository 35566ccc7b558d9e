"""What tests of whole runs share."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from amg.config import load_config
from amg.runs.folder import PLAN, Plan, to_json
from amg.runs.results import open_run
from amg.storage.stores import open_storage
from pipelines.corpus.run import Run
from tests.pipelines.stub import make_stub, save_image

ROOT = Path(__file__).parents[2]
DRIVER_VARIABLE = "AMG_TEST_DRIVER"
"""Whose driver this is, and whose workers: the folder it writes to."""
QUICK = ("model.device=cpu", "run.images_per_shard=8", "run.images_per_batch=2")


def make_folder(folder, n_images=20, bad=None):
    """Images 000.png, 001.png, ...; `bad` says what some of them do to a worker."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n_images):
        save_image(folder / f"{i:03d}.png", i, (bad or {}).get(i))
    return folder


FINGERPRINT = "f" * 64


def write_plan(out, n_images, images_per_shard=256):
    """The plan alone, for a worker that is not given one by a driver."""
    plan = Plan("run", FINGERPRINT, {}, n_images, 0, images_per_shard)
    open_storage(out).write(PLAN, to_json(plan))
    return plan


def make_run(inputs, out, *overrides, **options):
    """A run with the stub in place of a model."""
    config = load_config(None, [*QUICK, *overrides])
    return Run([inputs], out, config, make_generator=make_stub, **options)


def contents(out):
    """What a run has committed, without what differs from time to time."""
    return [
        (row.image_id, row.status, row.sha256, row.height, row.width, row.masks)
        for row in open_run(out).rows()
    ]


def start_driver(inputs, out, *overrides, **environment):
    """The same as `make_run(...).execute()` in a process of its own, that may be killed."""
    code = (
        "import sys; from tests.pipelines.helpers import run_to_an_exit_code\n"
        "run_to_an_exit_code(*sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(inputs), str(out), *overrides],
        cwd=ROOT,
        env={**os.environ, DRIVER_VARIABLE: str(out), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_to_an_exit_code(inputs, out, *overrides):
    """What a driver's process does."""
    report = make_run(inputs, out, *overrides).execute()
    sys.exit(0 if report.is_complete else 4)


def running_workers(out):
    """Process ids of worker processes that were started by drivers of this folder."""
    mark = os.fsencode(f"{DRIVER_VARIABLE}={out}")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_worker = b"pipelines.corpus.engines.child" in (entry / "cmdline").read_bytes()
            if is_worker and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def wait_until(condition, timeout_s=120):
    """Wait for a condition, not for a time: machines differ."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
