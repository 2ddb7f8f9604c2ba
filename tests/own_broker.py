"""A broker that nobody else uses, so that a test may kill it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB

FIRST_PORT = 40_000


@contextmanager
def own_broker(directory: Path, more_properties: str = "") -> Iterator[EmbeddedKafka]:
    """One under this directory, not started yet; it ends with the block.

    While it is down no other broker may take its port: each process of the tests looks from a place of its own on.
    """
    first_port = FIRST_PORT + os.getpid() % 2_000 * 10
    broker = EmbeddedKafka(directory, lib=LIB, first_port=first_port, more_properties=more_properties)
    try:
        yield broker
    finally:
        broker.kill()
