"""The app, sampled: where a worker's CPU goes. `faust -A benchmarks.sampled worker`

Every few milliseconds of CPU time (`ITIMER_PROF`) it is noted what each thread is at, see `benchmarks.kinds`. What was
counted so far is in the file `BENCH_SAMPLES`. With `BENCH_ANSWERED` it is the app of `benchmarks.answered`.
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
from streams.app import app

if os.environ.get("BENCH_ANSWERED"):
    import benchmarks.answered  # noqa: F401

__all__ = ["app"]

EVERY_S = 0.003
NOTED_EVERY = 500
samples: Counter[str] = Counter()


def note(_signal: int, interrupted: FrameType | None) -> None:
    """One sample. Of a thread that waits for something nothing is noted."""
    for frame in (interrupted, *_others()):
        if frame is not None and (kind := kind_of(frame)) is not None:
            samples[kind] += 1
    if samples.total() % NOTED_EVERY == 0:
        Path(os.environ["BENCH_SAMPLES"]).write_bytes(msgspec.json.encode(samples))


def _others() -> list[FrameType]:
    """What the other threads are at."""
    main = threading.main_thread().ident
    return [frame for thread, frame in sys._current_frames().items() if thread != main]


signal.signal(signal.SIGPROF, note)
signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
