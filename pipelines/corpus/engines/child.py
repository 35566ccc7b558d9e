"""A worker process of the local engine: `python -m pipelines.corpus.engines.child FD`.

Setup and tasks come over the pipe, events go back. The end of the pipe is the end of the driver,
and of this process, whatever it is doing.
"""

import logging
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from amg.ops.processes import die_with_parent
from pipelines.corpus.messages import Event, WorkerSetup
from pipelines.corpus.serve import serve


def main(descriptor: int) -> None:
    """Work until the driver has no more."""
    die_with_parent()
    # The driver stops its workers by itself, when they are done; batch systems signal everybody.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe: Connection[Any, Any] = Connection(descriptor)
    worker, setup = pipe.recv()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, tasks), daemon=True).start()
    _work(worker, setup, pipe, tasks)


def _work(
    worker: int,
    setup: WorkerSetup,
    pipe: "Connection[Any, Any]",
    tasks: "queue.SimpleQueue[Any]",
) -> None:
    def tell(event: Event) -> None:
        with suppress(BrokenPipeError):  # the other thread ends us
            pipe.send(event)

    serve(worker, setup, tasks.get, tell)


def _receive(pipe: "Connection[Any, Any]", tasks: "queue.SimpleQueue[Any]") -> None:
    try:
        while True:
            tasks.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
