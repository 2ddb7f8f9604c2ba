"""The app on a machine whose wall clock is wrong: by so many seconds as the file says that `CLOCK_FILE` names.

    stack.start_worker(app="tests.clock_app", CLOCK_FILE=str(file))

The file may change while the worker runs: then the clock is set, as by an operator or a time server. What the system
counts since its start goes on as it does. Without the file the clock is right.
"""

import os
import time
from pathlib import Path


class WrongClock:
    """What `time.time` is replaced by."""

    def __init__(self, file: Path) -> None:
        self._file, self._right, self._by_s = file, time.time, 0.0

    def __call__(self) -> float:
        """Seconds since 1970, and some."""
        if self._file.exists() and (said := self._file.read_text()):  # empty while it is being written
            self._by_s = float(said)
        return self._right() + self._by_s


time.time = WrongClock(Path(os.environ["CLOCK_FILE"]))

from streams.app import app  # noqa: E402

__all__ = ["app"]
