"""The app on a machine whose wall clock is wrong. The file in `CLOCK_FILE` has the error in seconds.

    stack.start_worker(app="tests.support.clock_app", CLOCK_FILE=str(file))

A change of the file sets the clock, as an operator or a time server does. The monotonic clock is unaffected. Without
the file the wall clock is right.
"""

import os
import time
from pathlib import Path


class WrongClock:
    """Replacement of `time.time`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._right = time.time
        self._error_s = 0.0

    def __call__(self) -> float:
        """Return the seconds since 1970, plus the error."""
        if self._file.exists() and (text := self._file.read_text()):  # empty while it is being written
            self._error_s = float(text)
        return self._right() + self._error_s


time.time = WrongClock(Path(os.environ["CLOCK_FILE"]))

from streams.app import app  # noqa: E402

__all__ = ["app"]
