"""What tests of whole runs share."""

import os
import subprocess
import sys
from pathlib import Path

from amg.config import load_config
from amg.runs.results import open_run
from pipelines.corpus.run import Run
from tests.pipelines.stub import make_stub, save_image

ROOT = Path(__file__).parents[2]
QUICK = ("model.device=cpu", "run.images_per_shard=8", "run.images_per_batch=2")


def make_folder(folder, n_images=20, bad=None):
    """Images 000.png, 001.png, ...; `bad` says what some of them do to a worker."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n_images):
        save_image(folder / f"{i:03d}.png", i, (bad or {}).get(i))
    return folder


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
        "import sys; from tests.pipelines.helpers import make_run\n"
        "report = make_run(sys.argv[1], sys.argv[2], *sys.argv[3:]).execute()\n"
        "sys.exit(0 if report.is_complete else 4)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(inputs), str(out), *overrides],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def running_workers(out):
    """Process ids of worker processes that were started by drivers of this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if b"pipelines.corpus.engines.child" in command:
                driver = Path(f"/proc/{parent}/cmdline").read_bytes()
                if parent == 1 or os.fsencode(str(out)) in driver:
                    found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found
