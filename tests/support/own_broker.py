"""A broker for one test, which may kill it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB

FIRST_PORT, RANGES = 30_000, 270
"""First port, and number of ranges of ten. All are below 32,768, where the ports of outgoing connections begin: such a
connection could take the port of a broker that is down for a moment."""


@contextmanager
def own_broker(directory: Path, more_properties: str = "") -> Iterator[EmbeddedKafka]:
    """Yield a broker in this directory that is not started yet, and kill it at the end of the block.

    Each test process chooses ports from a different range, so no other broker takes the port while this one is down.
    """
    first_port = FIRST_PORT + os.getpid() % RANGES * 10
    broker = EmbeddedKafka(directory, lib=LIB, first_port=first_port, more_properties=more_properties)
    try:
        yield broker
    finally:
        broker.kill()
