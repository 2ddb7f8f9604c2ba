"""The Kafka producer of the simulators: `acks=all`, idempotent, keyed by the party that a record is about."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from simulators.cli import Failure, Reporter, home
from simulators.http_client import traceparent
from topics.records import Record, write

MAX_CLOSE_S = 2.0
"""Seconds to send the rest at the end, so that a process ends even if Kafka is down."""
MAX_WAITING = 1000
"""Records kept while Kafka is down. Beyond that the oldest are dropped: positions are soon stale."""


@asynccontextmanager
async def producing(arguments: argparse.Namespace, reporter: Reporter) -> AsyncIterator[AIOKafkaProducer]:
    """Yield a producer once Kafka answers. Raises `Failure` if it does not in time."""
    deadline, is_noticed = time.monotonic() + arguments.patience, False
    while (producer := await _connected(_address(arguments))) is None:
        if time.monotonic() > deadline:
            raise Failure(
                f"no Kafka answers at {_address(arguments) or 'a known address'} after "
                f"{arguments.patience:g} s: start a worker, which starts Kafka, or set KAFKA_BOOTSTRAP_SERVERS"
            )
        if not is_noticed:
            reporter.notice("waiting for Kafka")
            is_noticed = True
        await asyncio.sleep(0.25)
    try:
        yield producer
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_CLOSE_S):
                await producer.stop()


class Reports:
    """Records that are sent in the background, in order, so that their senders never wait for Kafka."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, reporter: Reporter) -> None:
        self._producer = producer
        self._topic = topic
        self._reporter = reporter
        self._waiting: asyncio.Queue[Record] = asyncio.Queue(MAX_WAITING)

    def send(self, record: Record) -> None:
        """Enqueue a record."""
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(record)

    async def keep_sending(self) -> None:
        """Send until cancelled."""
        is_failing = False
        while True:
            records = [await self._waiting.get()]
            while not self._waiting.empty():
                records.append(self._waiting.get_nowait())
            try:
                await self._send(records)
                is_failing = False
            except KafkaError as error:
                if not is_failing:
                    self._reporter.notice(
                        f"Kafka does not accept positions ({type(error).__name__}): they are lost until it does"
                    )
                is_failing = True

    async def _send(self, records: list[Record]) -> None:
        acknowledged = [await send(self._producer, self._topic, record) for record in records]
        outcomes = await asyncio.gather(*acknowledged, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


async def send(producer: AIOKafkaProducer, topic: str, record: Record) -> "asyncio.Future[object]":
    """Produce a record; the returned future is done when every replica has it."""
    trace = ("traceparent", traceparent(record.event_id).encode())
    sent: asyncio.Future[object] = await producer.send(
        topic, key=record.key.encode(), value=write(record), headers=[trace]
    )
    return sent


async def _connected(address: str | None) -> AIOKafkaProducer | None:
    if address is None:
        return None
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True, linger_ms=0)
    try:
        await producer.start()
    except KafkaError:
        await producer.stop()
        return None
    except ValueError as error:
        raise Failure(f"{address!r} is not an address of Kafka ({error}): give host:port") from None
    return producer


def _address(arguments: argparse.Namespace) -> str | None:
    """Return Kafka's address: the given one, or that of the embedded Kafka; None if neither is known."""
    if arguments.bootstrap_servers:
        return str(arguments.bootstrap_servers)
    try:
        return (home() / "kafka" / "address").read_text().strip() or None
    except OSError:
        return None
