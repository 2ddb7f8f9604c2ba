"""A separate process that kills the children of a supervisor that was killed itself.

It reads a pipe from the supervisor: the line `+PID` for a started child, `-PID` for an ended one. The pipe closes when
the supervisor ends; the remaining process groups are killed then. The program is run as a file and imports only the
standard library, so that it starts at once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def reap(lines: Iterable[str]) -> None:
    """Read the pipe to its end, and kill the process groups that are left."""
    left: set[int] = set()
    for line in lines:
        (left.add if line[0] == "+" else left.discard)(int(line[1:]))
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    reap(sys.stdin)
