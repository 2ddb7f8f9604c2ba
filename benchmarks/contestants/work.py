"""Common parts of the contestants: the work on one record, and the stopwatch."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

RUN = os.environ.get("BENCH_RUN", "bench")
KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
RECORDS = int(os.environ.get("BENCH_RECORDS", "0"))
DATA = Path(os.environ.get("BENCH_DATA", "."))
"""Directory of the tables."""
PARTITIONS = 4
IN, OUT = f"{RUN}-in", f"{RUN}-out"
FORWARDED = 997
"""Number of different keys of the outputs."""


class Said(msgspec.Struct):
    """Value of a record."""

    n: int
    pad: str


class Took(msgspec.Struct):
    """Times from the first record to the last commit."""

    records: int
    wall_s: float
    cpu_s: float


decode = msgspec.json.Decoder(Said).decode


def forwarded_key(said: Said) -> bytes:
    """Return the key under which a record is forwarded."""
    return b"other-%d" % (said.n % FORWARDED)


LOOK_AGAIN_S = 0.01


class Watch:
    """Stopwatch that starts with the first record."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None

    async def finish_when(self, done: Callable[[], int | None]) -> None:
        """Wait until ``done`` returns the number of records, then finish."""
        while (records := done()) is None:  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(LOOK_AGAIN_S)
        self.finish(records)

    def start(self) -> None:
        """Start the stopwatch; later calls have no effect."""
        if self._began is None:
            self._began = time.perf_counter(), time.process_time()

    def finish(self, records: int) -> None:
        """Write the times and end the process at once, so that a shutdown is not measured."""
        assert self._began is not None
        took = Took(records, time.perf_counter() - self._began[0], time.process_time() - self._began[1])
        result = Path(os.environ["BENCH_RESULT"])
        result.with_suffix(".new").write_bytes(msgspec.json.encode(took))
        result.with_suffix(".new").rename(result)
        os._exit(0)
