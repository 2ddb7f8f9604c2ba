"""The app with a sampling profiler. `faust -A benchmarks.sampled worker`

Every few milliseconds of CPU time (`ITIMER_PROF`) a sample counts the activity of each thread, see `benchmarks.kinds`.
The counts are written to the file `BENCH_SAMPLES`. `BENCH_ANSWERED` selects the app of `benchmarks.answered`.
"""

import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

import msgspec

from benchmarks.kinds import kind_of

if os.environ.get("BENCH_ANSWERED"):
    from benchmarks.answered import app
else:
    from streams.app import app

__all__ = ["app"]

EVERY_S = 0.003
NOTED_EVERY = 500
samples: Counter[str] = Counter()


def note(_signal: int, interrupted: FrameType | None) -> None:
    """Take one sample; waiting threads are not counted."""
    for frame in (interrupted, *_others()):
        if frame is not None and (kind := kind_of(frame)) is not None:
            samples[kind] += 1
    if samples.total() % NOTED_EVERY == 0:
        Path(os.environ["BENCH_SAMPLES"]).write_bytes(msgspec.json.encode(samples))


def _others() -> list[FrameType]:
    """Return the innermost frames of the other threads."""
    main = threading.main_thread().ident
    return [frame for thread, frame in sys._current_frames().items() if thread != main]


signal.signal(signal.SIGPROF, note)
signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
