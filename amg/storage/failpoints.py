"""Places where a test can make the program fail: nothing happens unless AMG_FAILPOINT is set.

`AMG_FAILPOINT=commits.renamed=kill:/tmp/marker` kills the process the first time that it reaches
`commits.renamed`; the marker file remembers, over processes, that it has happened. Actions are
`kill` (SIGKILL), `raise` (an OSError), `full` (no space left on the device) and `delay` (two
seconds). Without a marker it happens every time.
"""

import errno
import os
import signal
import time

ENVIRONMENT = "AMG_FAILPOINT"
DELAY_S = 2.0


def reach(name: str) -> None:
    """Fail here, if AMG_FAILPOINT says so."""
    wanted = os.environ.get(ENVIRONMENT)
    if not wanted:
        return
    point, _, rest = wanted.partition("=")
    action, _, marker = rest.partition(":")
    if point != name or (marker and not _first_time(marker)):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "delay":
        time.sleep(DELAY_S)
    else:
        code = errno.ENOSPC if action == "full" else errno.EIO
        raise OSError(code, f"{os.strerror(code)} (failpoint {name})")


def _first_time(marker: str) -> bool:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
