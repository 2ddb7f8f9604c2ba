"""Ends the children of a supervisor that was killed: a process of its own, which reads from the supervisor's pipe.

A line says who was started (`+PID`) or has ended (`-PID`). The pipe closes when the supervisor is no more, however it
ended; the process groups left are killed then. Run as a file, of the standard library alone, so that it starts at once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def guard(lines: Iterable[str]) -> None:
    left: set[int] = set()
    for line in lines:
        (left.add if line[0] == "+" else left.discard)(int(line[1:]))
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    guard(sys.stdin)
