"""How the simulators write to Kafka: `acks=all`, idempotent, keyed by who the record is about."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from simulators.calling import traceparent
from simulators.command import Failure, Teller, home
from topics.records import Record, write

CLOSE_S = 2.0
"""What sending the rest may take at the end; a Kafka that is away must not keep a process from ending."""
WAITING = 1000
"""Records that wait for a Kafka that is away, before the oldest are dropped: where drivers were is soon stale."""


@asynccontextmanager
async def producing(arguments: argparse.Namespace, teller: Teller) -> AsyncIterator[AIOKafkaProducer]:
    """A producer, as soon as Kafka is there; `Failure` if it is not in time."""
    deadline, told = time.monotonic() + arguments.patience, False
    while (producer := await _connected(_address(arguments))) is None:
        if time.monotonic() > deadline:
            raise Failure(
                f"no Kafka answers at {_address(arguments) or 'any address known here'} after "
                f"{arguments.patience:g} s: start the worker, which brings one, or name it with KAFKA_BOOTSTRAP_SERVERS"
            )
        if not told:
            teller.notice("waiting for Kafka")
            told = True
        await asyncio.sleep(0.25)
    try:
        yield producer
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await producer.stop()


class Reports:
    """Records that are sent behind the sender's back, in order, so that a Kafka that is away holds nobody up."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, teller: Teller) -> None:
        self._producer, self._topic, self._teller = producer, topic, teller
        self._waiting: asyncio.Queue[Record] = asyncio.Queue(WAITING)

    def send(self, record: Record) -> None:
        """Have it sent soon."""
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(record)

    async def keep_sending(self) -> None:
        """Send until cancelled."""
        away = False
        while True:
            records = [await self._waiting.get()]
            while not self._waiting.empty():
                records.append(self._waiting.get_nowait())
            try:
                await self._send(records)
                away = False
            except KafkaError as error:
                if not away:
                    self._teller.notice(f"Kafka does not take positions ({type(error).__name__}): going on without")
                away = True

    async def _send(self, records: list[Record]) -> None:
        acknowledged = [await send(self._producer, self._topic, record) for record in records]
        outcomes = await asyncio.gather(*acknowledged, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


async def send(producer: AIOKafkaProducer, topic: str, record: Record) -> "asyncio.Future[object]":
    """Put a record on its topic; the future is done when every replica has it."""
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
    """Kafka's address: as told, or as the worker wrote it down when it started the embedded one."""
    if arguments.bootstrap_servers:
        return str(arguments.bootstrap_servers)
    try:
        return (home() / "kafka" / "address").read_text().strip() or None
    except OSError:
        return None
